package config

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// dockerChecker checks what the keys of a [runners.docker] mean together.
type dockerChecker struct {
	*checker
	r *Runner
	s *node // the section
}

func checkDocker(c *checker, r *Runner, n *node) {
	d := dockerChecker{c, r, n.nearest("docker")}
	s := d.s
	d.checkRisks()
	d.checkForeignImages()
	d.checkIdleKeys()
	d.checkNetwork()
	if l := r.Docker.ServicesLimit; l.Set && l.Value >= 0 && l.Value < len(r.Docker.Services) {
		d.report(Warning, s.nearest("services_limit"), "runners.docker.services_limit",
			fmt.Sprintf("is less than the %d services that each job gets from here: every job will fail", len(r.Docker.Services)), "Raise it, or remove services.")
	}
	for key, mounts := range map[string]map[string]string{"tmpfs": r.Docker.Tmpfs, "services_tmpfs": r.Docker.ServicesTmpfs} {
		for target := range mounts {
			if !path.IsAbs(target) {
				d.report(Error, s.nearest(key, target), "runners.docker."+key, "is not an absolute path", "Write the path in the container and its options: \"/tmp\" = \"rw,noexec\".")
			}
		}
	}
}

// checkIdleKeys warns of keys that others make void.
func (d dockerChecker) checkIdleKeys() {
	r, s := d.r, d.s
	x, plain := &r.Docker, DefaultRunner().Docker
	for _, k := range []struct {
		key           string
		void          bool
		without, hint string
	}{
		{"helper_image", x.DisableHelper && x.HelperImage != "", "with disable_helper", "Remove one of the two."},
		{"helper_image_flavor", x.DisableHelper && x.HelperImageFlavor != plain.HelperImageFlavor, "with disable_helper", "Remove one of the two."},
		{"cache_dir", x.DisableCache && x.CacheDir != "", "with disable_cache", "Remove one of the two."},
		{"registry_mirror_image", x.RegistryMirror != "start" && x.RegistryMirrorImage != plain.RegistryMirrorImage, "unless registry_mirror is \"start\"", "Write registry_mirror = \"start\", or remove it."},
		{"registry_mirror_remote", x.RegistryMirror != "start" && x.RegistryMirrorRemote != plain.RegistryMirrorRemote, "unless registry_mirror is \"start\"", "Write registry_mirror = \"start\", or remove it."},
	} {
		if k.void {
			d.report(Warning, s.nearest(k.key), "runners.docker."+k.key, "has no effect "+k.without, k.hint)
		}
	}
}

func (d dockerChecker) checkNetwork() {
	r, s := d.r, d.s
	const flag = "FF_NETWORK_PER_BUILD"
	on := r.FeatureFlags[flag]
	for _, entry := range r.Environment {
		if name, value, _ := strings.Cut(entry, "="); name == flag {
			on, _ = strconv.ParseBool(value)
		}
	}
	if on && r.Docker.NetworkMode != "" {
		d.report(Warning, s.nearest("network_mode"), "runners.docker.network_mode", "makes "+flag+" void: jobs get no network of their own", "Remove one of the two.")
	}
}

// risk is a setting that gives jobs power over the engine's host.
type risk struct {
	at     *node
	key    string
	what   string
	advice string // besides who may use the runner
	less   bool   // it makes nobody root there by itself
}

const (
	whoIsRoot = "any job that this runner takes can become root on the engine's host"
	whoHasIt  = "this holds for any job that this runner takes, and helps it to leave its container"
	onlyWhom  = "take only jobs of protected refs: in GitLab, make the runner protected (access level ref_protected) and let it run no untagged jobs"
)

// checkRisks warns of settings with which a job can leave its containers, and once more if there are several and nothing
// in the file limits what runs with them. Who may use a runner is not in the file: the text says where it is set.
func (d dockerChecker) checkRisks() {
	r, s := d.r, d.s
	all := slices.Concat(privilegeRisks(r, s), volumeRisks(r, s), deviceRisks(r, s), securityRisks(r, s), namespaceRisks(r, s))
	for _, k := range all {
		whom := whoIsRoot
		if k.less {
			whom = whoHasIt
		}
		d.report(Warning, k.at, "runners.docker."+k.key, k.what+": "+whom, k.advice+", or "+onlyWhom+".")
	}
	if len(all) > 1 && len(r.Docker.AllowedImages) == 0 {
		d.report(Warning, s, "runners.docker", fmt.Sprintf("%d settings give jobs power over the engine's host, and nothing here limits which images may use them", len(all)),
			"Whoever may push to a project that the runner serves has that power. Set allowed_images and allowed_services; in GitLab, make the runner protected, lock it to its projects, and let it run no untagged jobs.")
	}
}

func privilegeRisks(r *Runner, s *node) []risk {
	var out []risk
	x := &r.Docker
	if x.Privileged && len(x.AllowedPrivilegedImages) == 0 {
		out = append(out, risk{s.nearest("privileged"), "privileged", "every image may be privileged", "Name the images that need it in allowed_privileged_images", false})
	}
	key := "services_privileged"
	if !x.ServicesPrivileged.Set {
		key = "privileged"
	}
	if x.ServicesPrivileged.Or(x.Privileged) && len(x.AllowedPrivilegedServices) == 0 {
		out = append(out, risk{s.nearest(key), key, "every service may be privileged", "Name the services that need it in allowed_privileged_services", false})
	}
	return out
}

// volumeRisks finds directories and sockets of the host in whose hands the host is.
func volumeRisks(r *Runner, s *node) []risk {
	var out []risk
	for i, text := range r.Docker.Volumes {
		parts := strings.Split(text, ":")
		if len(parts) < 2 || !path.IsAbs(parts[0]) || !strings.Contains(parts[1], "/") {
			continue
		}
		source := path.Clean(parts[0])
		options := strings.Split(strings.Join(parts[2:], ","), ",")
		at := element(s.nearest("volumes"), i)
		switch {
		case slices.Contains([]string{"docker.sock", "podman.sock"}, path.Base(source)):
			out = append(out, risk{at, "volumes", "the engine's socket " + source + " is given to jobs", "Use a service such as docker:dind or a builder that needs no engine, or a rootless engine", false})
		case slices.Contains(options, "ro"):
		case slices.Contains([]string{"/", "/etc", "/root", "/run", "/var", "/var/lib", "/var/lib/docker", "/var/run", "/usr", "/boot", "/proc", "/sys", "/dev"}, source):
			out = append(out, risk{at, "volumes", "jobs may write to " + source + " of the host", "Give them a directory of their own, or add :ro", false})
		}
	}
	return out
}

// deviceRisks finds devices that hold what the host has.
func deviceRisks(r *Runner, s *node) []risk {
	var out []risk
	find := func(at *node, key, text string) {
		name, _, _ := strings.Cut(text, ":")
		for _, disk := range []string{"/dev/sd", "/dev/hd", "/dev/vd", "/dev/xvd", "/dev/nvme", "/dev/mmcblk", "/dev/dm-", "/dev/md", "/dev/mapper", "/dev/disk", "/dev/loop", "/dev/mem", "/dev/kmem", "/dev/port"} {
			if strings.HasPrefix(path.Clean(name), disk) {
				out = append(out, risk{at, key, name + " of the host is given to jobs", "Remove it", false})
				return
			}
		}
	}
	for i, text := range r.Docker.Devices {
		find(element(s.nearest("devices"), i), "devices", text)
	}
	for _, list := range s.nearest("services_devices").list {
		for i, text := range r.Docker.ServicesDevices[list.key] {
			find(element(list, i), "services_devices", text)
		}
	}
	return out
}

// securityRisks finds what takes away the walls of a container.
func securityRisks(r *Runner, s *node) []risk {
	var out []risk
	for key, list := range map[string][]string{"cap_add": r.Docker.CapAdd, "services_cap_add": r.Docker.ServicesCapAdd} {
		for i, text := range list {
			name := strings.TrimPrefix(strings.ToUpper(text), "CAP_")
			if slices.Contains([]string{"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "DAC_READ_SEARCH"}, name) {
				out = append(out, risk{element(s.nearest(key), i), key, "the capability " + name + " is given to jobs", "Give only the capabilities that they need", false})
			}
		}
	}
	for key, list := range map[string][]string{"security_opt": r.Docker.SecurityOpt, "services_security_opt": r.Docker.ServicesSecurityOpt} {
		for i, text := range list {
			name := strings.ToLower(strings.Replace(text, ":", "=", 1))
			if slices.Contains([]string{"seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined", "label=disable"}, name) {
				out = append(out, risk{element(s.nearest(key), i), key, name + " takes a wall between jobs and the host away", "Write a profile that allows what they need", true})
			}
		}
	}
	slices.SortFunc(out, func(a, b risk) int { return a.at.at - b.at.at })
	return out
}

// namespaceRisks finds namespaces that are the host's.
func namespaceRisks(r *Runner, s *node) []risk {
	var out []risk
	for _, mode := range []struct{ key, value, what string }{
		{"pid_mode", r.Docker.PIDMode, "jobs see and may signal the host's processes"},
		{"network_mode", r.Docker.NetworkMode, "jobs are in the host's network, with what listens on its loopback addresses"},
		{"ipcmode", r.Docker.IPCMode, "jobs share the host's memory segments"},
		{"userns_mode", r.Docker.UsernsMode, "root of a container is root of the host"},
	} {
		if mode.value == "host" {
			out = append(out, risk{s.nearest(mode.key), mode.key, mode.what, "Remove it", true})
		}
	}
	return out
}

// checkForeignImages tells, once in a file, of what pull policies do that ask no registry.
func (d dockerChecker) checkForeignImages() {
	r, s := d.r, d.s
	policies := slices.Concat(r.Docker.PullPolicy, OneOrMany(r.Docker.AllowedPullPolicies))
	i := slices.IndexFunc(policies, func(p string) bool { return p == "if-not-present" || p == "never" })
	if i < 0 || d.foreignImages {
		return
	}
	d.foreignImages = true
	key := "pull_policy"
	if i >= len(r.Docker.PullPolicy) {
		key = "allowed_pull_policies"
	}
	d.report(Note, s.nearest(key), "runners.docker."+key, "with "+policies[i]+", a job can use a private image that a job of another project has pulled", "Use always on runners of several projects that do not trust each other.")
}
