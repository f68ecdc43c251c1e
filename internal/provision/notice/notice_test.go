package notice_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tranter-ci/tranter/internal/provision/notice"
)

// watch runs Watch in the background. The channel yields its notice, if there was one, and is closed when it has returned.
func watch(ctx context.Context, reach notice.Reach, o notice.Options) <-chan notice.Notice {
	notices := make(chan notice.Notice, 1)
	go func() {
		defer close(notices)
		notice.Watch(ctx, reach, o, func(n notice.Notice) { notices <- n })
	}()
	return notices
}

type announcement struct {
	cloud, path, text string
	reason            string
	at                time.Time
	within            time.Duration // of the announcement
}

func announcements() []announcement {
	at := time.Date(2026, 9, 18, 8, 22, 0, 0, time.UTC)
	return []announcement{
		{"aws", "/latest/meta-data/spot/instance-action", `{"action":"terminate","time":"2026-09-18T08:22:00Z"}`, "the cloud takes the spot machine back (terminate)", at, 10 * time.Second},
		{"aws", "/latest/meta-data/events/maintenance/scheduled", `[{"Code":"system-reboot","State":"completed","NotBefore":"1 Sep 2026 08:22:00 GMT"},{"Code":"instance-retirement","State":"active","NotBefore":"18 Sep 2026 08:22:00 GMT"}]`, "the cloud has planned an event for the machine (instance-retirement)", at, 70 * time.Second},
		{"gcp", "/computeMetadata/v1/instance/preempted", "TRUE", "the cloud takes the preemptible machine back", time.Time{}, time.Second},
		{"gcp", "/computeMetadata/v1/instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", "the cloud ends the machine to repair its host", time.Time{}, 55 * time.Second},
		{"azure", "/metadata/scheduledevents", `{"DocumentIncarnation":2,"Events":[{"EventType":"Preempt","Resources":["VM-6"],"NotBefore":"Thu, 17 Sep 2026 08:22:00 GMT"},{"EventType":"Preempt","ResourceType":"VirtualMachine","Resources":["VM-7"],"NotBefore":"Fri, 18 Sep 2026 08:22:00 GMT"}]}`, "the cloud has planned an event for the machine (Preempt)", at, 5 * time.Second},
		{"alibaba", "/latest/meta-data/instance/spot/termination-time", "2026-09-18T08:22:00Z", "the cloud takes the spot machine back", at, 30 * time.Second},
	}
}

// Nobody says which cloud it is; the notice comes after an hour, tokens have changed in between.
func TestEachCloudsNoticeIsFoundInTime(t *testing.T) {
	for _, c := range announcements() {
		t.Run(c.cloud+strings.ReplaceAll(c.path, "/", " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newMetadata(c.cloud)
				notices := watch(t.Context(), serve(t, server).reach, notice.Options{})
				time.Sleep(time.Hour)
				server.change(func() { server.token++ })
				time.Sleep(time.Minute)
				select {
				case n, ok := <-notices:
					t.Fatalf("before there is anything: %+v %t", n, ok)
				default:
				}
				began := time.Now()
				server.set(c.path, c.text)
				n := <-notices
				if took := time.Since(began); n.Reason != c.reason || !n.At.Equal(c.at) || took > c.within {
					t.Errorf("after %s: %+v\nwant %s %s within %s", took, n, c.reason, c.at, c.within)
				}
				if _, more := <-notices; more {
					t.Error("told twice")
				}
			})
		})
	}
}

// Over a real network, as through a connection to a machine.
func TestANoticeOverTCP(t *testing.T) {
	t.Parallel()
	for _, c := range announcements() {
		t.Run(c.cloud+strings.ReplaceAll(c.path, "/", " "), func(t *testing.T) {
			t.Parallel()
			server := newMetadata(c.cloud)
			server.set(c.path, c.text)
			web := httptest.NewServer(server)
			defer web.Close()
			var d net.Dialer
			o := notice.Options{Clouds: []string{"openstack", c.cloud}, Every: time.Millisecond, Address: web.Listener.Addr().String()}
			if n := <-watch(t.Context(), d.DialContext, o); n.Reason != c.reason || !n.At.Equal(c.at) {
				t.Errorf("%+v", n)
			}
		})
	}
}

func TestTheServerIsAskedGently(t *testing.T) {
	for cloud, most := range map[string]int{"aws": 3600/10 + 60 + 10, "gcp": 2*3600/50 + 10, "azure": 3600/5 + 10, "alibaba": 3600/30 + 10} {
		t.Run(cloud, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newMetadata(cloud)
				w := serve(t, server)
				ctx, stop := context.WithCancel(t.Context())
				notices := watch(ctx, w.reach, notice.Options{})
				time.Sleep(time.Hour)
				if n := server.count(""); n > most || n < 100 {
					t.Errorf("%d questions in an hour, expected at most %d", n, most)
				}
				if n := w.made.Load(); n > 10 {
					t.Errorf("%d connections in an hour", n)
				}
				stop()
				if n, ok := <-notices; ok {
					t.Errorf("after the end: %+v", n)
				}
			})
		})
	}
}

// Only repairs of its host matter to a machine that is paid in full: it is asked for less often.
func TestAMachineThatIsNoSpotMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newMetadata("aws")
		server.set("/latest/meta-data/instance-life-cycle", "on-demand")
		notices := watch(t.Context(), serve(t, server).reach, notice.Options{})
		time.Sleep(time.Hour)
		if spot, all := server.count("/latest/meta-data/spot"), server.count(""); spot != 0 || all > 80 {
			t.Errorf("%d questions, %d of them for spot notices", all, spot)
		}
		server.set("/latest/meta-data/events/maintenance/scheduled", `[{"Code":"instance-stop","State":"active","NotBefore":"18 Sep 2026 08:22:00 GMT"}]`)
		if n := <-notices; !strings.Contains(n.Reason, "instance-stop") {
			t.Errorf("%+v", n)
		}
	})
}

// A server that does not hold answers back is not asked without a pause.
func TestAServerThatAnswersAtOnceIsNotAskedWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newMetadata("gcp")
		hasty := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.URL.RawQuery = ""
			server.ServeHTTP(w, r)
		})
		watch(t.Context(), serve(t, hasty).reach, notice.Options{})
		time.Sleep(time.Minute)
		if n := server.count(""); n > 2*60/5+10 {
			t.Errorf("%d questions in a minute", n)
		}
	})
}

func TestAMachineOnNoCloud(t *testing.T) {
	refused := &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "No route to host"}
	none := func(err error) notice.Reach {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	swallowed := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("dial: %w", ctx.Err())
	}
	for name, c := range map[string]struct {
		reach  func(t *testing.T) notice.Reach
		clouds []string
		within time.Duration
	}{
		"nothing listens":              {func(*testing.T) notice.Reach { return none(fmt.Errorf("reach: %w", refused)) }, nil, time.Minute},
		"refused":                      {func(*testing.T) notice.Reach { return none(syscall.ECONNREFUSED) }, nil, time.Minute},
		"packets are swallowed":        {func(*testing.T) notice.Reach { return swallowed }, nil, time.Minute},
		"a cloud without notices":      {func(t *testing.T) notice.Reach { return linkLocal(serve(t, openstack()).reach) }, nil, time.Minute},
		"a page for everything":        {func(t *testing.T) notice.Reach { return serve(t, page()).reach }, nil, time.Minute},
		"another than was named":       {func(t *testing.T) notice.Reach { return serve(t, newMetadata("gcp")).reach }, []string{"aws"}, time.Minute},
		"only clouds that are unknown": {func(t *testing.T) notice.Reach { return serve(t, newMetadata("gcp")).reach }, []string{"openstack"}, time.Second},
		"never reached":                {func(*testing.T) notice.Reach { return none(errLink) }, nil, 20 * time.Minute},
		"no HTTP":                      {func(*testing.T) notice.Reach { return garbage }, nil, 20 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				n, found := <-watch(t.Context(), c.reach(t), notice.Options{Clouds: c.clouds})
				if took := time.Since(began); found || took > c.within {
					t.Errorf("after %s: %+v %t", took, n, found)
				}
			})
		})
	}
}

// linkLocal leads to one address only, that of most clouds.
func linkLocal(reach notice.Reach) notice.Reach {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "169.254.169.254:80" {
			return nil, &ssh.OpenChannelError{Reason: ssh.ConnectionFailed}
		}
		return reach(ctx, network, address)
	}
}

// openstack serves the same paths as AWS does, without tokens.
func openstack() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.URL.Path == "/latest/meta-data/instance-id":
			fmt.Fprint(w, "i-000042d1")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

// page is a captive portal: it answers everything, with the same.
func page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Log in</html>") })
}

// garbage reaches something that speaks, but not HTTP.
func garbage(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		_, _ = far.Read(make([]byte, 4096))
		_, _ = io.WriteString(far, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
	}()
	return near, nil
}

func TestFailuresForAWhileAreOutlived(t *testing.T) {
	for _, c := range announcements() {
		for name, fault := range map[string]func(*wire, *metadata, bool){
			"no connection": func(w *wire, _ *metadata, on bool) {
				w.fail(map[bool]error{true: errLink}[on])
			},
			"refused": func(w *wire, _ *metadata, on bool) {
				w.fail(map[bool]error{true: &ssh.OpenChannelError{Reason: ssh.Prohibited}}[on])
			},
			"an error of the server": func(_ *wire, m *metadata, on bool) {
				m.change(func() { m.broken = map[bool]int{true: http.StatusServiceUnavailable}[on] })
			},
		} {
			t.Run(c.cloud+" "+name+strings.ReplaceAll(c.path, "/", " "), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := newMetadata(c.cloud)
					w := serve(t, server)
					if name == "no connection" { // from the beginning
						fault(w, server, true)
					}
					notices := watch(t.Context(), w.reach, notice.Options{})
					time.Sleep(2 * time.Minute)
					fault(w, server, false)
					time.Sleep(5 * time.Minute)
					fault(w, server, true)
					time.Sleep(time.Hour)
					fault(w, server, false)
					server.set(c.path, c.text)
					began := time.Now()
					if n := <-notices; n.Reason != c.reason || time.Since(began) > 2*time.Minute {
						t.Errorf("after %s: %+v", time.Since(began), n)
					}
				})
			})
		}
	}
}

func TestAnswersThatAreNoNotices(t *testing.T) {
	for _, c := range []struct{ name, cloud, path, text string }{
		{"an action without a name", "aws", "/latest/meta-data/spot/instance-action", `{"time":"2026-09-18T08:22:00Z"}`},
		{"no JSON", "aws", "/latest/meta-data/spot/instance-action", "terminate"},
		{"called off", "aws", "/latest/meta-data/events/maintenance/scheduled", `[{"Code":"system-reboot","State":"canceled"}]`},
		{"an unknown event", "aws", "/latest/meta-data/events/maintenance/scheduled", `[{"Code":"birthday","State":"active"}]`},
		{"moved while it runs", "gcp", "/computeMetadata/v1/instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE"},
		{"another machine", "azure", "/metadata/scheduledevents", `{"Events":[{"EventType":"Preempt","Resources":["vm-6","vm-77"]}]}`},
		{"a pause of seconds", "azure", "/metadata/scheduledevents", `{"Events":[{"EventType":"Freeze","Resources":["vm-7"]}]}`},
		{"no time", "alibaba", "/latest/meta-data/instance/spot/termination-time", "soon"},
		{"too long", "alibaba", "/latest/meta-data/instance/spot/termination-time", "2026-09-18T08:22:00Z" + strings.Repeat(" ", 1<<20)},
		{"too long", "azure", "/metadata/scheduledevents", `{"Events":[` + strings.Repeat(" ", 1<<20) + `{"EventType":"Preempt","Resources":["vm-7"]}]}`},
	} {
		t.Run(c.cloud+" "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newMetadata(c.cloud)
				server.set(c.path, c.text)
				ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
				defer stop()
				if n, found := <-watch(ctx, serve(t, server).reach, notice.Options{}); found || ctx.Err() == nil {
					t.Errorf("%+v %t %v", n, found, ctx.Err())
				}
				if n := server.count(c.path); n < 5 {
					t.Errorf("given up after %d questions", n)
				}
			})
		})
	}
}

// A server that sends its clients elsewhere, or never stops sending, is no cloud.
func TestAServerThatMisbehaves(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/latest/api/token", http.StatusTemporaryRedirect)
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
		"long header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 64<<10))
			fmt.Fprint(w, "token")
		},
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				n, found := <-watch(t.Context(), serve(t, handler).reach, notice.Options{})
				if took := time.Since(began); found || took > time.Hour {
					t.Errorf("after %s: %+v %t", took, n, found)
				}
			})
		})
	}
}
