package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// outage is one way in which GitLab is away.
type outage struct {
	faults []coordinatortest.Fault // in turn, the last one until the end; none: connections are refused
	partly bool                    // some calls get through
	wish   time.Duration           // how much longer GitLab has asked to be left alone at most
}

// TestOutage takes GitLab away while one job runs, one ends and one is offered, kills the manager in the middle, and
// brings GitLab back.
func TestOutage(t *testing.T) {
	t.Parallel()
	page := func(code int, headers ...string) coordinatortest.Fault {
		h := http.Header{"Content-Type": {"text/html"}}
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return coordinatortest.Fault{Status: code, Header: h, Body: "<html>no</html>"}
	}
	type faults = []coordinatortest.Fault
	for name, o := range map[string]outage{
		"refuses":         {},
		"hangs":           {faults: faults{{Hold: t.Context().Done()}}},
		"closes":          {faults: faults{{Drop: true}, {Drop: true, Reset: true}}},
		"resets midway":   {faults: faults{{Endpoint: coordinatortest.Trace, Cut: true, Reset: true}, {Endpoint: coordinatortest.Trace, Lose: true, Reset: true}}, partly: true},
		"half an answer":  {faults: faults{{Endpoint: coordinatortest.Update, Truncate: true, Reset: true}, {Endpoint: coordinatortest.Request, Truncate: true}}, partly: true},
		"429 for seconds": {faults: faults{page(429, "Retry-After", "2")}, wish: 2 * time.Second},
		"429 until then":  {faults: faults{page(429, "Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), "Date", time.Now().Add(57*time.Second).UTC().Format(http.TimeFormat))}, wish: 3 * time.Second},
		"pages":           {faults: faults{page(500), page(502), page(503), page(504), page(200)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", "")
			r.start()
			running := r.Enqueue(script("touch "+r.path("running"), "for i in $(seq 1 250); do echo line $i; sleep 0.01; done"))
			ending := r.Enqueue(after(script("touch "+r.path("ending"), "while [ ! -e "+r.path("away")+" ]; do sleep 0.05; done", "echo ended", "exit 9"), "echo tidied", "touch "+r.path("ended")))
			r.file(r.path("running"))
			r.file(r.path("ending"))

			if len(o.faults) == 0 {
				r.Refuse()
			}
			for i, f := range o.faults {
				if f.Times = 3; i == len(o.faults)-1 {
					f.Times = -1
				}
				r.Inject(f)
			}
			touch(t, r.path("away"))
			r.file(r.path("ended"))
			if !o.partly {
				r.eventually("the job that has ended gives its place back while its report waits", func() bool {
					out, _ := r.tool("status", "--state-dir", r.path("state"))
					return strings.Contains(out, "reporting")
				})
			}
			r.kill()
			r.start()
			r.pause(2 * time.Second)
			if !o.partly && r.Job(ending).Status != coordinator.Running {
				t.Fatal("GitLab was not away")
			}

			if len(o.faults) == 0 {
				r.Admit()
			}
			r.Clear()
			back := time.Now()
			fresh := r.Enqueue(script("echo fresh"))
			v := r.Wait(fresh)
			// One check interval, which is a second here; the rest is for a busy machine.
			if limit := 2500*time.Millisecond + o.wish; v.Status != coordinator.Success || v.Times.Started.Sub(back) > limit {
				t.Errorf("a new job: %s, begun %v after GitLab was back, want %v at most", v.Status, v.Times.Started.Sub(back), limit)
			}
			v = r.Wait(ending)
			log := plain(r.Log(ending))
			if v.Status != coordinator.Failed || v.ExitCode != 9 || v.LogDamaged || strings.Count(log, "\nended\n") != 1 || strings.Count(log, "\ntidied\n") != 1 {
				t.Errorf("the job that ended: %s %d, damaged %v\n%s", v.Status, v.ExitCode, v.LogDamaged, log)
			}
			var want strings.Builder
			for i := range 250 {
				fmt.Fprintf(&want, "line %d\n", i+1)
			}
			v = r.Wait(running)
			log = plain(r.Log(running))
			if v.Status != coordinator.Success || v.LogDamaged || strings.Count(log, want.String()) != 1 || strings.Count(log, "Running with") != 1 {
				t.Errorf("the job that ran: %s, damaged %v\n%s", v.Status, v.LogDamaged, log)
			}
		})
	}
}
