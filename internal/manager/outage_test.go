package manager_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
)

// TestHalfAnHourWithoutGitLab takes the server away for long, in each way in which calls fail, with a restart of the
// manager in the middle.
func TestHalfAnHourWithoutGitLab(t *testing.T) {
	for name, fault := range map[string]error{
		"connection":          errors.New("connection reset by peer"),
		"unavailable":         &tranter.UnavailableError{Err: errors.New("503 Service Unavailable")},
		"too many requests":   &tranter.UnavailableError{RetryAfter: 2 * time.Second, Err: errors.New("429 Too Many Requests")},
		"not found meanwhile": fmt.Errorf("send the job's log: %w", tranter.ErrNotFound),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 3, "a")
				server := s.servers["a"]
				var lines []string
				for i := range 600 { // 50 minutes
					lines = append(lines, fmt.Sprintf("line %d\n", i))
				}
				long := s.job(1, 0)
				s.executor.Set(1, jobtest.Work{Takes: 5 * time.Second, Output: lines})
				server.Enqueue(long, s.job(2, 10*time.Minute))
				s.start()
				time.Sleep(5 * time.Minute)
				server.Fail(fault)
				time.Sleep(10 * time.Minute)
				if got := s.m.Status().Runners[0].Jobs; got != 1 {
					t.Errorf("%d jobs hold a place, want 1: the other only has to be reported", got)
				}
				s.m.Leave()
				if err := <-s.done; err != nil {
					t.Error(err)
				}
				s.start()
				time.Sleep(20 * time.Minute)
				for id := range int64(2) {
					if _, told := server.Final(id + 1); told {
						t.Errorf("job %d was reported while the server was away", id+1)
					}
				}
				server.Fail(nil)
				server.Enqueue(s.job(3, time.Second))
				time.Sleep(3*time.Second + 10*time.Millisecond) // the check interval
				if !server.Accepted(3) {
					t.Error("no job was taken within a check interval after the server was back")
				}
				time.Sleep(3 * time.Minute)
				s.want("a", 2, tranter.JobSuccess, "")
				if n := strings.Count(server.Log(1), "line "); n < 420 {
					t.Errorf("the log of the running job has not caught up: %d lines", n)
				}
				time.Sleep(30 * time.Minute)
				s.want("a", 1, tranter.JobSuccess, "")
				if log := server.Log(1); strings.Count(log, strings.Join(lines, "")) != 1 || strings.Count(log, "line ") != len(lines) || strings.Count(log, "Running with") != 1 {
					t.Errorf("the log has not each line once:\n%s", log)
				}
				s.end()
			})
		})
	}
}
