package sizing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

// generous allows much, so that what is tested is how it is asked for.
func generous() Rules {
	number := Range{Min: 0, Max: 1000, Given: true}
	return Rules{Allow: Allow{
		Nodes: number, CPUs: number, GPUs: number, Memory: Range{Max: 1 << 45, Given: true}, Walltime: Range{Max: int64(240 * time.Hour), Given: true},
		GPUTypes: []string{"*"}, Partitions: []string{"*"}, Accounts: []string{"*"}, QOS: []string{"*"}, Constraints: []string{"*"}, Reservations: []string{"*"},
		Exclusive: true, Options: []string{"--hint=*", "--licenses=*", "-H*"},
	}}
}

func variables(pairs ...string) []tranter.Variable {
	var vs []tranter.Variable
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		vs = append(vs, tranter.Variable{Key: key, Value: value})
	}
	return vs
}

func TestParametersOfTheSubmitCommand(t *testing.T) {
	for _, c := range []struct {
		scheduler, words string
		want             tranter.Shape
		notes            int
	}{
		{"", "", tranter.Shape{}, 0},
		{"slurm", "--partition=gpu -A proj --qos high -C 'a100&ib' --reservation=r1", tranter.Shape{Partition: "gpu", Account: "proj", QOS: "high", Constraint: "a100&ib", Reservation: "r1"}, 0},
		{"slurm", "-N2 -n 8 -c 4 --mem=4000 -t 90", tranter.Shape{Nodes: 2, CPUs: 16, Memory: 4000 << 20, Walltime: 90 * time.Minute}, 0},
		{"slurm", "-N 2-2 --ntasks-per-node 3 --mem-per-cpu=1G --time=1-12", tranter.Shape{Nodes: 2, CPUs: 3, Memory: 3 << 30, Walltime: 36 * time.Hour}, 0},
		{"slurm", "-n 5 -N 2", tranter.Shape{Nodes: 2, CPUs: 3}, 0},
		{"slurm", "--gpus=a100:3 --nodes=2", tranter.Shape{Nodes: 2, GPUs: 2, GPUType: "a100"}, 0},
		{"slurm", "--gres=gpu:v100:2 --mem-per-gpu=8G", tranter.Shape{GPUs: 2, GPUType: "v100", Memory: 16 << 30}, 0},
		{"slurm", "--gres gpu", tranter.Shape{GPUs: 1}, 0},
		{"slurm", "--gres=gpu:a100", tranter.Shape{GPUs: 1, GPUType: "a100"}, 0},
		{"slurm", "--gpus-per-task=1 -n4", tranter.Shape{CPUs: 4, GPUs: 4}, 0},
		{"slurm", "--exclusive -t 1:30:00", tranter.Shape{Exclusive: true, Walltime: 90 * time.Minute}, 0},
		{"slurm", "--hint=nomultithread --licenses lic:1", tranter.Shape{Options: []string{"--hint=nomultithread", "--licenses=lic:1"}}, 0},
		{"slurm", "-J mine --no-requeue -p a", tranter.Shape{Partition: "a"}, 2},
		{"slurm", "-p a -p b", tranter.Shape{Partition: "b"}, 0},
		{"slurm", "-l walltime=01:00:00,nodes=1:ppn=2", tranter.Shape{Nodes: 1, CPUs: 2, Walltime: time.Hour}, 0},
		{"pbs", "-q long -P proj -l select=2:ncpus=4:mem=8gb:ngpus=1 -l walltime=3600", tranter.Shape{Partition: "long", Account: "proj", Nodes: 2, CPUs: 4, Memory: 8 << 30, GPUs: 1, Walltime: time.Hour}, 0},
		{"lsf", "-q short -n 4 -W 1:30 -M 2048 -x", tranter.Shape{Partition: "short", CPUs: 4, Walltime: 90 * time.Minute, Memory: 2 << 30, Exclusive: true}, 0},
		{"flux", "-q debug -N2 -n4 -c2 -g1 -t 30m --bank=b", tranter.Shape{Partition: "debug", Account: "b", Nodes: 2, CPUs: 4, GPUs: 2, Walltime: 30 * time.Minute}, 0},
	} {
		r := generous()
		r.Scheduler = c.scheduler
		got, notes, err := Shape(r, Job{Variables: variables("SCHEDULER_PARAMETERS=" + c.words)})
		if d := cmp.Diff(c.want, got); err != nil || d != "" || len(notes) != c.notes {
			t.Errorf("%s %s: %v, notes %q (-want +got)\n%s", c.scheduler, c.words, err, notes, d)
		}
	}
}

func TestWhatIsNeverAllowed(t *testing.T) {
	r := generous()
	r.Allow.Options = []string{"*"}
	for _, words := range []string{
		"--uid=0", "--uid 0", "--ui=0", "--wrap='rm -rf'", "--wra=x", "-o /etc/passwd", "-o/etc/passwd", "--output=x", "--outp=x", "--export=ALL", "--exp=ALL", "--array=1-9", "-a1-9",
		"--dependency=afterok:1", "-d x", "--signal=USR1", "--sig USR1", "--chdir=/", "-D/", "--begin=now", "-e x", "-i x", "--ERROR=x", "script.sh", "-- x", "-", "-p", "--mem", "'-p",
		"--gres=fpga:1", "-l software=x", "-N 1-4", "-t soon", "--exclusive=user", "-p -x", "--mem=-1",
	} {
		got, _, err := Shape(r, Job{Variables: variables("SCHEDULER_PARAMETERS=" + words)})
		var mistake *Error
		if !errors.As(err, &mistake) || !strings.HasPrefix(mistake.Error(), "SCHEDULER_PARAMETERS") || mistake.Problem == "" {
			t.Errorf("%s: %+v, %v", words, got, err)
		}
	}
	for _, words := range []string{
		"--uid=0", "--wrap=x", "-o/etc/x", "x", "--hint=y script", "--ex=NONE", "-",
		"-so/etc/x", "-kKvo/etc/x", "-J other", "--job-name=other", "--partition=secret", "--partit=secret", "-psecret", "-sAother", "--mem=1T", "--time=99-0", "--gr=gpu:9",
	} {
		if got, _, err := Shape(r, Job{Variables: variables("TRANTER_BATCH_OPTIONS=" + words)}); err == nil || !strings.HasPrefix(err.Error(), "TRANTER_BATCH_OPTIONS: ") {
			t.Errorf("%s: %+v, %v", words, got, err)
		}
	}
	for scheduler, words := range map[string]string{"pbs": "-W group_list=root", "lsf": "-o x", "flux": "--setattr=system.shell.x=y"} {
		r.Scheduler = scheduler
		if got, _, err := Shape(r, Job{Variables: variables("SCHEDULER_PARAMETERS=" + words)}); err == nil {
			t.Errorf("%s %s: %+v", scheduler, words, got)
		}
	}
}

func TestAnOptionThatIsAllowedByNameMaySayWhatABatchJobHas(t *testing.T) {
	r := generous()
	r.Allow.Options = []string{"--gres=fpga:*", "--licenses=*"}
	got, _, err := Shape(r, Job{Variables: variables("TRANTER_BATCH_OPTIONS=--gres=fpga:1 --licenses=x")})
	if err != nil || !slices.Equal(got.Options, []string{"--gres=fpga:1", "--licenses=x"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOnlyWhatIsAllowedCanBeAskedFor(t *testing.T) {
	r := Rules{
		Base: tranter.Shape{CPUs: 2, Partition: "main"},
		Allow: Allow{
			CPUs: Range{1, 16, true}, Memory: Range{512 << 20, 64 << 30, true}, Walltime: Range{int64(time.Minute), int64(4 * time.Hour), true},
			Partitions: []string{"cpu-*", "gpu"}, Options: []string{"--hint=*"},
		},
	}
	for _, c := range []struct{ variable, says string }{
		{"TRANTER_BATCH_CPUS=17", "allowed here are 1 to 16"},
		{"TRANTER_BATCH_CPUS=-1", "is no number"},
		{"TRANTER_BATCH_CPUS=many", "is no number"},
		{"TRANTER_BATCH_MEMORY=65G", "allowed here are 512M to 64G"},
		{"TRANTER_BATCH_MEMORY=9999999999T", "is no amount"},
		{"TRANTER_BATCH_TIME=5h", "allowed here are 1m0s to 4h0m0s"},
		{"TRANTER_BATCH_GPUS=1", "nothing else than what is configured"},
		{"TRANTER_BATCH_PARTITION=secret", "allowed are cpu-*, gpu"},
		{"TRANTER_BATCH_PARTITION=gpu,secret", "allowed are cpu-*, gpu"},
		{"TRANTER_BATCH_PARTITION=--uid=0", "is no name"},
		{"TRANTER_BATCH_PARTITION=a b", "is no name"},
		{"TRANTER_BATCH_ACCOUNT=x", "none can be chosen"},
		{"TRANTER_BATCH_EXCLUSIVE=true", "not allowed"},
		{"TRANTER_BATCH_EXCLUSIVE=maybe", "neither true nor false"},
		{"TRANTER_BATCH_OPTIONS=--mem-bind=x", "allowed are --hint=*"},
		{"TRANTER_BATCH_OPTIONS='", "quote"},
		{"TRANTER_BATCH_CPU=1", "there are ACCOUNT, CONSTRAINT, CPUS"},
		{"CI_SLURM_PARTITION=secret", "allowed are cpu-*, gpu"},
		{"CI_SLURM_GRES=x", "only gpu"},
	} {
		name, _, _ := strings.Cut(c.variable, "=")
		_, _, err := Shape(r, Job{Variables: variables(c.variable)})
		if err == nil || !strings.HasPrefix(err.Error(), name+": ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.variable, err)
		}
	}
	for _, fine := range []string{"TRANTER_BATCH_PARTITION=main", "TRANTER_BATCH_PARTITION=cpu-1,gpu", "TRANTER_BATCH_CPUS=2", "TRANTER_BATCH_CPUS=", "TRANTER_BATCH_EXCLUSIVE=no"} {
		if _, _, err := Shape(r, Job{Variables: variables(fine)}); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
}

func TestLaterWins(t *testing.T) {
	r := generous()
	r.Base = tranter.Shape{CPUs: 1, Memory: 1 << 30, Partition: "base", Account: "a", Options: []string{"--base"}}
	r.Tags = []TagRule{{"big", tranter.Shape{CPUs: 2, Memory: 2 << 30, Partition: "big", Options: []string{"--big"}}}, {"other", tranter.Shape{CPUs: 100}}}
	got, notes, err := Shape(r, Job{Tags: []string{"big"}, Variables: append(variables(
		"CI_SLURM_CPUS=3", "CI_SLURM_MEM=3G", "CI_SLURM_PARTITION=slurm", "CI_SLURM_TIMELIMIT=02:00:00", "CI_SLURM_ODD=1",
		"SCHEDULER_PARAMETERS=-c 4 --mem=4G", "TRANTER_BATCH_CPUS=7", "TRANTER_BATCH_CPUS=5", "TRANTER_BATCH_OPTIONS=--hint=compute_bound",
	), tranter.Variable{Key: "TRANTER_BATCH_MEMORY", Value: "/tmp/file", File: true})})
	want := tranter.Shape{CPUs: 5, Memory: 4 << 30, Partition: "slurm", Account: "a", Walltime: 2 * time.Hour, Options: []string{"--base", "--big", "--hint=compute_bound"}}
	if d := cmp.Diff(want, got); err != nil || d != "" || len(notes) != 1 || !strings.Contains(notes[0], "CI_SLURM_ODD") {
		t.Errorf("%v, %q (-want +got)\n%s", err, notes, d)
	}
	if !slices.Equal(r.Base.Options, []string{"--base"}) {
		t.Errorf("the rules have changed: %q", r.Base.Options)
	}
}

func TestHowLongABatchJobMayRun(t *testing.T) {
	h := time.Hour
	for _, c := range []struct {
		name                  string
		base, most, tag       time.Duration
		asked                 string
		timeout, margin, want time.Duration
		note                  bool
	}{
		{name: "as the scheduler has it"},
		{name: "the job's timeout", timeout: h, margin: 5 * time.Minute, want: 65 * time.Minute},
		{name: "rounded up", timeout: h + time.Second, want: h + time.Minute},
		{name: "at most", most: 2 * h, timeout: 3 * h, want: 2 * h, note: true},
		{name: "the margin is cut first", most: 2 * h, timeout: 2 * h, margin: h, want: 2 * h},
		{name: "a timeout that is not known", base: h, most: 2 * h, want: h},
		{name: "nothing is known", most: 2 * h, want: 2 * h},
		{name: "asked for", most: 4 * h, asked: "3h", timeout: h, want: 3 * h},
		{name: "asked for too little", asked: "30", timeout: h, want: h / 2, note: true},
		{name: "asked for too much", most: 2 * h, asked: "3h", timeout: h, want: 2 * h},
		{name: "a tag", most: 2 * h, tag: 6 * h, timeout: 5 * h, want: 5 * h},
	} {
		r := generous()
		r.Base.Walltime, r.Max, r.Margin = c.base, c.most, c.margin
		r.Tags = []TagRule{{"t", tranter.Shape{Walltime: c.tag}}}
		got, notes, err := Shape(r, Job{Tags: []string{"t"}, Timeout: c.timeout, Variables: variables("TRANTER_BATCH_TIME=" + c.asked)})
		if err != nil || got.Walltime != c.want || (len(notes) > 0) != c.note {
			t.Errorf("%s: %s, want %s, notes %q, %v", c.name, got.Walltime, c.want, notes, err)
		}
	}
}

func TestTimesAndMemory(t *testing.T) {
	m := time.Minute
	for text, want := range map[string]time.Duration{
		"90": 90 * m, "1:30": m + 30*time.Second, "1:30:00": 90 * m, "1-": -1, "1-12": 36 * time.Hour, "1-12:30": 36*time.Hour + 30*m, "1-0:0:1": 24*time.Hour + time.Second, "90m": 90 * m,
		"1h30m": 90 * m, "": -1, "-1": -1, "1:2:3:4": -1, "1-2:3:4:5": -1, "x": -1, "99999999": -1, "-5m": -1, "1.5": -1, "0": 0, "999999-23": -1,
	} {
		got, err := Time(text, time.Minute, time.Minute)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for text, want := range map[string]int64{
		"512": 512 << 20, "512M": 512 << 20, "4g": 4 << 30, "4GiB": 4 << 30, "4gb": 4 << 30, "1024k": 1 << 20, "1t": 1 << 40, "100b": 100, "": -1, "g": -1, "4x": -1, "4gx": -1, "-4g": -1, "4.5g": -1,
		"99999999999999999999": -1, "9000000t": -1,
	} {
		got, err := Memory(text, 1<<20)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestNoRangeAllowsNothing(t *testing.T) {
	if (Range{}).Holds(0) {
		t.Error("no range allows something")
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"*", "", true},
		{"a*", "abc", true},
		{"*c", "abc", true},
		{"a*c", "abc", true},
		{"a*c", "ab", false},
		{"a*b*c", "a1b2c", true},
		{"a*b*c", "a1c", false},
		{"a**", "a", true},
		{"ab*b", "ab", false},
		{"", "", true},
		{"", "a", false},
		{"*a*", "bab", true},
	} {
		if got := match(c.pattern, c.text); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.text, got)
		}
	}
}

func TestWordsAreSplitAsAShellDoes(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil, "  ": nil, "a  b\tc\n": {"a", "b", "c"}, `a' b 'c`: {"a b c"}, `"a b" ''`: {"a b", ""}, `a\ b`: {"a b"}, `"a\"b\\c\d"`: {`a"b\c\d`}, `'a\b'`: {`a\b`},
		"$HOME `x` $(y) *": {"$HOME", "`x`", "$(y)", "*"}, "a;b|c>d": {"a;b|c>d"},
	} {
		if got, err := Words(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"'", `"a`, `a\`} {
		if got, err := Words(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.StringMatching(`[ -&(-~]{0,12}`)).Draw(t, "words")
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = "'" + w + "'"
		}
		if got, err := Words(strings.Join(quoted, " ")); err != nil || !slices.Equal(got, words) && len(words) > 0 {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

// within returns an error if a shape has what the rules don't allow.
func within(r Rules, s tranter.Shape) error {
	a, b := r.Allow, r.Base
	for _, f := range []struct {
		name      string
		got, base int64
		allowed   Range
	}{
		{"nodes", int64(s.Nodes), int64(b.Nodes), a.Nodes},
		{"cpus", int64(s.CPUs), int64(b.CPUs), a.CPUs},
		{"gpus", int64(s.GPUs), int64(b.GPUs), a.GPUs},
		{"memory", s.Memory, b.Memory, a.Memory},
	} {
		if f.got != f.base && !f.allowed.Holds(f.got) {
			return fmt.Errorf("%s %d", f.name, f.got)
		}
	}
	if s.Walltime > r.Max {
		return fmt.Errorf("walltime %s", s.Walltime)
	}
	if s.Partition != b.Partition && s.Partition != "gpu" || s.Account != "" || s.QOS != "" || s.Exclusive {
		return fmt.Errorf("%+v", s)
	}
	for _, o := range s.Options {
		if !strings.HasPrefix(o, "--hint=") {
			return fmt.Errorf("option %q", o)
		}
	}
	return nil
}

func narrow(scheduler string) Rules {
	return Rules{
		Scheduler: scheduler, Base: tranter.Shape{CPUs: 1, Partition: "main"}, Max: 10 * time.Hour, Margin: time.Minute,
		Allow: Allow{
			Nodes: Range{1, 2, true}, CPUs: Range{1, 8, true}, GPUs: Range{0, 1, true}, Memory: Range{1 << 20, 1 << 33, true}, Walltime: Range{0, int64(20 * time.Hour), true},
			Partitions: []string{"gpu"}, Options: []string{"--hint=*"},
		},
	}
}

func TestWhateverIsAskedForNothingElseIsHad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flag := rapid.SampledFrom([]string{"-N", "-n", "-c", "--mem=", "--mem-per-cpu", "-p", "--partition=", "--gpus", "--gres=gpu:", "-t", "--exclusive", "-A", "--hint=", "--uid=", "-l", "-q", "-W", "--x"})
		value := rapid.OneOf(rapid.SampledFrom([]string{"1", "2", "9", "main", "gpu", "1:00:00", "4G", "nodes=1:ppn=2", "a100:1", "99999999", "-1", ""}), rapid.StringMatching(`[ -~]{0,6}`))
		var words []string
		for range rapid.IntRange(0, 4).Draw(t, "flags") {
			words = append(words, flag.Draw(t, "flag")+rapid.SampledFrom([]string{"", " "}).Draw(t, "gap")+value.Draw(t, "value"))
		}
		vs := variables("SCHEDULER_PARAMETERS=" + strings.Join(words, " "))
		for _, name := range []string{"CPUS", "MEMORY", "PARTITION", "TIME", "OPTIONS"} {
			if rapid.IntRange(0, 4).Draw(t, "given") == 0 {
				vs = append(vs, tranter.Variable{Key: "TRANTER_BATCH_" + name, Value: value.Draw(t, name)})
			}
		}
		r := narrow(rapid.SampledFrom([]string{"slurm", "pbs", "lsf", "flux"}).Draw(t, "scheduler"))
		s, _, err := Shape(r, Job{Variables: vs, Timeout: time.Hour})
		var mistake *Error
		if err != nil && (!errors.As(err, &mistake) || mistake.Variable == "" || len(err.Error()) > 2000) {
			t.Fatalf("error %v", err)
		}
		if err == nil && within(r, s) != nil {
			t.Fatal(within(r, s))
		}
	})
}

func FuzzParameters(f *testing.F) {
	for _, words := range []string{"-p gpu -N2 --mem=4G", "-l select=2:ncpus=4:mem=8gb,walltime=1:00:00", "--gres=gpu:a100:2 -t 1-2:3:4", "'a b' \"c\\\"\" \\", "--uid=0 --hint=x"} {
		for _, scheduler := range []string{"slurm", "pbs", "lsf", "flux"} {
			f.Add(scheduler, words)
		}
	}
	f.Fuzz(func(t *testing.T, scheduler, words string) {
		r := narrow(scheduler)
		for _, name := range []string{"SCHEDULER_PARAMETERS", "TRANTER_BATCH_OPTIONS", "TRANTER_BATCH_MEMORY", "TRANTER_BATCH_TIME", "CI_SLURM_GRES", "CI_SLURM_NTASKS"} {
			s, _, err := Shape(r, Job{Variables: []tranter.Variable{{Key: name, Value: words}}})
			if err == nil {
				err = within(r, s)
				if err != nil {
					t.Fatalf("%s=%q: %v", name, words, err)
				}
			}
		}
	})
}

func TestOneNodeAndOneProcessorMayBeAskedForWithoutBeingAllowed(t *testing.T) {
	t.Parallel()
	job := Job{Variables: []tranter.Variable{{Key: "SCHEDULER_PARAMETERS", Value: "--nodes=1 --ntasks=1 -t 5"}}}
	rules := Rules{Allow: Allow{Walltime: Range{Min: 0, Max: int64(time.Hour), Given: true}}}
	got, _, err := Shape(rules, job)
	if want := (tranter.Shape{Walltime: 5 * time.Minute}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	rules.Base.CPUs = 4
	if _, _, err := Shape(rules, job); err == nil {
		t.Error("fewer processors than configured could be asked for")
	}
}
