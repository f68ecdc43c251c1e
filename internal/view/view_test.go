package view

import (
	"testing"
	"time"
)

func TestHowManyJobsWaitIsSaidWhenItIsKnown(t *testing.T) {
	now := time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
	queue := func(n int64, ago time.Duration) *Queue { return &Queue{Jobs: n, At: now.Add(-ago)} }
	for name, c := range map[string]struct {
		s     Snapshot
		jobs  int
		known bool
	}{
		"nobody has told":         {Snapshot{Runners: []Runner{{Runner: "a"}}}, 0, false},
		"told with a job":         {Snapshot{Runners: []Runner{{Runner: "a", Queue: queue(3, time.Minute)}, {Runner: "b", Queue: queue(2, 0)}}}, 5, true},
		"told long ago":           {Snapshot{Runners: []Runner{{Runner: "a", Queue: queue(3, time.Hour)}}}, 0, false},
		"looked up":               {Snapshot{Clusters: []Cluster{{Class: "a"}}, Waiting: make([]Waiting, 4)}, 4, true},
		"looked up, none":         {Snapshot{Clusters: []Cluster{{Class: "a"}}}, 0, true},
		"looked up and told":      {Snapshot{Clusters: []Cluster{{Class: "a"}}, Waiting: make([]Waiting, 4), Runners: []Runner{{Runner: "a", Queue: queue(9, 0)}}}, 4, true},
		"looked up, other's told": {Snapshot{Clusters: []Cluster{{Class: "a"}}, Waiting: make([]Waiting, 4), Runners: []Runner{{Runner: "b", Queue: queue(9, 0)}}}, 13, true},
	} {
		c.s.At = now
		if jobs, known := c.s.Queued(); jobs != c.jobs || known != c.known {
			t.Errorf("%s: %d, %v", name, jobs, known)
		}
	}
}
