package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// waiting is a server with projects in which jobs wait: each has one with the number of the project. Those in bad are answered
// with a status.
type waiting struct {
	mu  sync.Mutex
	bad map[string]int // by a part of the path
}

func (s *waiting) set(part string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad[part] = status
}

func (s *waiting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/api/v4/")
	s.mu.Lock()
	defer s.mu.Unlock()
	for part, status := range s.bad {
		if status != 0 && strings.Contains(path, part) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"message":"no"}`)
			return
		}
	}
	var id int
	switch name, rest, _ := strings.Cut(path, "/"); {
	case name == "runners":
		_, _ = io.WriteString(w, `{"id":7,"runner_type":"group_type","tag_list":["batch"],"run_untagged":true,"status":"online"}`)
	case strings.HasSuffix(rest, "/jobs"):
		_, _ = fmt.Sscanf(rest, "%d/jobs", &id)
		_, _ = fmt.Fprintf(w, `[{"id":%d,"name":"test","status":"pending","tag_list":["batch"],"pipeline":{"id":1,"project_id":%d},"user":{"username":"alice"}}]`, id, id)
	default:
		_, _ = fmt.Sscanf(rest, "g%%2Fp%d", &id)
		place := fmt.Sprintf("g/p%d", id)
		if id == 4 {
			place = "elsewhere/p4"
		}
		_, _ = fmt.Fprintf(w, `{"id":%d,"path_with_namespace":%q}`, id, place)
	}
}

func watchOf(t *testing.T, s *waiting, verify func(context.Context) (gitlab.Registered, error)) (*demandWatch, *logged) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	out := &logged{}
	log := slog.New(slog.NewTextHandler(out, nil))
	wanted := map[string]demanded{
		"a": {class: "a", name: "a", url: server.URL, verify: verify, pending: config.BatchPending{
			Token: "glpat-x", Projects: []string{"g/p1", "g/p2", "g/p3", "g/p4"}, Interval: time.Second,
		}},
		"b": {
			class: "b", name: "b", url: server.URL, pending: config.BatchPending{Token: "glpat-x", Projects: []string{"g/p1"}, Interval: time.Second},
			verify: func(context.Context) (gitlab.Registered, error) { return gitlab.Registered{}, tranter.ErrForbidden },
		},
	}
	ws := newDemandWatches(wanted, func(string) *cluster.Cluster { return nil }, log)
	if len(ws) != 1 {
		t.Fatalf("there are %d watches for one server and token", len(ws))
	}
	return ws[0], out
}

type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func registered(context.Context) (gitlab.Registered, error) { return gitlab.Registered{ID: 7}, nil }

func (w *demandWatch) found() string {
	var all []string
	for id := range int64(10) {
		for _, j := range w.last[id] {
			all = append(all, fmt.Sprint(j.ID))
		}
	}
	return strings.Join(all, " ")
}

func TestAProjectThatIsGoneKeepsNoOtherOneFromItsBatchJobs(t *testing.T) {
	t.Parallel()
	s := &waiting{bad: map[string]int{"p2": http.StatusNotFound}}
	w, log := watchOf(t, s, registered)
	for range 3 {
		if err := w.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if w.found() != "1 3 4" {
		t.Errorf("jobs %q were found", w.found())
	}
	for _, want := range []string{"g/p2", "elsewhere/p4", "runner b"} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("%q is not in the log once:\n%s", want, log)
		}
	}
	s.set("/3/jobs", http.StatusForbidden) // the token's owner is no member any more
	if err := w.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.found() != "1 4" {
		t.Errorf("jobs %q were found after a project was lost", w.found())
	}
	s.set("p2", 0)
	s.set("/3/jobs", 0)
	w.looked = time.Time{}
	if err := w.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.found() != "1 2 3 4" || !strings.Contains(log.String(), "can be looked up again") {
		t.Errorf("jobs %q were found once all is well:\n%s", w.found(), log)
	}
}

func TestWhileTheServerIsAwayWhatIsKnownStays(t *testing.T) {
	t.Parallel()
	s := &waiting{bad: map[string]int{}}
	away := false
	w, _ := watchOf(t, s, func(ctx context.Context) (gitlab.Registered, error) {
		if away {
			return gitlab.Registered{}, errors.New("no route to host")
		}
		return registered(ctx)
	})
	if err := w.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.set("/2/jobs", http.StatusTeapot)
	if err := w.look(t.Context()); err != nil || w.found() != "1 2 3 4" {
		t.Errorf("with one project that can't answer, jobs %q were found, %v", w.found(), err)
	}
	away, w.looked = true, time.Time{}
	s.set("projects", http.StatusTeapot)
	if err := w.look(t.Context()); err == nil || w.found() != "1 2 3 4" || len(w.known.projects) != 4 {
		t.Errorf("with a server that is away, jobs %q were found in %v, %v", w.found(), w.known.projects, err)
	}
}

func TestATokenThatMayReadNothingIsAnErrorThatSaysSo(t *testing.T) {
	t.Parallel()
	s := &waiting{bad: map[string]int{"projects": http.StatusForbidden}}
	w, _ := watchOf(t, s, registered)
	if err := w.look(t.Context()); !errors.Is(err, tranter.ErrForbidden) {
		t.Errorf("the error is %v", err)
	}
}

func TestRunnersAreToldOfTheirJobsByPriority(t *testing.T) {
	t.Parallel()
	w := demandWatch{runners: []demanded{{class: "none", priority: -1}, {class: "low", priority: 1}, {class: "high", priority: 10}, {class: "low too", priority: 1}}}
	if got := w.urgent(); !slices.Equal(got, []string{"high", "low", "low too", "none"}) {
		t.Errorf("the order is %q", got)
	}
}

// A batch job is made for the runner that GitLab would give the job to, and for one only.
func TestTheTightestRunnerGetsAJob(t *testing.T) {
	t.Parallel()
	w := demandWatch{
		runners: []demanded{{class: "c", priority: -1}, {class: "b", priority: 1}, {class: "a", priority: -1}, {class: "d", priority: -1}, {class: "e", priority: 0}},
		known: demandKnown{
			serves: map[int64][]int{1: {0, 1, 2, 3, 4}},
			actual: map[string]gitlab.ManagedRunner{
				"c": {Tags: []string{"x", "y"}}, "b": {Tags: []string{"x", "z"}}, "a": {Tags: []string{"x", "y", "z"}, RunUntagged: true},
				"d": {Tags: []string{"x"}, Paused: true}, "e": {Tags: []string{"x", "v"}},
			},
		},
	}
	for tags, want := range map[string]string{"x": "b", "y": "c", "x z": "b", "y z": "a", "v": "e", "": "a", "w": "", "x w": ""} {
		got := ""
		if d := w.match(1, strings.Fields(tags)); d != nil {
			got = d.class
		}
		if got != want {
			t.Errorf("tags %q: runner %q, not %q", tags, got, want)
		}
	}
	if d := w.match(2, []string{"x"}); d != nil {
		t.Errorf("a project that no runner serves: runner %q", d.class)
	}
}
