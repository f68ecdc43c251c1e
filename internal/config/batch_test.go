package config

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestOptionsThatWouldBreakBatchJobsAreRefused(t *testing.T) {
	for _, c := range []struct {
		scheduler, options string
		at                 int // of the one that is refused; -1: none is
		problem            string
	}{
		{"slurm", "--hint=nomultithread --licenses=a:1 -s -L b:2", -1, ""},
		{"slurm", "--comment text --mail-type=END", -1, ""},
		{"slurm", "--hint=x --output=/x", 1, "must not be given"},
		{"slurm", "--output /x", 0, "must not be given"},
		{"slurm", "--outpu=/x", 0, "must not be given"},
		{"slurm", "-o/x", 0, "must not be given"},
		{"slurm", "-so/x", 0, "must not be given"},
		{"slurm", "-Lo", -1, ""}, // o is what -L is given
		{"slurm", "--uid=0", 0, "must not be given"},
		{"slurm", "--wrap=id", 0, "must not be given"},
		{"slurm", "--array=1-5", 0, "must not be given"},
		{"slurm", "--requeue", 0, "must not be given"},
		{"slurm", "--job-name=x", 0, "must not be given"},
		{"slurm", "--export=ALL", 0, "must not be given"},
		{"slurm", "--dependency=singleton", 0, "must not be given"},
		{"slurm", "-a1-5", 0, "must not be given"},
		{"slurm", "--mem=4G", 0, "key of its own"},
		{"slurm", "-p gpu", 0, "key of its own"},
		{"slurm", "--mem-bind=local", -1, ""},
		{"slurm", "script.sh", 0, "is not an option"},
		{"slurm", "--hint=x script.sh", 1, "is not an option"},
		{"slurm", "--comment x script.sh", 2, "is not an option"},
		{"slurm", "-- x", 0, "is not an option"},
		{"pbs", "-l software=x -m n", -1, ""},
		{"pbs", "-m n -V", 2, "must not be given"},
		{"pbs", "-fV", 0, "must not be given"},
		{"pbs", "-q long", 0, "key of its own"},
		{"lsf", "-R span[hosts=1] -app x", -1, ""},
		{"lsf", "-oo x", 0, "must not be given"},
		{"lsf", "-W 10", 0, "key of its own"},
		{"flux", "--setattr=a=b", -1, ""},
		{"flux", "--job-name=x", 0, "must not be given"},
		{"", "--anything", -1, ""},
	} {
		at, problem, hint := BatchOptions(c.scheduler, strings.Fields(c.options))
		if c.at < 0 && problem != "" || c.at >= 0 && (at != c.at || !strings.Contains(problem, c.problem) || hint == "") {
			t.Errorf("%s %s: %d, %q, %q", c.scheduler, c.options, at, problem, hint)
		}
	}
}

func TestAnyOptionsAreChecked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scheduler := rapid.SampledFrom([]string{"slurm", "pbs", "lsf", "flux", ""}).Draw(t, "scheduler")
		options := rapid.SliceOf(rapid.OneOf(rapid.String(), rapid.StringMatching(`-{1,2}[a-z=]{0,6}`))).Draw(t, "options")
		if at, problem, _ := BatchOptions(scheduler, options); problem != "" && at >= len(options) {
			t.Fatalf("%d of %q", at, options)
		}
	})
}

func TestAmountsAndRanges(t *testing.T) {
	for text, want := range map[string]int64{"1k": 1 << 10, "512m": 512 << 20, "1.5g": 3 << 29, "2 GiB": 2 << 30, "1TB": 1 << 40, "7b": 7, "0.5k": 512} {
		if got, err := ParseMemory(text); err != nil || got != want {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "4096", "-1", "1e3m", "0m", "g", "1x", "999999999999p", "1..5g", "0.1b"} {
		if got, err := ParseMemory(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	if from, to, err := ParseRange("1-16"); err != nil || from != 1 || to != 16 {
		t.Error(from, to, err)
	}
	if from, to, err := ParseRange("0"); err != nil || from != 0 || to != 0 {
		t.Error(from, to, err)
	}
	if from, to, err := ParseMemoryRange("512m - 2g"); err != nil || from != 512<<20 || to != 2<<30 {
		t.Error(from, to, err)
	}
	if from, to, err := ParseDurationRange("1m-4h"); err != nil || from != time.Minute || to != 4*time.Hour {
		t.Error(from, to, err)
	}
	for _, text := range []string{"", "-", "1-", "-1", "4-1", "1-2-3", "x", "99999999999"} {
		if from, to, err := ParseRange(text); err == nil {
			t.Errorf("%q is %d to %d", text, from, to)
		}
	}
	if _, _, err := ParseDurationRange("0s"); err == nil {
		t.Error("no time at all")
	}
}

// A tag that names a check which does not exist would check nothing.
func TestEveryCheckThatATagNamesExists(t *testing.T) {
	known := checks()
	schema().walk(func(f *field) {
		if name := f.tag.Get("check"); name != "" && known[name] == nil {
			t.Errorf("%s: there is no check %q", f.path, name)
		}
	})
}
