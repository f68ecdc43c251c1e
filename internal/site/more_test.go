package site

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter/internal/config"
)

const head = "name = \"s\"\nurl = \"https://gitlab.example.com\"\nmanagement_token = \"glpat-hunter2hunter2\"\nproject = \"a/b\"\n"

// good parses a file that has no errors.
func good(t *testing.T, text string) Site {
	t.Helper()
	s, problems := Parse(around("/etc/tranter/site.toml", []byte(text)))
	if config.Failed(problems, false) {
		t.Fatalf("%s", listing(problems))
	}
	return s
}

// complaint parses a file and expects one error with this text in it.
func complaint(t *testing.T, text, want string) {
	t.Helper()
	_, problems := Parse(around("/etc/tranter/site.toml", []byte(text)))
	if !slices.ContainsFunc(problems, func(p config.Problem) bool { return strings.Contains(p.String(), want) }) {
		t.Errorf("nothing says %q:\n%s", want, listing(problems))
	}
}

func names(rs []Runner) (out []string) {
	for _, r := range rs {
		out = append(out, r.Name)
	}
	return out
}

func TestTheExampleIsGood(t *testing.T) {
	s, problems := Parse(around("/etc/tranter/site.toml", Example()))
	if len(problems) != 1 || !strings.Contains(problems[0].Text, "placeholder") {
		t.Errorf("only the token is to be filled in:\n%s", listing(problems))
	}
	if got := names(s.Runners); !slices.Equal(got, []string{"cpu", "gpu-a100", "gpu-h100"}) {
		t.Errorf("runners %q", got)
	}
	gpu := s.Runners[1].Section
	if gpu.Batch.GPUs != 1 || gpu.Batch.GPUType != "a100" || gpu.Batch.Partition != "accel" || gpu.Executor != "apptainer" {
		t.Errorf("the shard does not show in %+v", gpu.Batch)
	}
	// What is behind a # is good as well, one by one or together.
	text := string(Example())
	for from, to := range map[string]string{"# [launch]": "[launch]", "# executable": "executable", "# args": "args", "# timeout =": "timeout =", "# group_size": "group_size", "# stdin": "stdin", "# #!/": "#!/", "# #SB": "#SB", "# echo": "echo", "# $THIS": "$THIS", "# '''": "'''", "[batch]\nscheduler = \"slurm\"": "[batch]\nscheduler = \"\"", "# places": "places", "# linger": "linger", "# locked": "locked", "# paused": "paused", "# maximum_timeout": "maximum_timeout", "# maintenance_note": "maintenance_note", "# concurrent": "concurrent"} {
		if !strings.Contains(text, from) {
			t.Errorf("the example has no %q", from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	s = good(t, text)
	if s.Runners[0].Launch == nil || s.Runners[0].Section.Batch.Scheduler != "" {
		t.Error("the launch command is not used")
	}
}

func TestALaunchCommandIsFilledIn(t *testing.T) {
	s := good(t, head+`
[runners.r]
tags = ["r"]
config_variables = { P = "a$b" }
[launch]
executable = "~/bin/${EXE:-sbatch}"
args = ["-p", "$P", "$CONFIG", "$$NUM_JOBS", { env = "HOME" }]
stdin = "n=$NUM_JOBS c=$CONFIG name=$NAME this=$THIS $$X"
group_size = 3
timeout = 5
[runner]
executor = "shell"
`)
	c, err := s.Runners[0].Launch.Command(2, "/x/$NAME.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Command{
		Executable: "/home/ci/bin/sbatch", Args: []string{"-p", "a$b", "/x/$NAME.toml", "$NUM_JOBS", "/home/ci"},
		Stdin: "n=2 c=/x/$NAME.toml name=r this=/usr/bin/tranter $X", Timeout: 5 * time.Second, GroupSize: 3,
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Runners[0].Launch.Command(4, "/x"); err == nil {
		t.Error("more jobs than group_size are launched at once")
	}
}

func TestWhatIsNearerToTheRunnerDecidesHowJobsRun(t *testing.T) {
	s := good(t, head+`
[launch]
executable = "sbatch"
[runner]
executor = "shell"
[shards.native.batch]
scheduler = "slurm"
walltime = "1h"
[shards.off]
tags = ["off"]
batch = { scheduler = "" }
[runners.a]
tags = ["a"]
[runners.b]
tags = ["b"]
shard = "native"
[runners.c]
tags = ["c"]
shard = "native"
launch = { args = ["x"] }
`)
	var got []string
	for _, r := range s.Runners {
		how := "here"
		switch {
		case r.Launch != nil && r.Section.Batch.Scheduler == "":
			how = strings.Join(append([]string{r.Launch.Executable}, r.Launch.Args...), " ")
		case r.Launch == nil && r.Section.Batch.Scheduler != "":
			how = r.Section.Batch.Scheduler
		}
		got = append(got, r.Name+" "+how)
	}
	if want := []string{"a sbatch", "b slurm", "c sbatch x", "off here"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestScopesOfARunnerReplaceThoseOfTheFile(t *testing.T) {
	s := good(t, head+`
projects = ["a/c", "A/B"]
[defaults]
groups = ["g"]
[runners.one]
tags = ["one"]
instance = true
[runners.two]
tags = ["two"]
project = "p/q"
groups = ["g/h-i", "k"]
[runners.three]
tags = ["three"]
`)
	var got []string
	for _, r := range s.Runners {
		got = append(got, r.Name+": "+r.Scope.String())
	}
	want := []string{"one: instance", "two: project p/q", "two-g-h-i-cfb6af: group g/h-i", "two-k: group k", "three: group g"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Scope{{ScopeProject, "a/b"}, {ScopeProject, "a/c"}}, s.Scopes); diff != "" {
		t.Error(diff)
	}
}

func TestSettingsOfAnotherExecutorAreNotInherited(t *testing.T) {
	s := good(t, head+`
[runner]
executor = "docker"
limit = 3
[runner.docker]
image = "alpine"
[runners.d]
tags = ["d"]
[runners.s]
tags = ["s"]
runner = { executor = "shell" }
`)
	if r := s.Runners[1].Section; r.Executor != "shell" || r.Docker.Image != "" || r.Limit != 3 {
		t.Errorf("%+v", r)
	}
	c := Config(s, tokens(s))
	if c.Concurrent != 6 || len(c.Runners) != 2 || c.Runners[1].Token == "" || c.Runners[1].URL != "https://gitlab.example.com" {
		t.Errorf("concurrent %d, runners %d", c.Concurrent, len(c.Runners))
	}
}

func TestAManagerTakesNoJobsThatACommandIsLaunchedFor(t *testing.T) {
	s, _ := sample(t, "testdata/samples/bridge.toml")
	if c := Config(s, tokens(s)); len(c.Runners) != 0 {
		t.Errorf("%d runners would take jobs here", len(c.Runners))
	}
	s, _ = sample(t, "testdata/samples/shards.toml")
	known := tokens(s)
	delete(known, "small")
	c := Config(s, known)
	if len(c.Runners) != len(s.Runners)-1 {
		t.Errorf("%d runners", len(c.Runners))
	}
	for _, r := range c.Runners {
		first := r.Batch.Order == "allocate-first"
		if first != (r.Batch.Pending.Token == "glpat-hunter2fromafile") || first != (r.Batch.Pending.Interval == 30*time.Second) {
			t.Errorf("runner %s sees jobs with %+v", r.Name, r.Batch.Pending)
		}
	}
}

func TestABridgeCommandLineGetsThePlaceOfTheSiteFile(t *testing.T) {
	s := good(t, head+`
[runners.r]
tags = ["r"]
[launch]
executable = "sbatch"
[executor]
image_dir = "/i"
pull_policy = "always"
apptainer_executable = "/opt/bin/singularity"
[runner]
executor = "custom"
builds_dir = "/b"
cache_dir = "/c"
[runner.custom]
run_exec = "$THIS"
run_args = ["--config-file", "x.toml", "--data-dir=y", "executor", "$NAME", "run"]
cleanup_exec = "/opt/own/cleanup"
cleanup_args = ["executor"]
`)
	text, err := RenderConfig(s, tokens(s))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`run_args = ["executor", "--site", "/etc/tranter/site.toml", "r", "run"]`, `cleanup_args = ["executor"]`, `executor = "custom"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if a := s.Runners[0].Section.Apptainer; a.Runtime != "singularity" || a.Executable != "/opt/bin/singularity" {
		t.Errorf("%+v", a)
	}
}

func TestMistakesAreExplained(t *testing.T) {
	const runner = "[runners.r]\ntags = [\"r\"]\n"
	for _, c := range []struct{ text, want string }{
		{head + runner + "[executor]\nimage_dir = \"/i\"\n[runner]\nexecutor = \"custom\"\n[runner.custom]\nrun_exec = \"/bin/run\"\nconfig_exec=\"/x\"\n[runner.batch]\nscheduler = \"slurm\"", "runner.batch: can't be given here"},
		{head + runner + "instance = true\n[batch]\nscheduler = \"slurm\"\nwalltime = \"1h\"\n[runner]\nexecutor = \"shell\"", "batch.pending.projects: is missing"},
		{head + runner + "[batch]\nscheduler = \"slurm\"\nwalltime = \"1h\"\n[runner]\nexecutor = \"docker\"", "can't run in batch jobs"},
		{head + runner + "[launch]\nargs = []\n[runner]\nexecutor = \"shell\"", "launch.executable: is missing"},
		{head + runner + "[launch]\nexecutable = \"x\"", "runner.executor: is missing"},
		{head + runner + "[runner]\nexecutor = \"custom\"\nbuilds_dir = \"/b\"\ncache_dir = \"/c\"\n[runner.custom]\nrun_exec = \"$THIS\"\nrun_args = [\"executor\", \"$NAME\", \"run\"]", "executor: is missing"},
		{head + runner + "[runner]\nexecutor = \"shell\"\nbuilds_dir = \"$GONE/x\"", "site.toml:9:15: error: runner.builds_dir: there is no variable GONE"},
		{head + runner + "[runners.s]\ntags = [\"s\"]\nconfig_variables = { X = \"1\" }\n[runner]\nexecutor = \"shell\"\nbuilds_dir = '''\n/a/$X'''", "site.toml:13:4: error: runner.builds_dir: there is no variable X for r"},
		{head + runner + "[launch]\nexecutable = \"$SLURM_BIN\"\n[runner]\nexecutor = \"shell\"", "Write $$SLURM_BIN"},
		{strings.Replace(head, "project = \"a/b\"\n", "", 1) + runner, "serves nothing"},
		{head + "hostname = \"h\"\n" + runner, "is given together with hostname"},
		{strings.Replace(head, "https://", "https://user@", 1) + runner, "is not the address of a server"},
		{head + runner + "group = \"/x\"", "is not a path in GitLab"},
		{head + "[runners.\"a b\"]\ntags = [\"r\"]\n", "is not a possible name"},
		{head + runner + "[runners.q]\ntags = [\"r\"]\ngroup = \"A\"\n", "has the same tags as r, in line 5"},
		{head + "management_token = 3\n" + runner, "management_token is given twice"},
	} {
		complaint(t, c.text, c.want)
	}
}

func TestRunnersThatDoNotMeetMayHaveTheSameTags(t *testing.T) {
	s := good(t, head+"[launch]\nexecutable = \"x\"\n[runner]\nexecutor = \"shell\"\n[runners.r]\ntags = [\"r\"]\n[runners.p]\ntags = [\"r\"]\nproject = \"a/c\"\n[runners.q]\ntags = [\"r\"]\ngroup = \"a/b\"\n[runners.o]\ntags = [\"r\"]\npaused = true\n")
	if len(s.Runners) != 4 {
		t.Errorf("%d runners", len(s.Runners))
	}
}

func TestADifferenceShowsChangedLinesWithoutSecrets(t *testing.T) {
	s := Site{hidden: []string{"hunter2"}}
	old := "a = 1\nb = 2\nc = 3\nd = 4\ntoken = \"glrt-12345\"\ne = 5\nf = 6\ng = 7\nh = 8\ni = \"hunter2\"\n"
	now := "a = 1\nb = 2\nc = 3\nd = 4\ntoken = \"glrt-67890\"\ne = 5\nf = 6\ng = 7\nh = 8\ni = \"hunter2!\"\nj = 1\n"
	want := []string{"  c = 3", "  d = 4", `- token = "******"`, `+ token = "******"`, "  e = 5", "  f = 6", "  g = 7", "  h = 8", `- i = "******"`, `+ i = "******!"`, "+ j = 1"}
	if diff := cmp.Diff(want, s.Difference(old, now)); diff != "" {
		t.Error(diff)
	}
	if lines := s.Difference(old, old); lines != nil {
		t.Errorf("%q", lines)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/samples/*.toml", "testdata/problems/*.toml"} {
		for _, path := range glob(f, pattern) {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add(Example())
	f.Add([]byte(head + "[runners]\na = 1\n[runners.b]\nlaunch = 3\nrunner = { batch = 1, custom = [] }\nbatch = { pending = 3, scheduler = \"slurm\" }\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		source := around("/etc/tranter/site.toml", data)
		s, problems := Parse(source)
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.File == "" || p.Text == "" {
				t.Fatalf("%v has no place", p)
			}
		}
		if config.Failed(problems, false) {
			return
		}
		text, err := RenderConfig(s, tokens(s))
		if err != nil {
			t.Fatal(err)
		}
		_, problems = config.Parse(config.Source{Name: "generated", Data: text})
		for _, p := range problems {
			if p.Severity == config.Error && !p.NotBuilt && !strings.HasSuffix(p.Key, "token") {
				t.Fatalf("%v in\n%s", p, text)
			}
		}
		for _, r := range s.Runners {
			if r.Launch == nil {
				continue
			}
			if _, err := r.Launch.Command(r.Launch.GroupSize, "/x"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := config.Write(s.Show()); err != nil {
			t.Fatal(err)
		}
	})
}
