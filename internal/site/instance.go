package site

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter/internal/config"
)

// instance is a runner whose sections are being read.
type instance struct {
	*parser
	layers

	runner    *Runner
	variables map[string]string
}

// fill reads the runner's sections.
func (n *instance) fill() {
	n.checkTables()
	how := n.way(n.layers)
	if how == byLaunch {
		n.launch()
	}
	if v := n.section("runner"); v.IsTable() || how != here {
		n.settings(v, how)
		return
	}
	n.runner.Section = config.DefaultRunner()
	n.runner.Section.Name = n.runner.Name
}

// checkTables reports sections that are none.
func (n *instance) checkTables() {
	for _, layer := range n.all() {
		for _, key := range []string{"launch", "executor", "runner", "batch"} {
			_ = n.table(layer, key)
		}
	}
}

func (n *instance) decodeSection(v config.Value, path string, into any) {
	n.problems = append(n.problems, n.files.Decode(v, path, fileTable{}, into)...)
}

func (n *instance) launch() {
	v := n.section("launch")
	v = n.expanded("launch", v, launchTable{})
	var t launchTable
	n.decodeSection(v, "launch", &t)
	if t.Executable == "" && !wrong(v.Find("executable")) {
		n.report(config.Error, v, "launch.executable", "is missing", "Write executable = \"sbatch\", or remove the section.")
	}
	n.runner.Launch = &Launch{Executable: t.Executable, Args: t.Args, Workdir: t.Workdir, Stdin: t.Stdin, Timeout: t.Timeout, GroupSize: t.GroupSize}
}

// ours are keys of a [[runners]] section that come from elsewhere.
func ours() []string {
	return []string{"name", "url", "token", "token_file", "id", "token_obtained_at", "token_expires_at", "batch"}
}

// settings reads [runner] and, for jobs in batch jobs of ours, [batch], and what [executor] makes of them.
func (n *instance) settings(v config.Value, how way) {
	if !v.IsTable() {
		v = n.at.Empty()
	}
	for _, key := range ours() {
		if at := v.Find(key); at.Exists() {
			hint := "It comes from what the site file says elsewhere: remove it."
			if key == "batch" {
				hint = "Write [batch], without runner before it."
			}
			n.report(config.Error, at, "runner."+key, "can't be given here", hint)
		}
	}
	v = n.expanded("runner", v.Without(ours()...), config.Runner{})
	v = v.With("name", n.at.WithText(n.runner.Name))
	if how == byBatch {
		v = v.With("batch", n.batch())
	}
	given, problems := n.files.Runner(v, "runner", fileTable{})
	n.take(problems, how, nil)
	n.runner.given = n.stock(v)
	if native := n.native(v); native != v {
		before := problems
		given, problems = n.files.Runner(native, "runner", fileTable{})
		n.take(problems, how, before)
	}
	n.runner.Section = given
}

// take takes over problems of a runner's settings, except for those of keys about which something has been said before.
func (n *instance) take(problems []config.Problem, how way, before []config.Problem) {
	for _, p := range problems {
		if slices.ContainsFunc(before, func(b config.Problem) bool { return b.Key == p.Key && b.Line == p.Line && b.File == p.File }) {
			continue
		}
		if rest, ok := strings.CutPrefix(p.Key, "runner.apptainer."); ok && !n.section("runner").Find("apptainer").Exists() {
			p.Key = "executor." + strings.NewReplacer("executable", "apptainer_executable", "mounts", "mount").Replace(rest)
		}
		p.Key = strings.Replace(p.Key, "runner.batch", "batch", 1)
		for _, text := range []*string{&p.Text, &p.Hint} {
			*text = strings.ReplaceAll(*text, "[runner.batch", "[batch")
		}
		if p.NotBuilt && how == byLaunch {
			if p.Severity != config.Error {
				continue // what is launched may be the stock runner
			}
			p.Severity = config.Warning
			p.Hint = "It works if the command starts a runner that has it."
		}
		n.problems = append(n.problems, p)
	}
}

// batch returns [batch], with what the site knows about jobs that wait.
func (n *instance) batch() config.Value {
	v := n.expanded("batch", n.section("batch"), config.Batch{})
	if order, _ := v.Find("order").Text(); order == "take-first" {
		return v
	}
	pending := v.Find("pending")
	if pending.Exists() && !pending.IsTable() {
		return v
	}
	if !pending.Exists() {
		pending = v.Empty()
	}
	if token := n.site.Token.Reveal(); token != "" && !pending.Find("token").Exists() {
		pending = pending.With("token", v.WithText(token))
	}
	if !pending.Find("projects").Exists() && !pending.Find("groups").Exists() {
		for _, kind := range []string{ScopeProject, ScopeGroup} {
			if list := pathsOf(kind, n.runner.Pending); len(list) > 0 {
				pending = pending.With(kind+"s", v.WithList(list))
			}
		}
	}
	if !pending.Find("interval").Exists() {
		pending = pending.With("interval", v.WithText(n.site.Poll.String()))
	}
	return v.With("pending", pending)
}

// isOurs tells whether a program of [runner.custom] is our own executor (hpc, section 1.7).
func (n *instance) isOurs(custom config.Value, stage string) bool {
	program, _ := custom.Find(stage + "_exec").Text()
	args := bridgeArgs(texts(custom.Find(stage + "_args")))
	return program == n.site.This && len(args) > 0 && args[0] == "executor"
}

func texts(list config.Value) []string {
	var out []string
	for _, v := range list.Items() {
		text, _ := v.Text()
		out = append(out, text)
	}
	return out
}

// bridgeArgs takes the options off that the bridge has before its commands: they say where its files are.
func bridgeArgs(args []string) []string {
	for len(args) > 0 && slices.ContainsFunc([]string{"--config-file", "--data-dir", "--generated-config-file"}, func(name string) bool {
		return args[0] == name || strings.HasPrefix(args[0], name+"=")
	}) {
		if !strings.Contains(args[0], "=") && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	return args
}

// native returns the settings with our own executor in the place of its programs, and [executor] as its settings.
func (n *instance) native(v config.Value) config.Value {
	executor, _ := v.Find("executor").Text()
	asCustom := executor == "custom" && n.isOurs(v.Find("custom"), "run")
	if executor != "apptainer" && !asCustom {
		return v
	}
	section := n.section("executor")
	if !section.IsTable() {
		if asCustom {
			n.report(config.Error, v.Find("custom"), "executor", "is missing: runner.custom names our executor, whose settings it holds", "Write [executor] with image_dir and pull_policy.")
		}
		section = n.at.Empty()
	}
	section = n.expanded("executor", section, executorTable{})
	var t executorTable
	n.decodeSection(section, "executor", &t)
	for _, key := range []string{"builds_dir", "image_dir", "image_cache_dir", "image_tmp_dir", "apptainer_executable"} {
		if text, _ := section.Find(key).Text(); strings.Contains(text, "$") {
			n.report(config.Warning, section.Find(key), "executor."+key, "has a variable that only a job knows: it is replaced by \"tranter executor\" only, not where jobs are run without it", "Give it a value with :-, or one from config_variables.")
		}
	}
	own := v.Find("apptainer")
	apptainer := own.Over(apptainerTable(section))
	if dir := section.Find("builds_dir"); dir.Exists() {
		v = v.With("builds_dir", dir)
	}
	return v.Without("custom").With("executor", v.Find("executor").WithText("apptainer")).With("apptainer", apptainer)
}

// apptainerTable is [executor] under the keys of [runners.apptainer].
func apptainerTable(section config.Value) config.Value {
	out := section.Empty()
	for from, to := range map[string]string{
		"image_dir": "image_dir", "image_cache_dir": "image_cache_dir", "image_tmp_dir": "image_tmp_dir",
		"apptainer_executable": "executable", "description": "description", "gpu_amd": "gpu_amd", "gpu_nvidia": "gpu_nvidia",
	} {
		v := section.Find(from)
		if on, ok := v.Bool(); ok {
			v = v.WithText(strconv.FormatBool(on))
		}
		if text, ok := v.Text(); ok {
			out = out.With(to, v.WithText(jobNames(text)))
		}
	}
	if v := section.Find("pull_policy"); v.Exists() {
		out = out.With("pull_policy", v.AsList())
	}
	if v := section.Find("mount"); v.IsList() {
		mounts := texts(v)
		for i := range mounts {
			mounts[i] = jobNames(mounts[i])
		}
		out = out.With("mounts", v.WithList(mounts))
	}
	program, _ := section.Find("apptainer_executable").Text()
	runtime := map[string]string{"singularity": "singularity", "ch-run": "charliecloud", "bwrap": "bubblewrap"}[path.Base(program)]
	if runtime != "" {
		out = out.With("runtime", section.Find("apptainer_executable").WithText(runtime))
	}
	return out
}

// jobNames gives variables of the job the names that they have in the job: custom executors see them with a prefix.
func jobNames(text string) string {
	return strings.NewReplacer("$CUSTOM_ENV_", "$", "${CUSTOM_ENV_", "${").Replace(text)
}

// stock returns the settings as the stock runner gets them: without what it does not know, with our executor as programs that
// it can start, which are told where the site file is.
func (n *instance) stock(v config.Value) config.Section {
	executor, _ := v.Find("executor").Text()
	out := n.files.ForGitLabRunner(v.Without("name"), "runners").Section()
	custom := v.Find("custom")
	for _, stage := range []string{"config", "prepare", "run", "cleanup"} {
		switch {
		case executor == "apptainer":
			args := []string{"executor", "--site", n.site.Path, n.runner.Name, stage}
			below, _ := out.Get("custom").(config.Section)
			out = out.With("executor", "custom").With("custom", below.With(stage+"_exec", n.site.This).With(stage+"_args", args))
		case executor == "custom" && n.isOurs(custom, stage):
			args := bridgeArgs(texts(custom.Find(stage + "_args")))
			if !slices.Contains(args, "--site") {
				args = slices.Insert(slices.Clone(args), 1, "--site", n.site.Path)
			}
			below, _ := out.Get("custom").(config.Section)
			out = out.With("custom", below.With(stage+"_args", args))
		}
	}
	return out
}
