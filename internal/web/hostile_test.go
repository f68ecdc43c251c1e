package web_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/view"
	"github.com/tranter-ci/tranter/internal/web"
	"github.com/tranter-ci/tranter/internal/web/webtest"
)

// keeps are the fields that decide where a thing is shown, by which pages are asked for.
func keeps(field string) bool {
	switch field {
	case "Key", "State", "Runner", "Pool", "Machine", "Jobs", "Kind", "By", "Class":
		return true
	}
	return false
}

// poisoned is a server that knows nothing but the given text.
func poisoned(t *testing.T, text string, everything bool) *rig {
	keep := keeps
	if everything {
		keep = func(string) bool { return false }
	}
	s := webtest.Sample(time.Now())
	s.Pipes = []view.Pipeline{{ID: 1, Name: "x", Status: "x", Stages: []string{"x"}, Jobs: []view.PipelineJob{{Name: "x", Stage: "x", Needs: []string{"x"}}}}}
	webtest.Poison(&s, text, keep)
	r := newRig(t, s, func(o *web.Options) {
		o.Version = text
		o.Config = func() web.ConfigView {
			c := web.ConfigView{Path: "x", Global: "x", Problems: []web.ConfigProblem{{Level: "x"}}, Runners: []web.RunnerConfig{{Runner: "aUt0sCale", Text: "x", Problems: []web.ConfigProblem{{Level: "x", At: "x"}}}}}
			webtest.Poison(&c, text, keep)
			return c
		}
	})
	r.Past(func(jobs []tranter.JobHistory, events []tranter.Event, report *cost.Report) {
		webtest.Poison(&jobs, text, keep)
		webtest.Poison(&events, text, keep)
		webtest.Poison(report, text, keep)
	})
	return r
}

// elements counts the elements and attributes of a page, and reports what could run.
func elements(t *testing.T, path, page string) (count map[string]int) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%s is no HTML: %v", path, err)
	}
	count = map[string]int{}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		count[n.Data]++
		for _, a := range n.Attr {
			value := strings.ToLower(strings.TrimSpace(a.Val))
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc", a.Key == "pwned":
				t.Errorf("%s has %s=%q", path, a.Key, a.Val)
			case (a.Key == "href" || a.Key == "src" || a.Key == "action") && (strings.HasPrefix(value, "javascript:") || strings.HasPrefix(value, "data:")):
				t.Errorf("%s has %s=%q", path, a.Key, a.Val)
			}
		}
		if n.Data == "script" && n.FirstChild != nil || n.Data == "style" {
			t.Errorf("%s has something inline in <%s>", path, n.Data)
		}
	}
	return count
}

func attacks() []string {
	return []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'><svg onload=alert(1)>`, `javascript:alert(1)`, `</title><script src=//evil></script>`,
		`</textarea></select></option><iframe srcdoc=x>`, `" pwned="1" autofocus onfocus="alert(1)`, "` pwned=1 ", "\x00<b>\x1b[31m", `--><b>`, `{{.}}`, `]]><b>`, "\u202e<b>", `&lt;b&gt;`, "a\r\nSet-Cookie: x=y",
		strings.Repeat("<b>", 30),
	}
}

func TestWhatOthersWriteIsOnlyEverText(t *testing.T) {
	calm := map[string]map[string]int{}
	for i, text := range []string{"calm", strings.Join(attacks(), " "), attacks()[3], attacks()[6]} {
		for _, everything := range []bool{false, true}[:2-i/2] { // two texts on every field are enough
			r := poisoned(t, text, everything)
			for _, path := range append(pagePaths(), "/pipelines", "/pipelines/1", "/jobs/aUt0sCale-99001/log") {
				id := path
				if everything {
					id += " all"
				}
				w := r.do("GET", path, browser, bearer(actToken))
				if w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
					t.Errorf("%s with %q answered %d %.200s", id, text, w.Code, w.Body)
				}
				count := elements(t, id, w.Body.String())
				if i == 0 {
					calm[id] = count
					continue
				}
				for _, name := range []string{"script", "img", "iframe", "b", "style", "textarea", "object", "link", "meta", "base", "title"} {
					if count[name] != calm[id][name] {
						t.Errorf("%s with %q has %d <%s>, want %d", id, text, count[name], name, calm[id][name])
					}
				}
				if w.Header().Get("Set-Cookie") != "" {
					t.Errorf("%s with %q sets a cookie", id, text)
				}
			}
		}
	}
}

func FuzzQueriesAreOnlyEverText(f *testing.F) {
	for _, text := range attacks() {
		f.Add(text)
	}
	f.Add("2026-11-01T00:00:00Z")
	var r *rig
	f.Fuzz(func(t *testing.T, text string) {
		if r == nil {
			r = newRig(t, webtest.Sample(time.Now()), nil)
		}
		for _, path := range []string{"/events", "/cost", "/jobs", "/machines", "/login"} {
			req := httptest.NewRequest(http.MethodGet, path, nil)
			v := req.URL.Query()
			for _, name := range []string{"q", "kind", "level", "runner", "machine", "job", "month", "by", "project", "from", "back", "state", "before"} {
				if path != "/cost" || name != "by" && name != "month" {
					v.Set(name, text)
				}
			}
			req.URL.RawQuery = v.Encode()
			w := httptest.NewRecorder()
			r.h.ServeHTTP(w, req)
			if w.Code >= 500 {
				t.Errorf("%s with %q answered %d", path, text, w.Code)
			}
			if count := elements(t, path, w.Body.String()); count["b"]+count["iframe"]+count["object"] > 0 || count["script"] > 8 {
				t.Errorf("%s with %q has %v", path, text, count)
			}
		}
	})
}
