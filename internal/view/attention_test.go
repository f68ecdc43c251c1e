package view_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

func TestNothingNeedsAttentionWhereAllIsWell(t *testing.T) {
	s := scene()
	s.Pools[0].Waiting = 0
	if got := view.Attention(s, noon); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestWhatNeedsAttention(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*view.Snapshot)
		level  view.Level
		want   string
	}{
		"config": {func(s *view.Snapshot) { s.Manager.ConfigProblem = "config.toml:3:1: no such key" }, view.Error, "The changed configuration is not used, and the one before it stays in force: config.toml:3:1: no such key."},
		"none":   {func(s *view.Snapshot) { s.Runners = nil }, view.Warning, "There is no runner in the configuration, so that no job can be taken."},
		"refused": {func(s *view.Snapshot) {
			s.Runners[0].URL, s.Runners[0].Problem, s.Runners[0].Backoff = "https://gitlab.example.com", "403 Forbidden", after(time.Hour)
		}, view.Error, "Runner builders is refused by https://gitlab.example.com, and asks again in 1h00m: 403 Forbidden."},
		"trouble": {func(s *view.Snapshot) {
			s.Runners[0].Problem, s.Runners[0].Contact = "no route to host", after(-5*time.Minute)
		}, view.Error, "Runner builders has trouble: no route to host; the server has answered it 5m00s ago."},
		"paused": {func(s *view.Snapshot) { s.Runners[0].Paused = "since 11:00 by ada" }, view.Warning, "Runner builders is paused by a person: since 11:00 by ada."},
		"leak": {func(s *view.Snapshot) {
			s.Machines = []view.Machine{{Name: "m1", Leak: "its removal has failed 5 times: quota"}, {Name: "m2", Leak: "other"}}
		}, view.Error, "2 machines may be left at the provider and cost money (m1, m2): its removal has failed 5 times: quota."},
		"provider": {func(s *view.Snapshot) { s.Pools[0].Problem = "credentials have expired" }, view.Error, "The machines of runner builders have trouble with the provider amazonec2 while 4 jobs wait: credentials have expired."},
		"throttle": {func(s *view.Snapshot) { s.Pools[0].Throttle = after(time.Minute) }, view.Warning, "The provider amazonec2 of runner builders wants no requests for another 1m00s while 4 jobs wait."},
		"machines": {func(*view.Snapshot) {}, view.Warning, "All 10 machines that the limit of runner builders allows are there (3 booting, 7 leased) while 4 jobs wait."},
		"late": {func(s *view.Snapshot) {
			s.Machines = []view.Machine{{Name: "m1", State: "booting", Deadline: after(-time.Hour)}}
		}, view.Warning, "1 machine should have left the state that it is in, the longest 1h00m ago: m1 (booting)."},
		"cluster": {func(s *view.Snapshot) { s.Clusters[0].Problem = "squeue: timeout" }, view.Error, "slurm of runner hpc does not answer while 4 jobs wait: squeue: timeout."},
		"full":    {func(s *view.Snapshot) { s.Clusters[0].Full = "max_queued is reached" }, view.Warning, "Runner hpc makes no more batch jobs while 4 jobs wait: max_queued is reached."},
		"failures": {func(s *view.Snapshot) {
			s.Recent = view.Recent{Ended: 40, Failed: map[string]int{"runner_system_failure": 2, "image_pull_failure": 1, "script_failure": 9}}
		}, view.Warning, "3 of the 40 jobs that ended in the last 24 hours failed through no fault of theirs (a failure of the runner's system: 2; the image could not be pulled: 1)."},
		"wait": {func(s *view.Snapshot) {
			s.Jobs, s.Recent = []view.Job{taken("t3", time.Hour)}, view.Recent{Waits: 20, WaitP95: 6 * time.Minute}
		}, view.Warning, "1 job has waited for more than 12m00s, the longest, job 7 (rspec of group/app), for 1h00m; 95 % of the jobs waited 6m00s or less lately. It was taken 1h00m ago, and its environment is being made; its stage is prepare executor."},
		"concurrent": {func(s *view.Snapshot) {
			s.Manager.Concurrent, s.Jobs, s.Waiting = 1, []view.Job{taken("t3", time.Second)}, []view.Waiting{{Runner: "t3"}}
		}, view.Warning, "The manager has 1 job, and \"concurrent\" is 1, while 1 job waits in GitLab."},
		"limit":    {func(s *view.Snapshot) { s.Runners[2].Jobs, s.Waiting = 2, []view.Waiting{{Runner: "t3"}} }, view.Info, "Runner here has 2 jobs, and its limit is 2, while 1 job waits in GitLab."},
		"draining": {func(s *view.Snapshot) { s.Manager.State, s.Jobs = "draining", []view.Job{taken("t3", time.Second)} }, view.Info, "The manager takes no more jobs, and ends after the 1 job that it has."},
		"warnings": {func(s *view.Snapshot) { s.Runners[0].Warnings = []string{"no such key: tyop"} }, view.Info, "The configuration of runner builders has 1 warning: no such key: tyop."},
	} {
		t.Run(name, func(t *testing.T) {
			s := scene()
			c.change(&s)
			got := view.Attention(s, noon)
			i := slices.IndexFunc(got, func(n view.Notice) bool { return n.Text == c.want })
			if i < 0 || got[i].Level != c.level || got[i].Do == "" || !strings.HasPrefix(got[i].Link, "/") {
				t.Errorf("got %+v\nwant %s: %s", got, c.level, c.want)
			}
		})
	}
}

func TestTheWorstComesFirst(t *testing.T) {
	s := scene()
	s.Manager.State, s.Runners[0].Paused, s.Pools[0].Problem = "draining", "since 11:00 by ada", "no credentials"
	var levels []view.Level
	for _, n := range view.Attention(s, noon) {
		levels = append(levels, n.Level)
	}
	if want := []view.Level{view.Error, view.Warning, view.Warning, view.Info}; !slices.Equal(levels, want) {
		t.Errorf("got %v, want %v", levels, want)
	}
}

func TestWordsForNumbers(t *testing.T) {
	for want, got := range map[string]string{
		"0.0s": view.Short(-time.Hour), "0.4s": view.Short(400 * time.Millisecond), "1m00s": view.Short(59960 * time.Millisecond), "2m05s": view.Short(125 * time.Second),
		"1h00m": view.Short(3599600 * time.Millisecond), "47h59m": view.Short(47*time.Hour + 59*time.Minute), "3d04h": view.Short(76 * time.Hour),
		"never": view.Ago(time.Time{}, noon), "5m00s ago": view.Ago(before(5*time.Minute), noon), "in 1.0s": view.When(noon.Add(time.Second), noon), "-": view.When(time.Time{}, noon),
		"11:00:00": view.Clock(before(time.Hour), noon), "2026-11-28 12:00": view.Clock(before(24*time.Hour), noon),
		"0 B": view.Bytes(-1), "1023 B": view.Bytes(1023), "1.5 KiB": view.Bytes(1536), "10 KiB": view.Bytes(10230), "1.0 MiB": view.Bytes(1<<20 - 1), "8.0 EiB": view.Bytes(1<<63 - 1),
		"<0.01 EUR": view.Money(0.001, "EUR"), "12.35": view.Money(12.345001, ""), "12 %": view.Percent(0.12), "<1 %": view.Percent(0.0001),
		"1 job": view.Count(1, "job"), "0 jobs": view.Count(0, "job"), "step script": view.StateWord("step_script"), "a\ufffd[2J": view.Printable("a\x1b[2J"),
		"the job's time was over": view.ReasonWord(string(tranter.JobExecutionTimeout)),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
