package web_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
	"github.com/tranter-ci/tranter/internal/web/webtest"
)

// watch opens a live stream and returns the topics as they come; the channel is closed at its end.
func watch(ctx context.Context, t *testing.T, url string) <-chan string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/live?page=/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req) //nolint:bodyclose // who reads it closes it
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("the stream answered %d %s", res.StatusCode, got)
	}
	topics := make(chan string, 100)
	go func() {
		defer close(topics)
		defer res.Body.Close()
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if topic, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				topics <- topic
			}
		}
	}()
	return topics
}

// expect waits for a topic, and returns how long that took.
func expect(t *testing.T, topics <-chan string, want string) time.Duration {
	t.Helper()
	start := time.Now()
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	for {
		select {
		case topic, ok := <-topics:
			if !ok {
				t.Fatalf("the stream has ended before %s", want)
			}
			if topic == want {
				return time.Since(start)
			}
		case <-late.C:
			t.Fatalf("%s never came", want)
		}
	}
}

// toldLimit is what a busy machine may make of the second that is promised.
const toldLimit = 3 * time.Second

func TestAChangeIsToldWithinASecond(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	server := httptest.NewServer(r.h)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	topics := watch(ctx, t, server.URL)
	expect(t, topics, "hello")
	for range 2 { // what changes without an event, right after a look and at any time
		r.Change(func(s *view.Snapshot) { s.Machines = append([]view.Machine{}, s.Machines[1:]...) })
		if took := expect(t, topics, "machines"); took > toldLimit {
			t.Errorf("a machine that went was told after %s", took)
		}
	}
	r.Change(func(s *view.Snapshot) { s.Jobs = s.Jobs[:2] })
	r.hub.Publish(tranter.Event{Kind: tranter.JobEnded, Job: "x"})
	if took := expect(t, topics, "events"); took > toldLimit {
		t.Errorf("an event was told after %s", took)
	}
	if took := expect(t, topics, "events"); took > 2*toldLimit {
		t.Errorf("it was not told again, for a store that is slower: %s", took)
	}
	body := r.do("GET", "/").Body.String()
	if !strings.Contains(body, "2 jobs</span>") {
		t.Error("the page that was told of shows what was before")
	}
}

func TestManyViewersCostAsMuchAsOne(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	server := httptest.NewServer(r.h)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const viewers = 200
	streams := make([]<-chan string, viewers)
	for i := range streams {
		streams[i] = watch(ctx, t, server.URL)
		expect(t, streams[i], "hello")
	}
	res, err := http.Get(server.URL + "/live")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more viewer got %d", res.StatusCode)
	}
	before, start := r.Looks(), time.Now()
	r.hub.Publish(tranter.Event{Kind: tranter.JobTaken})
	var all sync.WaitGroup
	for _, s := range streams {
		all.Go(func() {
			expect(t, s, "jobs")
			if w := r.do("GET", "/?fragment=1"); w.Code != 200 {
				t.Errorf("the page answered %d", w.Code)
			}
		})
	}
	all.Wait()
	if looks, most := r.Looks()-before, 2+int(time.Since(start)/(800*time.Millisecond)); looks > most {
		t.Errorf("%d viewers made %d looks in %s, want %d at most", viewers, looks, time.Since(start), most)
	}
}

func TestStreamsEndWithTheirViewersAndTheServer(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t, webtest.Sample(time.Now()), nil)
	listener, err := r.server.Open(t.Context(), "127.0.0.1:0", noTLS())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- listener.Serve(ctx) }()
	goes, leave := context.WithCancel(t.Context())
	left, stays := watch(goes, t, listener.URL()), watch(t.Context(), t, listener.URL())
	expect(t, left, "hello")
	expect(t, stays, "hello")
	leave()
	for range left {
	}
	r.hub.Publish(tranter.Event{Kind: tranter.JobTaken})
	expect(t, stays, "jobs")
	start := time.Now()
	stop()
	for range stays {
	}
	if err := <-served; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the server took %s to end", took)
	}
	http.DefaultClient.CloseIdleConnections()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if now := runtime.NumGoroutine(); now > before {
		stacks := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before:\n%s", now, before, stacks[:runtime.Stack(stacks, true)])
	}
}

// deadlines notes the last deadline for writing that was set.
type deadlines struct {
	*httptest.ResponseRecorder

	mu   sync.Mutex
	last time.Time
	set  int
}

// SetWriteDeadline implements what http.ResponseController looks for.
func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = at
	d.set++
	return nil
}

// TestALiveStreamHasNoDeadlineWhileItIsQuiet holds since HTTP/2, which TLS brings, ends a stream at its deadline whether something is
// written or not.
func TestALiveStreamHasNoDeadlineWhileItIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, webtest.Sample(time.Now()), nil)
		ctx, stop := context.WithCancel(t.Context())
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/live", nil))
		}()
		synctest.Wait()
		w.mu.Lock()
		if w.set == 0 || !w.last.IsZero() {
			t.Errorf("deadlines were set %d times, the last one is %v", w.set, w.last)
		}
		w.mu.Unlock()
		stop()
		<-done
	})
}
