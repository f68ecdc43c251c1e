package manager_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
)

// However often the manager makes way for the next start, and whenever: each job's history is kept once, and whole.
func TestHistoriesAreKeptOnceOverRestarts(t *testing.T) {
	for range 20 {
		const jobs = 6
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		var takes, pauses []time.Duration
		for range jobs {
			takes = append(takes, time.Duration(1+random.IntN(600))*time.Second)
		}
		for range 1 + random.IntN(5) {
			pauses = append(pauses, time.Duration(random.IntN(300_000))*time.Millisecond)
		}
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, 3, "a")
			past := &jobtest.Past{}
			logs := &jobtest.Logs{}
			s.options.Past, s.options.Logs = past, logs
			h := listen(s)
			for i, d := range takes {
				s.executor.Place(int64(i + 1))
				s.servers["a"].Enqueue(s.job(int64(i+1), d))
			}
			s.start()
			for _, d := range pauses {
				time.Sleep(d)
				s.m.Leave()
				<-s.done
				time.Sleep(time.Second)
				s.start()
			}
			time.Sleep(2 * time.Hour)
			s.end()
			all, times := past.All()
			if len(all) != jobs || times != jobs || len(h.of(tranter.JobEnded)) != jobs || len(h.of(tranter.JobTaken)) != jobs {
				t.Errorf("%d histories, kept %d times, told %s", len(all), times, h.kinds())
			}
			for key, one := range all {
				whole(t, one)
				if logs.All()[key] != s.servers["a"].Log(one.Job.ID) {
					t.Errorf("job %d: the log is not whole:\n%s", one.Job.ID, logs.All()[key])
				}
			}
			if t.Failed() {
				t.Log("seed", seed)
			}
		})
	}
}

// whole checks that a history has all of a job that has succeeded, without gaps.
func whole(t *testing.T, h tranter.JobHistory) {
	t.Helper()
	seen := map[string]int{}
	for i, s := range h.Stages {
		seen[s.Name]++
		if s.End.Before(s.Start) || i > 0 && !s.Start.Equal(h.Stages[i-1].End) {
			t.Errorf("job %d: stage %d is %+v, after %+v", h.Job.ID, i, s, h.Stages[max(0, i-1)])
		}
	}
	if first := h.Stages[0]; first.Start.Before(h.Times.Taken) || seen["accepting"] != 1 || seen["prepare_executor"] != 1 || seen["reporting"] != 1 {
		t.Errorf("job %d: stages %+v", h.Job.ID, h.Stages)
	}
	if tt := h.Times; h.Result.State != tranter.JobSuccess || h.Place.Machine != "machine-0" || tt.Placed.Before(tt.Taken) || tt.Started.Before(tt.Placed) || tt.Ended.Before(tt.Started) {
		t.Errorf("job %d: %+v", h.Job.ID, h)
	}
}
