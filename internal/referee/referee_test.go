package referee_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/referee"
)

func TestCollect(t *testing.T) {
	from := time.Unix(1_700_000_000, 500_000_000)
	prometheus := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/prefix/api/v1/query_range" || q.Get("start") != "1700000000.500" || q.Get("end") != "1700000060.500" || q.Get("step") != "10" {
			t.Errorf("%s", r.URL)
		}
		switch q.Get("query") {
		case `rate(cpu{instance="m-1"}[10s])`:
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"cpu","cpu":"0"},"values":[[1700000000.5,"0.25"],[1700000010.5,"NaN"]]},{"metric":{"cpu":"1"},"values":[[1700000000.5,"9"]]}]}}`))
		case "none":
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"matrix","result":[]}}`))
		case "scalar":
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"scalar","result":[]}}`))
		case "html":
			_, _ = w.Write([]byte(`<html>`))
		default:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:3: parse error"}`))
		}
	}))
	defer prometheus.Close()
	m := referee.Metrics{Address: prometheus.URL + "/prefix/", Interval: 10 * time.Second, Queries: []string{
		"cpu:rate(cpu{{selector}}[{interval}])", "nothing:none", "bad:((", "kind:scalar", "page:html", "nameless",
	}}
	text, err := m.Collect(t.Context(), `instance="m-1"`, from, from.Add(time.Minute))
	if got, want := string(text), `{"cpu":[[1700000000.5,"0.25"],[1700000010.5,"NaN"]]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, want := range []string{"query bad: the server answers 400 Bad Request: invalid parameter", `query kind: the result is of type "scalar"`, "query page: the server answers 200 OK", `query "nameless": expected name:expression`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %s", err, want)
		}
	}
	m.Queries = []string{"nothing:none"}
	if text, err := m.Collect(t.Context(), "", from, from.Add(time.Minute)); text != nil || err != nil {
		t.Errorf("%s %v", text, err)
	}
	prometheus.Close()
	if text, err := m.Collect(t.Context(), "", from, from); text != nil || err == nil {
		t.Errorf("%s %v", text, err)
	}
}
