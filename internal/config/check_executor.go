package config

import (
	"slices"
	"strings"
)

// executorSections returns the names of the sections that an executor uses.
func executorSections(executor string) []string {
	switch executor {
	case "docker", "docker-windows":
		return []string{"docker"}
	case "docker+machine":
		return []string{"docker", "machine"}
	case "docker-autoscaler":
		return []string{"docker", "autoscaler"}
	case "instance":
		return []string{"autoscaler", "instance"}
	case "parallels", "virtualbox":
		return []string{executor, "ssh"}
	case "custom": // its programs may be ours, which read the other section
		return []string{"custom", "apptainer"}
	case "ssh", "kubernetes", "apptainer":
		return []string{executor}
	default:
		return nil
	}
}

func allExecutorSections() []string {
	return []string{"docker", "machine", "autoscaler", "instance", "custom", "apptainer", "ssh", "parallels", "virtualbox", "kubernetes"}
}

// executorBuilt tells whether jobs can be run with an executor.
func executorBuilt(executor string) bool {
	return slices.Contains([]string{"shell", "custom", "docker", "docker+machine", "apptainer"}, executor)
}

func (d *checker) knownExecutor(name string) bool {
	return slices.Contains(d.schema.field("runners").sub.field("executor").enum(), name)
}

// checkExecutor checks the executor's name and what it needs.
func (d *checker) checkExecutor(r *Runner, n *node) {
	at := n.nearest("executor")
	if r.Executor == "" {
		if !given(n, "executor") {
			d.missing(n, "executor", "Write executor = \"shell\".")
		}
		return
	}
	if !d.knownExecutor(r.Executor) {
		return // reported as an unknown value
	}
	if !executorBuilt(r.Executor) {
		d.reportAt(Error, at.at, Problem{Key: "runners.executor", Found: r.Executor, NotBuilt: true, Text: "this executor is not built yet", Hint: "Use executor = \"docker\" or \"shell\", or leave this runner to GitLab Runner."})
	}
	uses := executorSections(r.Executor)
	checkUnused(d, r.Executor, n)
	if slices.Contains(uses, "docker") && r.Docker.Image == "" {
		d.report(Warning, n.nearest("docker"), "runners.docker.image", "is missing", "Jobs that name no image will fail; write image = \"alpine:latest\".")
	}
	if r.Executor == "docker" || r.Executor == "docker+machine" {
		checkDocker(d, r, n)
	}
	if slices.Contains(uses, "autoscaler") {
		d.checkAutoscaler(&r.Autoscaler, n.nearest("autoscaler"))
	}
	d.checkNeeds(r, n)
}

// checkUnused warns of built sections that the executor does not look at; reportUnbuilt warns of others.
func checkUnused(d *checker, executor string, n *node) {
	for _, section := range []string{"docker", "machine", "custom", "apptainer"} {
		if at := n.find(section); at != nil && len(at.list) > 0 && !usesSection(executor, section) {
			d.report(Warning, at, "runners."+section, "has no effect with executor "+executor, "Remove the section, or choose another executor.")
		}
	}
}

// checkNeeds checks the keys without which the smaller executors cannot work.
func (d *checker) checkNeeds(r *Runner, n *node) {
	need := func(value, key, hint string) {
		if value == "" {
			d.missing(n.nearest(r.Executor), r.Executor+"."+key, hint)
		}
	}
	switch r.Executor {
	case "custom":
		need(r.Custom.RunExec, "run_exec", "Name the program that runs a job's scripts.")
		d.checkCustom(r, n)
	case "apptainer":
		checkApptainer(d, r, n)
	case "ssh":
		need(r.SSH.Host, "host", "Name the host to connect to.")
	case "parallels":
		need(r.Parallels.BaseName, "base_name", "Name the virtual machine to clone.")
	case "virtualbox":
		need(r.VirtualBox.BaseName, "base_name", "Name the virtual machine to clone.")
	}
}

// checkCustom checks what the custom executor can't work with (contract 10).
func (d *checker) checkCustom(r *Runner, n *node) {
	if !slices.Contains([]string{"", "bash", "sh"}, r.Shell) {
		d.reportAt(Error, n.nearest("shell").at, Problem{Key: "runners.shell", Found: r.Shell, Text: "the executor custom has no scripts for this shell yet", Hint: "Use bash or sh."})
	}
	for _, dir := range []struct{ key, path string }{{"builds_dir", r.BuildsDir}, {"cache_dir", r.CacheDir}} {
		switch {
		case dir.path == "" && r.Custom.ConfigExec == "":
			d.report(Warning, n, "runners."+dir.key, "is missing", "Jobs will fail: set it, or let a config_exec print it.")
		case dir.path != "" && !strings.HasPrefix(dir.path, "/"):
			d.reportAt(Error, n.nearest(dir.key).at, Problem{Key: "runners." + dir.key, Found: dir.path, Text: "is no absolute path", Hint: "Name the directory where the job runs, such as \"/builds\"."})
		}
	}
	for _, program := range []struct{ key, path string }{
		{"config_exec", r.Custom.ConfigExec}, {"prepare_exec", r.Custom.PrepareExec}, {"run_exec", r.Custom.RunExec}, {"cleanup_exec", r.Custom.CleanupExec},
	} {
		if strings.Contains(program.path, "/") && !strings.HasPrefix(program.path, "/") {
			d.reportAt(Warning, n.nearest("custom", program.key).at, Problem{Key: "runners.custom." + program.key, Found: program.path, Text: "is a relative path", Hint: "It starts at a temporary directory of each job: write an absolute path."})
		}
	}
}

// element returns an element of a list, or n if there is none.
func element(n *node, i int) *node {
	if n.kind == kindArray && i < len(n.list) {
		return n.list[i]
	}
	return n
}

func (d *checker) checkAutoscaler(a *Autoscaler, n *node) {
	if a.Plugin == "" {
		d.missing(n, "autoscaler.plugin", "Name the fleeting plugin.")
	}
	if a.CapacityPerInstance == 0 {
		d.report(Warning, n.nearest("capacity_per_instance"), "runners.autoscaler.capacity_per_instance", "is missing or 0", "Write capacity_per_instance = 1.")
	}
	if s := a.VMIsolation; s.Enabled && s.NestingHost == "" {
		d.report(Warning, n.nearest("vm_isolation"), "runners.autoscaler.vm_isolation.nesting_host", "is missing", "Name the address of the nesting daemon.")
	}
}
