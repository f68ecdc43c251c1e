package docker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// greeter is a service that says hello to whom it is told.
func greeter(t *testing.T, alias, whom string) tranter.Image {
	t.Helper()
	return tranter.Image{Name: enginetest.Image(t, "ports"), Alias: alias, Variables: []tranter.Variable{{Key: "GREETING", Value: whom}}}
}

func TestServicesAreReached(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]bool{"on the default bridge": false, "in a network of the job's own": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.set("WHOM", "world")
			r.job.Services = []tranter.Image{
				greeter(t, "web, www", "the $WHOM"),
				{
					Name: enginetest.Image(t, "noports"), Alias: "db", Entrypoint: []string{"/bin/sh", "-c"}, Command: []string{"GREETING=database PORT=9000 exec /serve"},
					Variables: []tranter.Variable{{Key: "HEALTHCHECK_TCP_PORT", Value: "9000"}},
				},
			}
			if own {
				r.set("FF_NETWORK_PER_BUILD", "true")
				r.job.Services = append(r.job.Services, tranter.Image{ // what it gets from the first, it gives to the job
					Name: enginetest.Image(t, "busybox"), Alias: "relay", Variables: []tranter.Variable{{Key: "HEALTHCHECK_TCP_PORT", Value: "8080"}},
					Command: []string{"sh", "-c", "until wget -q -O /tmp/index.html http://web:8080/; do sleep 0.1; done; exec httpd -f -p 8080 -h /tmp"},
				})
			}
			r.open()
			hasNot(t, r.log.String(), "probably didn't start", "WARNING")
			has(t, r.log.String(), "Starting service ", "Waiting for services to be up and running (timeout 30 seconds)...")
			r.sources("exec 3<>/dev/tcp/web/8080", "exec 4<>/dev/tcp/db/9000")
			commands := []string{`for name in web www 127.0.0.1-tranter-test-ports; do echo "$name: $(wget -q -O - http://$name:8080/)"; done`, `echo "db: $(wget -q -O - http://db:9000/)"`}
			wants := []string{"\nweb: hello the world\n", "\nwww: hello the world\n", "\n127.0.0.1-tranter-test-ports: hello the world\n", "\ndb: hello database\n"}
			if own {
				commands, wants = append(commands, `echo "relay: $(wget -q -O - http://relay:8080/)"`), append(wants, "\nrelay: hello the world\n")
			}
			has(t, r.script(commands...), wants...)
		})
	}
}

// A service that does not come up is told of, with what it has printed; the job runs.
func TestServicesThatDoNotComeUp(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		image string
		limit time.Duration
		wants []string
	}{
		"exits at once":        {"service-broken", 30 * time.Second, []string{"Health check error:\nthe service has ended with exit code 7", "the database is corrupt"}},
		"listens nowhere":      {"service-deaf", time.Second, []string{"Health check error:\n", "started, but not listening"}},
		"has no ports":         {"noports", time.Second, []string{"has no exposed ports", "EXPOSE", "HEALTHCHECK_TCP_PORT"}},
		"has several, and one": {"service-several", 30 * time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.settings.WaitForServicesTimeout = tt.limit
			service := enginetest.Image(t, tt.image)
			r.job.Services = []tranter.Image{{Name: service, Alias: "service"}}
			began := time.Now()
			has(t, r.all("echo went on"), "\nwent on\n")
			if tt.limit > 20*time.Second && time.Since(began) > tt.limit {
				t.Errorf("it took %v", time.Since(began))
			}
			if tt.wants == nil {
				hasNot(t, r.log.String(), "WARNING")
				return
			}
			has(t, r.log.String(), append(tt.wants, "*** WARNING: Service "+service+" probably didn't start properly.", "Service container logs:\n")...)
		})
	}
}

func TestServiceThatIsSlow(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limit        time.Duration
		warned, asks bool
	}{
		"and waited for":              {20 * time.Second, false, true},
		"and not waited for for long": {time.Second, true, true},
		"and not waited for":          {-time.Second, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.settings.WaitForServicesTimeout = tt.limit
			r.job.Services = []tranter.Image{{Name: enginetest.Image(t, "service-slow"), Alias: "slow"}}
			r.open()
			log := r.log.String()
			if got := strings.Contains(log, "probably didn't start properly"); got != tt.warned {
				t.Errorf("warned: %v\n%s", got, log)
			}
			if got := strings.Contains(log, "Waiting for services"); got != tt.asks {
				t.Errorf("waited: %v\n%s", got, log)
			}
			r.sources()
			has(t, r.script(`until wget -q -O - http://slow:8080/ 2>/dev/null; do sleep 0.1; done`), "\nhello nobody\n")
		})
	}
}

// What services print is in the job's log if the job asks for it and the runner allows it.
func TestOutputOfServices(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ asked, disabled, shown bool }{
		"asked for": {true, false, true}, "not asked for": {false, false, false}, "asked for in vain": {true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.options.DebugDisabled = tt.disabled
			if tt.asked {
				r.set("CI_DEBUG_SERVICES", "true")
			}
			r.job.Services = []tranter.Image{
				greeter(t, "web", "x"),
				{Name: enginetest.Image(t, "busybox"), Alias: "late", Command: []string{"sh", "-c", "sleep 2; echo one; echo two >&2; echo three; sleep 100"}},
			}
			r.settings.WaitForServicesTimeout = -time.Second
			r.open()
			log := r.sources()
			log += r.script("sleep 3", "echo end of script")
			for _, line := range []string{"serving on 8080", "one", "two", "three"} {
				found := slices.ContainsFunc(strings.Split(log, "\n"), func(l string) bool {
					return strings.Contains(l, "[service:") && strings.Contains(l, "Z "+line)
				})
				if found != tt.shown {
					t.Errorf("%q is shown: %v\n%s\n%s", line, found, log, r.log)
				}
			}
		})
	}
}

// A service gets what everybody may see, and its own variables; nothing that the job keeps to itself.
func TestVariablesOfServices(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.variables = append(r.variables,
		tranter.Variable{Key: "OPEN", Value: "for all", Public: true}, tranter.Variable{Key: "HIDDEN", Value: "S3cret"},
		tranter.Variable{Key: "CI_OWN", Value: "runner's", Internal: true})
	service := greeter(t, "web", "$OPEN")
	service.Variables = append(service.Variables, tranter.Variable{Key: "RAW", Value: "$OPEN", Raw: true})
	r.job.Services = []tranter.Image{service}
	r.open()
	env := r.service(0).Config.Env
	for _, want := range []string{"OPEN=for all", "CI_OWN=runner's", "GREETING=for all", "RAW=$OPEN"} {
		if !slices.Contains(env, want) {
			t.Errorf("%q is not in %q", want, env)
		}
	}
	hasNot(t, strings.Join(env, "\n"), "S3cret", "HIDDEN")
}

// A name that a job gives twice is the first service's.
func TestServicesWithTheSameNames(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.job.Services = []tranter.Image{greeter(t, "web", "first"), greeter(t, "web,other", "second"), greeter(t, "", "third")}
	log := r.all(`echo "web: $(wget -q -O - http://web:8080/)"`, `echo "other: $(wget -q -O - http://other:8080/)"`)
	has(t, log, "\nweb: hello first\n", "\nother: hello second\n")
	has(t, r.log.String(), "the alias web is taken by service", "is not started: all of its names are taken")
	equal(t, "services", len(r.ref().Services), 2)
}
