package conformance

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// privateRig is a rig on an engine of its own, which the test may end and start.
func privateRig(t *testing.T, global, section, docker string) (*rig, *enginetest.Private) {
	t.Helper()
	e := enginetest.Engine(t, enginetest.Options{})
	r := containerRig(t, engineSite{host: e.Host(), address: e.Gateway, image: e.Image}, global, section, docker)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the engine said:\n%s", e.Log())
		}
	})
	return r, e
}

// containerSubjects are one job of each kind that lasts about as long as a round of the campaign.
func (r *rig) containerSubjects(repo string, e *enginetest.Private) map[string]tranter.Job {
	all := r.subjects(repo)
	script := func(name string, commands ...string) {
		job := all[name]
		job.Steps[0].Script = commands
		all[name] = job
	}
	script("long", "for i in $(seq 1 100); do echo line $i; sleep 0.1; done")
	script("chatty", "for i in $(seq 1 30); do seq 1 5000; sleep 0.2; done")
	script("failing", "echo before", "sleep 4", "echo worse", "exit 7")
	script("keeping", "mkdir -p out deps", "seq 1 20000 > out/big", "seq 1 100 > deps/list", "sleep 3", "echo packed")
	served := all["long"]
	served.Steps = []tranter.JobStep{{Name: "script", Timeout: 3600, When: "on_success", Script: []string{
		"for i in $(seq 1 60); do wget -qO- http://web:8080/; sleep 0.1; done",
	}}}
	served.Image.Name = e.Image(r.t, "busybox")
	served.Services = []tranter.Image{{Name: e.Image(r.t, "ports"), Alias: "web", Variables: []tranter.Variable{{Key: "GREETING", Value: "campaign"}}}}
	all["served"] = served
	all["networked"] = with(served, "FF_NETWORK_PER_BUILD", "true")
	return all
}

// The manager is killed, and the engine restarted or killed while containers go on: jobs end as they do otherwise, with
// the same logs, and the engine is clean. CAMPAIGN=full in the environment asks for 100 kills and 20 restarts.
// It is not one of those that run side by side: on a busy machine the engine takes so long to come back that jobs give it up.
func TestKillCampaignOverDocker(t *testing.T) {
	r, e := privateRig(t, "", "", "")
	r.jobs = strings.Replace(r.jobs, fmt.Sprintf("%q, %q]", r.path("builds")+":/builds", r.path("cache")+":/cache"), `"/cache"]`, 1)
	r.configure("", "")
	repo := repository(t, map[string]string{"readme": "x\n"})
	restarts := 0
	const perRound = 20
	rounds := 1
	if os.Getenv("CAMPAIGN") == "full" {
		rounds = 5
	}
	withNetwork := rounds // of a long campaign: Docker 20.10 does not start again when it has died just while it removed a network
	c := campaign{rig: r, random: seeded(t), kills: rounds * perRound, perRound: perRound, longestGap: 500 * time.Millisecond}
	c.subjects = func(round int) map[string]tranter.Job {
		all := r.containerSubjects(repo, e)
		if round > 0 && (rounds == 1 || round != withNetwork) {
			delete(all, "networked")
		}
		return all
	}
	c.around = func(n int, kill func()) {
		if n%4 != 2 || rounds > 1 && 1+n/perRound == withNetwork {
			kill()
			return
		}
		restarts++
		// Docker 20.10 that is told to end stops containers that are just being started, although it has live-restore: on a busy
		// machine that hits jobs now and then, so that only the long campaign does it.
		if restarts%2 == 0 || rounds == 1 {
			e.Kill(t)
		} else {
			e.Stop(t)
		}
		if c.random.IntN(2) == 0 { // the new manager finds no engine
			kill()
			c.pause(time.Duration(c.random.Int64N(int64(c.longestGap))))
			e.Start(t)
			return
		}
		e.Start(t)
		kill()
	}
	began := time.Now()
	c.run()
	t.Logf("%d kills of the manager and %d restarts of the engine in %v", c.kills, restarts, time.Since(began))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("left on the engine: %s", leftovers(t, e))
		}
	})
	r.eventuallyIn(90*time.Second, "the engine is clean", func() bool { return leftovers(t, e) == "" })
}

// leftovers names all that is on an engine but caches and our program.
func leftovers(t *testing.T, e *enginetest.Private) string {
	t.Helper()
	ctx, api := context.WithoutCancel(t.Context()), enginetest.Client(t, e.Host())
	var left []string
	containers, err := api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return err.Error()
	}
	for _, c := range containers.Items {
		left = append(left, "container "+strings.Join(c.Names, ","))
	}
	networks, err := api.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, n := range networks.Items {
		if n.Name != "bridge" && n.Name != "host" && n.Name != "none" {
			left = append(left, "network "+n.Name)
		}
	}
	volumes, err := api.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, v := range volumes.Items {
		if !strings.HasPrefix(v.Name, "tranter-agent-") && v.Labels["com.gitlab.gitlab-runner.type"] != "cache" {
			left = append(left, "volume "+v.Name)
		}
	}
	return strings.Join(left, ", ")
}
