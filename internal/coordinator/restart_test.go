package coordinator_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// Whatever happens: a coordinator that is opened again shows what the one before has shown.
func TestARestartChangesNothing(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			b := started(t, coordinator.Options{SweepEvery: time.Hour})
			token := b.runner
			var held []*tranter.Job
			for range 6 {
				for range 15 {
					held = step(b, random, held)
				}
				before, err := json.Marshal(b.c.Pipelines())
				if err != nil {
					t.Fatal(err)
				}
				b.server.Close()
				if err := b.c.Close(); err != nil {
					t.Fatal(err)
				}
				b = open(t, coordinator.Options{Dir: b.dir, SweepEvery: time.Hour})
				b.runner = token
				after, err := json.Marshal(b.c.Pipelines())
				if err != nil {
					t.Fatal(err)
				}
				if string(before) != string(after) {
					t.Fatalf("before:\n%s\nafter:\n%s", before, after)
				}
			}
		})
	}
}

// step lets one thing happen, and returns the jobs that the runner has then.
func step(b *bench, random *rand.Rand, held []*tranter.Job) []*tranter.Job {
	b.t.Helper()
	all := b.c.Pipelines()
	if len(all) == 0 || random.IntN(8) == 0 {
		b.start(stages(
			script("one", "build", func(j *pipeline.Job) { j.Retry.Max = 1 }),
			script("two", "build", func(j *pipeline.Job) { j.ResourceGroup = "g" }),
			script("three", "test", func(j *pipeline.Job) { j.When, j.AllowFailure = pipeline.Manual, true }),
			script("four", "test", func(j *pipeline.Job) { j.ResourceGroup = "g" }),
			script("five", "deploy", func(j *pipeline.Job) { j.When = pipeline.Always }),
			script("six", "deploy", needs("one")),
		))
		return held
	}
	some := all[random.IntN(len(all))]
	job := some.Jobs[random.IntN(len(some.Jobs))]
	switch random.IntN(10) {
	case 0:
		_ = b.c.CancelJob(job.ID, random.IntN(2) == 0) // it may not be possible
	case 1:
		_, _ = b.c.RetryJob(job.ID)
	case 2:
		_ = b.c.PlayJob(job.ID, tranter.Variable{Key: "A", Value: "b"})
	case 3, 4, 5:
		if resp := b.ask(); resp.StatusCode == http.StatusCreated {
			var j tranter.Job
			b.json(resp, &j)
			return append(held, &j)
		}
	default:
		if len(held) == 0 {
			return held
		}
		i := random.IntN(len(held))
		j := held[i]
		b.patch(j, 0, "some text\n") // the job may be over by now
		b.upload(j, "", "a.zip", []byte("zip"))
		b.upload(j, "artifact_type=dotenv&artifact_format=gzip", "env.gz", gz("KEY=value\n"))
		b.put(j, map[string]any{"state": []string{"success", "failed"}[random.IntN(2)], "failure_reason": "script_failure", "exit_code": 2})
		return append(held[:i:i], held[i+1:]...)
	}
	return held
}
