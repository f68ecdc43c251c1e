package config

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

const apptainerKey = "runners.apptainer."

// checkApptainer checks what the keys of a [runners.apptainer] mean together.
func checkApptainer(d *checker, r *Runner, n *node) {
	a, s := &r.Apptainer, n.nearest("apptainer")
	if !slices.Contains([]string{"", "bash", "sh"}, r.Shell) {
		d.reportAt(Error, n.nearest("shell").at, Problem{Key: "runners.shell", Found: r.Shell, Text: "the executor apptainer has no scripts for this shell", Hint: "Use bash or sh."})
	}
	apptainer := a.Runtime == "apptainer" || a.Runtime == "singularity"
	if a.ImageForm == "sif" && !apptainer {
		d.report(Error, s.nearest("image_form"), apptainerKey+"image_form", "sif is not possible with runtime "+a.Runtime, "Write \"directory\" or \"auto\".")
	}
	checkApptainerPaths(d, a, s)
	checkApptainerGPUs(d, a, s, apptainer)
	checkApptainerLists(d, a, s)
	checkApptainerOptions(d, a, s)
}

func checkApptainerGPUs(d *checker, a *Apptainer, s *node, apptainer bool) {
	for key, text := range map[string]string{"gpu_nvidia": a.GPUNvidia, "gpu_amd": a.GPUAMD} {
		switch {
		case text != "" && text != "true" && text != "false" && !strings.Contains(text, "$"):
			d.reportAt(Error, s.nearest(key).at, Problem{Key: apptainerKey + key, Found: text, Text: "is neither true nor false nor a variable", Hint: "Write \"true\" for all jobs, or \"$GPU\" to let a variable of the job say so."})
		case text != "" && text != "false" && !apptainer:
			d.report(Warning, s.nearest(key), apptainerKey+key, "has no effect with runtime "+a.Runtime, "Give the devices and libraries with mounts.")
		}
	}
}

func checkApptainerLists(d *checker, a *Apptainer, s *node) {
	if l := a.ServicesLimit; l >= 0 && l < len(a.Services) {
		d.report(Warning, s.nearest("services_limit"), apptainerKey+"services_limit", fmt.Sprintf("is less than the %d services that each job gets from here: every job will fail", len(a.Services)), "Raise it, or remove services.")
	}
	if len(a.AllowedPullPolicies) > 0 && !slices.ContainsFunc(a.PullPolicy, func(p string) bool { return slices.Contains(a.AllowedPullPolicies, p) }) {
		d.report(Warning, s.nearest("allowed_pull_policies"), apptainerKey+"allowed_pull_policies", "allows none of those in pull_policy: jobs that ask for no other will fail", "Add one of them.")
	}
	for i, service := range a.Services {
		if entry := element(s.nearest("services"), i); service.Name == "" && !given(entry, "name") {
			d.missing(entry, "apptainer.services.name", "Name the service's image.")
		}
	}
}

func checkApptainerPaths(d *checker, a *Apptainer, s *node) {
	for _, p := range []struct{ key, value string }{{"image_dir", a.ImageDir}, {"image_cache_dir", a.ImageCacheDir}, {"image_tmp_dir", a.ImageTmpDir}} {
		if p.value != "" && !path.IsAbs(p.value) {
			d.reportAt(Error, s.nearest(p.key).at, Problem{Key: apptainerKey + p.key, Found: p.value, Text: "is not an absolute path", Hint: "Jobs work in different directories; write the whole path."})
		}
	}
	if strings.Contains(a.Executable, "/") && !path.IsAbs(a.Executable) {
		d.reportAt(Error, s.nearest("executable").at, Problem{Key: apptainerKey + "executable", Found: a.Executable, Text: "is a relative path", Hint: "Write the whole path, or a name that is in PATH."})
	}
	for i, registry := range a.InsecureRegistries {
		if registry == "" || strings.ContainsAny(registry, "/ @") {
			d.reportAt(Error, element(s.nearest("insecure_registries"), i).at, Problem{Key: apptainerKey + "insecure_registries", Found: registry, Text: "is not a registry", Hint: "Write host or host:port, without http:// and without a path."})
		}
	}
}

// checkApptainerOptions warns of arguments that have keys of their own.
func checkApptainerOptions(d *checker, a *Apptainer, s *node) {
	keys := map[string]string{
		"--nv": "gpu_nvidia", "--rocm": "gpu_amd", "-B": "mounts", "--bind": "mounts", "-b": "mounts", "--mount": "mounts", "--ro-bind": "mounts",
		"--env": "environment", "--env-file": "environment", "--set-env": "environment", "--setenv": "environment", "--writable-tmpfs": "writable", "-w": "writable", "--writable": "writable",
	}
	for i, o := range a.Options {
		name, _, _ := strings.Cut(o, "=")
		if key := keys[name]; key != "" {
			d.reportAt(Note, element(s.nearest("options"), i).at, Problem{Key: apptainerKey + "options", Found: o, Text: "has a key of its own", Hint: "Use " + key + "."})
		}
	}
}
