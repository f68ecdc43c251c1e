package job_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
)

// storage is a distributed cache at which uploads have to be undone.
type storage struct {
	fault   error
	takes   time.Duration
	signed  int
	until   time.Time
	aborted []string
}

func (s *storage) Sign(ctx context.Context, p *tranter.Phase, until time.Time) error {
	s.signed++
	s.until = until
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.takes):
	}
	for _, step := range p.Steps {
		if step.Archive == nil {
			continue
		}
		for i := range step.Archive.Caches {
			abort := tranter.SignedRequest{Method: "DELETE", URL: tranter.Secret("https://s3/" + step.Archive.Caches[i].Key)}
			step.Archive.Caches[i].Remote = []tranter.RemoteArchive{{Upload: &tranter.RemoteUpload{Parts: &tranter.PartUpload{Protocol: tranter.PartsS3, Abort: &abort}}}}
		}
	}
	return s.fault
}

func (s *storage) Abort(_ context.Context, begun []tranter.SignedRequest) error {
	for _, r := range begun {
		s.aborted = append(s.aborted, r.URL.Reveal())
	}
	return nil
}

// withCache is a job that saves one cache, whatever comes of it.
func withCache(b *bench, s job.CacheSigner) job.Task {
	j := payload(1)
	j.Cache = []tranter.Cache{{Key: "deps", Paths: []string{"x"}, When: "always"}}
	task := b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()})
	task.Caches = s
	return task
}

func TestCachesAreSignedForTheJobsTimeAndUploadsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := newBench(t), &storage{}
		started := time.Now()
		if _, err := job.Run(t.Context(), t.Context(), withCache(b, s)); err != nil {
			t.Fatal(err)
		}
		if u := b.final(t); u.State != tranter.JobSuccess {
			t.Errorf("final update %+v", u)
		}
		if after := s.until.Sub(started); s.signed != 1 || after < time.Hour || after > time.Hour+10*time.Minute {
			t.Errorf("signed %d times, for %v; the job has an hour", s.signed, after)
		}
		if !slices.Equal(s.aborted, []string{"https://s3/deps"}) {
			t.Errorf("undone: %q", s.aborted)
		}
	})
}

func TestAJobGoesOnWithoutItsDistributedCache(t *testing.T) {
	for name, s := range map[string]*storage{
		"refused":     {fault: errors.Join(errors.New("begin an upload: AccessDenied"), errors.New("another reason"))},
		"unreachable": {takes: 10 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				started := time.Now()
				if _, err := job.Run(t.Context(), t.Context(), withCache(b, s)); err != nil {
					t.Fatal(err)
				}
				if u := b.final(t); u.State != tranter.JobSuccess || time.Since(started) > time.Minute {
					t.Errorf("after %v: %+v", time.Since(started), u)
				}
				log, want := b.server.Log(1), "WARNING: The distributed cache cannot be used, only the one of this machine: "
				if s.fault != nil {
					want += "begin an upload: AccessDenied; another reason"
				}
				if strings.Count(log, want) != 1 {
					t.Errorf("the log does not say %q once:\n%s", want, log)
				}
			})
		})
	}
}

// A manager that takes a job up again leaves the requests of its running phase as they are, and still undoes uploads.
func TestARestartSignsNothingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := newBench(t), &storage{}
		b.executor.Set(1, jobtest.Work{Takes: time.Minute})
		report, leave := context.WithCancel(t.Context())
		timer := time.AfterFunc(30*time.Second, leave)
		defer timer.Stop()
		if _, err := job.Run(t.Context(), report, withCache(b, s)); err == nil {
			t.Fatal("the job ended before the manager did")
		}
		left, err := b.records.Jobs(t.Context())
		if err != nil || len(left) != 1 || len(left[0].Uploads) != 1 {
			t.Fatalf("recorded: %+v, %v", left, err)
		}
		task := b.task(left[0])
		task.Caches = s
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Fatal(err)
		}
		if b.final(t); s.signed != 1 || len(s.aborted) != 1 {
			t.Errorf("signed %d times, undone %q", s.signed, s.aborted)
		}
	})
}
