package conformance

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// An engine goes away in every way that it can, while a job runs: the job goes on, or ends with the reason, and what it
// had is removed.
func TestAnEngineThatIsAway(t *testing.T) {
	t.Parallel()
	r, e := privateRig(t, "", "", "reconnect_timeout = 40\nwait_for_services_timeout = 6\n")
	r.start()
	waiting := func(name string) tranter.Job {
		job := script("echo begin", "touch "+r.path(name), "while [ ! -e "+r.path(name+"-go")+" ]; do sleep 0.05; done", "echo end")
		job.Features.FailureReasons = known
		return job
	}
	goesOn := func(t *testing.T, name string, disturb func()) {
		t.Helper()
		id := r.Enqueue(waiting(name))
		r.eventuallyIn(time.Minute, "the job runs", func() bool { return fileExists(r.path(name)) })
		disturb()
		touch(t, r.path(name+"-go"))
		v := r.waitLong(id, time.Minute)
		log := plain(r.Log(id))
		if v.Status != coordinator.Success || v.LogDamaged || strings.Count(log, "\nbegin\n") != 1 || strings.Count(log, "\nend\n") != 1 {
			t.Errorf("%s %s, damaged %t\n%s", v.Status, v.Reason, v.LogDamaged, log)
		}
	}
	t.Run("down when the manager starts", func(t *testing.T) {
		goesOn(t, "down", func() {
			e.Stop(t)
			r.kill()
			r.start()
			r.eventually("the manager misses the engine", func() bool { return strings.Contains(r.output.String(), "could not be removed") })
			e.Start(t)
		})
	})
	t.Run("killed", func(t *testing.T) {
		goesOn(t, "killed", func() {
			e.Kill(t)
			e.Start(t)
		})
	})
	t.Run("killed, and the script ends meanwhile", func(t *testing.T) {
		goesOn(t, "meanwhile", func() {
			e.Kill(t)
			touch(t, r.path("meanwhile-go"))
			r.pause(time.Second) // the script ends, and nobody can be told
			e.Start(t)
		})
	})
	t.Run("frozen", func(t *testing.T) {
		goesOn(t, "frozen", func() {
			e.Freeze(t)
			r.pause(2 * time.Second) // of silence
			e.Thaw(t)
		})
	})
	t.Run("the manager is killed while the job is prepared", func(t *testing.T) {
		job := waiting("prepared")
		job.Services = []tranter.Image{{Name: e.Image(t, "service-deaf"), Alias: "deaf"}}
		id := r.Enqueue(job)
		r.eventuallyIn(time.Minute, "the service is waited for", func() bool { return strings.Contains(r.Log(id), "Waiting for services") })
		r.kill()
		r.start()
		r.eventuallyIn(time.Minute, "the job runs", func() bool { return fileExists(r.path("prepared")) })
		touch(t, r.path("prepared-go"))
		if v := r.waitLong(id, time.Minute); v.Status != coordinator.Success || strings.Count(r.Log(id), "Waiting for services") != 1 {
			t.Errorf("%s %s\n%s", v.Status, v.Reason, plain(r.Log(id)))
		}
		r.eventuallyIn(75*time.Second, "the first attempt's containers are gone", func() bool { return leftovers(t, e) == "" })
	})
	r.jobs = strings.Replace(r.jobs, "reconnect_timeout = 40", "reconnect_timeout = 2", 1)
	r.configure("", "")
	r.signal(syscall.SIGHUP)
	r.eventually("the new configuration is read", func() bool { return strings.Contains(r.output.String(), "Configuration loaded") })
	for _, killed := range []bool{false, true} {
		t.Run(map[bool]string{false: "for good", true: "for good, and so does the manager"}[killed], func(t *testing.T) {
			name := map[bool]string{false: "gone", true: "both"}[killed]
			id := r.Enqueue(waiting(name))
			r.eventuallyIn(time.Minute, "the job runs", func() bool { return fileExists(r.path(name)) })
			e.Kill(t)
			v := r.waitLong(id, 45*time.Second)
			if log := plain(r.Log(id)); v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(log, "the engine has not answered for 2s") {
				t.Errorf("%s %s\n%s", v.Status, v.Reason, log)
			}
			if killed {
				r.kill()
			}
			e.Start(t)
			if killed {
				r.start()
			}
			r.eventuallyIn(75*time.Second, "what it had is removed", func() bool { return leftovers(t, e) == "" })
		})
	}
}
