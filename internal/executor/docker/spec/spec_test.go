package spec

import (
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/variables"
)

var update = flag.Bool("update", false, "write the golden files")

func yes[T any](v T) config.Optional[T] { return config.Optional[T]{Value: v, Set: true} }

// input is that of a job without anything special.
func input() Input {
	return Input{
		Settings: config.Docker{Image: "debian:12"},
		Job: &tranter.Job{
			ID: 7, AllowGitFetch: true, Info: tranter.JobInfo{ProjectID: 42, PipelineID: 5}, Runner: tranter.RunnerInfo{Timeout: 3600},
			Git:       tranter.GitInfo{RepoURL: "https://gitlab-ci-token:x@gitlab.example.com/group/project.git", Ref: "main", SHA: "abc", BeforeSHA: "def"},
			Variables: []tranter.Variable{{Key: "CI_PROJECT_NAME", Value: "project", Public: true}},
		},
		Variables: []tranter.Variable{
			{Key: "CI_PROJECT_NAME", Value: "project", Public: true},
			{Key: "RUNNER_OWN", Value: "here", Internal: true},
			{Key: "PASSWORD", Value: "hunter22", Masked: true},
			{Key: "CI_CA", Value: "PEM", Public: true, File: true},
		},
		Dirs:    tranter.Dirs{Builds: "/builds", Project: "/builds/group/project", Temp: "/builds/group/project.tmp", Cache: "/cache/group/project"},
		Runner:  Runner{ShortToken: "abcdefghi", Token: "glrt-t1_abcdefghijklmnopqrst", SystemID: "s_0123456789ab", Owner: "o1", LocalID: 3},
		Session: "0123456789abcdef", Name: "job-7", Expires: time.Unix(1700000000, 0), Agent: AgentVolume{Volume: "tranter-agent-x", Room: 64 << 20},
		API: "1.47", Slots: variables.Slots{},
		ReadFile: func(path string) ([]byte, error) {
			if path == "/etc/profile.json" {
				return []byte("{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n"), nil
			}
			return nil, os.ErrNotExist
		},
	}
}

// world is what settings refer to by name.
type world struct{ container, volume, dir, platform string }

func nowhere() world { return world{"other", "shared", "/srv", "linux/arm64/v8"} }

// cases are inputs whose requests are kept in golden files.
func cases(w world) map[string]func(*Input) {
	return map[string]func(*Input){
		"plain": func(*Input) {},
		"limits": func(in *Input) {
			d := &in.Settings
			d.Memory, d.MemorySwap, d.MemoryReservation, d.CPUs, d.CPUShares = "512m", "-1", "256m", "1.5", 10
			d.CPUSetCPUs, d.CPUSetMems, d.CgroupParent, d.OOMKillDisable, d.OOMScoreAdjust = "0-1", "0", "ci.slice", true, 500
			d.SHMSize, d.Ulimit, d.Sysctls = 1<<20, map[string]string{"nofile": "1024:4096", "core": "0"}, map[string]string{"net.core.somaxconn": "1024"}
			d.Tmpfs, d.ServicesTmpfs = map[string]string{"/scratch": "size=1m"}, map[string]string{"/data": ""}
			d.ServiceMemory, d.ServiceMemorySwap, d.ServiceMemoryReservation, d.ServiceCPUs = "1g", "2g", "512m", "0.5"
			d.ServiceCPUSetCPUs, d.ServiceCPUShares, d.ServiceCgroupParent = "0", 5, "services.slice"
			in.Job.Services = []tranter.Image{{Name: "redis"}}
		},
		"slots": func(in *Input) {
			in.Settings.CgroupParent, in.Settings.ServiceSlotCgroupTemplate = "ci.slice", "services/${slot}"
			in.Slot = Slot{Use: true, Template: "gitlab-runner/slot-${slot}", Number: 2}
			in.Job.Services = []tranter.Image{{Name: "redis"}}
		},
		"devices": func(in *Input) {
			d := &in.Settings
			d.Devices, d.DeviceCgroupRules, d.GPUs, d.ServiceGPUs = []string{"/dev/fuse", "/dev/kvm:/dev/vm:rw"}, []string{"c 10:229 rwm"}, "all", `"device=0,1",driver=nvidia`
			d.ServicesDevices = map[string][]string{"redis:*": {"/dev/zero"}, "**": {"/dev/zero", "/dev/full:r"}}
			d.ServicesDeviceCgroupRules = []string{"a *:* rwm"}
			in.Job.Services = []tranter.Image{{Name: "redis:7"}}
		},
		"security": func(in *Input) {
			d := &in.Settings
			d.Privileged, d.CapAdd, d.CapDrop, d.UsernsMode, d.PIDMode, d.IPCMode = true, []string{"NET_ADMIN"}, []string{"CHOWN"}, "host", "host", "shareable"
			d.SecurityOpt = []string{"seccomp=/etc/profile.json", "no-new-privileges", "apparmor=unconfined"}
			d.ServicesSecurityOpt, d.ServicesCapAdd, d.ServicesCapDrop = []string{"seccomp:unconfined", "systempaths=unconfined"}, []string{"ALL"}, []string{"SYS_RESOURCE"}
			d.User, d.GroupAdd, d.Runtime, d.Isolation, d.ServicesPrivileged = "1000:1000", []string{"docker"}, "runc", "default", yes(false)
			in.Flags = map[string]bool{"FF_USE_INIT_WITH_DOCKER_EXECUTOR": true, "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR": true}
			in.Job.Services = []tranter.Image{{Name: "docker:27-dind"}}
			in.Mirror = "http://mirror:5000"
		},
		"volumes": func(in *Input) {
			d := &in.Settings
			d.Volumes = []string{"/cache", "vendor/${CI_PROJECT_NAME}", w.dir + "/tools:/tools:ro", w.volume + ":/shared", "/seen:ro"}
			d.VolumeDriver, d.VolumeDriverOps, d.VolumesFrom, d.VolumeKeep = "local", map[string]string{"type": "tmpfs", "device": "tmpfs"}, []string{w.container + ":ro"}, true
			in.Job.Cache = []tranter.Cache{{Key: "gems-protected"}}
		},
		"volumes_on_the_host": func(in *Input) {
			in.Settings.Volumes, in.Settings.CacheDir = []string{"/cache", w.dir + "/builds:/builds"}, w.dir+"/cache"
		},
		"no_volumes_kept": func(in *Input) { in.Settings.Volumes, in.Settings.DisableCache = []string{"/cache"}, true },
		"network_of_its_own": func(in *Input) {
			d := &in.Settings
			d.EnableIPv6, d.NetworkMTU, d.MACAddress, d.Links = true, 1400, "92:d0:c6:0a:29:33", []string{w.container + ":db"}
			in.Flags = map[string]bool{"FF_NETWORK_PER_BUILD": true}
			in.Job.Services = []tranter.Image{{Name: "registry.example.com:5000/ns/pg:14", Alias: "db, postgres"}}
		},
		"network_of_the_bridge": func(in *Input) {
			d := &in.Settings
			d.DNS, d.DNSSearch, d.ExtraHosts, d.Links = []string{"192.0.2.53", "2001:db8::53"}, []string{"example.com"}, []string{"git:192.0.2.1"}, []string{w.container + ":db"}
			d.Hostname, d.MACAddress = "ci", "92:d0:c6:0a:29:33"
			in.Job.Services = []tranter.Image{{Name: "redis"}, {Name: "redis", Alias: "second"}}
		},
		"network_of_a_container": func(in *Input) {
			d := &in.Settings
			d.NetworkMode, d.Hostname, d.DNS, d.ExtraHosts, d.Links, d.MACAddress = "container:"+w.container, "ci", []string{"192.0.2.53"}, []string{"git:192.0.2.1"}, []string{w.container + ":db"}, "92:d0:c6:0a:29:33"
			in.Job.Services = []tranter.Image{{Name: "redis"}}
		},
		"network_of_the_host": func(in *Input) { in.Settings.NetworkMode = "host"; in.Settings.Links = []string{w.container + ":db"} },
		"no_network":          func(in *Input) { in.Settings.NetworkMode = "none" },
		"a_named_network":     func(in *Input) { in.Settings.NetworkMode = w.container },
		"an_old_engine":       func(in *Input) { in.API, in.Settings.MACAddress = "1.41", "92:d0:c6:0a:29:33" },
		"services": func(in *Input) {
			in.Settings.Services = []config.Service{{Name: "postgres:$CI_PROJECT_NAME", Alias: "db", Environment: []string{"POSTGRES_PASSWORD=$PASSWORD", "BAD"}, Command: []string{"postgres", "-c", "fsync=off"}}}
			in.Settings.ContainerLabels = map[string]string{"team": "$CI_PROJECT_NAME $RUNNER_OWN"}
			in.Settings.LogOptions = map[string]string{"env": "CI_PROJECT_NAME"}
			in.Job.Services = []tranter.Image{{
				Name: "ghcr.io/a/b@sha256:" + strings.Repeat("0a", 32), Alias: "x,db y!", Entrypoint: []string{"/run"}, PullPolicy: []string{"never"},
				Variables:    []tranter.Variable{{Key: "A", Value: "$B$CI_CA"}, {Key: "B", Value: "$$1", Raw: true}, {Key: "HEALTHCHECK_TCP_PORT", Value: "99"}},
				ExecutorOpts: json.RawMessage(`{"docker":{"user":1001,"platform":"` + w.platform + `"}}`),
			}}
		},
		"image": func(in *Input) {
			in.Job.Image = tranter.Image{
				Name: "registry/$CI_PROJECT_NAME", Entrypoint: []string{"/entry", "point"}, PullPolicy: []string{"if-not-present"},
				ExecutorOpts: json.RawMessage(`{"docker":{"user":"$CI_PROJECT_NAME","platform":"` + w.platform + `"},"kubernetes":{"user":"1"}}`),
			}
		},
		"no_helper": func(in *Input) { in.Settings.DisableHelper, in.Settings.Volumes = true, []string{"/cache", "deps"} },
	}
}

// requests is all that is asked of an engine for a job.
type requests struct {
	Spec     map[string]any
	Network  *NetworkRequest
	Helper   client.ContainerCreateOptions
	Build    client.ContainerCreateOptions
	Services []client.ContainerCreateOptions
}

func all(s *Spec) requests {
	var hosts []Host
	r := requests{Network: s.Network(), Spec: map[string]any{
		"image": s.Image, "pull_policy": s.PullPolicy, "platform": s.Platform, "open": s.Open, "temporary": s.Temporary, "caches": s.Caches,
		"keep_volumes": s.KeepVolumes, "linked": s.Linked, "warnings": s.Warnings, "services": s.Services,
	}}
	for i := range s.Services {
		r.Services = append(r.Services, s.Service(i, Image{Use: "sha256:5e"}, hosts))
		hosts = append(hosts, Host{Service: i, ID: strings.Repeat("0123456789abcdef", 4), Addresses: []string{"172.17.0.5", "2001:db8::5"}})
	}
	r.Helper = s.Helper(Image{Use: "sha256:4e", Entrypoint: []string{"/not/used"}}, hosts)
	r.Build = s.Build(Image{Use: "sha256:b1", Entrypoint: []string{"/image/entrypoint"}}, hosts)
	return r
}

func TestGolden(t *testing.T) {
	known := map[string]bool{}
	for name, change := range cases(nowhere()) {
		known[name+".json"] = true
		t.Run(name, func(t *testing.T) {
			in := input()
			change(&in)
			got, err := json.MarshalIndent(all(compile(t, in)), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "golden", name+".json")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
				t.Errorf("requests differ from %s (go test -update writes it):\n%s", file, d)
			}
			if strings.Contains(string(got), "hunter22") && name != "services" {
				t.Error("a secret is in a request")
			}
		})
	}
	files, err := os.ReadDir(filepath.Join("testdata", "golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("testdata/golden/%s belongs to no case", f.Name())
		}
	}
}

func compile(t *testing.T, in Input) *Spec {
	t.Helper()
	s, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheSameInputGivesTheSameRequests(t *testing.T) {
	for name, change := range cases(nowhere()) {
		var texts []string
		for range 2 {
			in := input()
			change(&in)
			s := compile(t, in)
			for range 2 { // making requests changes nothing
				text, err := json.Marshal(all(s))
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, string(text))
			}
		}
		if slices.Sort(texts); len(slices.Compact(texts)) != 1 {
			t.Errorf("%s: requests differ", name)
		}
	}
}

func TestWhatCannotBe(t *testing.T) {
	opts := func(text string) func(*Input) {
		return func(in *Input) { in.Job.Image.ExecutorOpts = json.RawMessage(text) }
	}
	for name, c := range map[string]struct {
		change func(*Input)
		want   string
		plain  bool // not the configuration's fault
	}{
		"no image":           {func(in *Input) { in.Settings.Image = "" }, "names no image", false},
		"memory":             {func(in *Input) { in.Settings.Memory = "lots" }, `memory in [runners.docker]: "lots" is not a size`, false},
		"service memory":     {func(in *Input) { in.Settings.ServiceMemorySwap = "x" }, "service_memory_swap", false},
		"cpus":               {func(in *Input) { in.Settings.CPUs = "1e9999999" }, "not a number of processors", false},
		"ulimit":             {func(in *Input) { in.Settings.Ulimit = map[string]string{"nofile": "9:8"} }, "above the hard one", false},
		"dns":                {func(in *Input) { in.Settings.DNS = []string{"dns.example.com"} }, "not an IP address", false},
		"links of podman":    {func(in *Input) { in.Podman, in.Settings.Links = true, []string{"db"} }, "Podman has no links", false},
		"mac":                {func(in *Input) { in.Settings.MACAddress = "x" }, "not a MAC address", false},
		"device":             {func(in *Input) { in.Settings.Devices = []string{"/a:/b:rwx"} }, "not a device", false},
		"services_devices":   {func(in *Input) { in.Settings.ServicesDevices = map[string][]string{"[": nil} }, "not a pattern", false},
		"gpus":               {func(in *Input) { in.Settings.GPUs = "some" }, "not a number of GPUs", false},
		"service_gpus":       {func(in *Input) { in.Settings.ServiceGPUs = "size=1" }, "is none of count", false},
		"log option":         {func(in *Input) { in.Settings.LogOptions = map[string]string{"max-size": "1m"} }, `"max-size" is not supported`, false},
		"no profile":         {func(in *Input) { in.Settings.SecurityOpt = []string{"seccomp=/none"} }, "read the seccomp profile", false},
		"bad profile":        {func(in *Input) { in.Settings.SecurityOpt = []string{"seccomp={"} }, "is not JSON", false},
		"bad option":         {func(in *Input) { in.Settings.ServicesSecurityOpt = []string{"label"} }, "write NAME=VALUE", false},
		"system paths":       {func(in *Input) { in.Settings.SecurityOpt = []string{"systempaths=x"} }, "only value", false},
		"privileged pattern": {func(in *Input) { in.Settings.AllowedPrivilegedImages = []string{"["} }, "not a pattern", false},
		"root volume":        {func(in *Input) { in.Settings.Volumes = []string{"/x/.."} }, "below /", false},
		"two volumes":        {func(in *Input) { in.Settings.Volumes = []string{"/a", "/srv:/a/"} }, "target of two", false},
		"our volume":         {func(in *Input) { in.Settings.Volumes = []string{"/.tranter/job"} }, "the runner uses it", false},
		"empty volume":       {func(in *Input) { in.Settings.Volumes = []string{""} }, "not a volume", false},
		"climbing volume": {func(in *Input) {
			in.Settings.Volumes = []string{"/srv/$CI_PROJECT_NAME:/x"}
			in.Variables[0].Value = "../etc"
		}, "has .. in it", false},
		"volume that becomes a bind": {func(in *Input) {
			in.Settings.Volumes = []string{"/srv/$CI_PROJECT_NAME"}
			in.Variables[0].Value = "x:/y"
		}, "has a colon in it", false},
		"user": {func(in *Input) {
			in.Settings.AllowedUsers = []string{"1000"}
			opts(`{"docker":{"user":"root"}}`)(in)
		}, `user "root" is not allowed`, false},
		"user of a service": {func(in *Input) {
			in.Settings.User = "1000"
			in.Job.Services = []tranter.Image{{Name: "redis", ExecutorOpts: json.RawMessage(`{"docker":{"user":"root"}}`)}}
		}, `user "root" is not allowed`, false},
		"platform":                   {opts(`{"docker":{"platform":"arm64"}}`), "not a platform", false},
		"unknown option":             {opts(`{"docker":{"cpus":1}}`), `unknown key "cpus"`, true},
		"unknown executor":           {opts(`{"podman":{}}`), `unknown key "podman"`, true},
		"option of another executor": {opts(`{"kubernetes":{"group":1}}`), `unknown key "group"`, true},
		"user that is none":          {opts(`{"docker":{"user":1.5}}`), "neither a string nor a whole number", true},
		"too many services": {func(in *Input) {
			in.Settings.ServicesLimit = yes(0)
			in.Job.Services = []tranter.Image{{Name: "redis"}}
		}, "services_limit in [runners.docker] allows 0", false},
		"service without a name": {func(in *Input) { in.Job.Services = []tranter.Image{{Name: "$NOTHING"}} }, "has no image", false},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			c.change(&in)
			_, err := Compile(in)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if config := new(tranter.ConfigError); errors.As(err, &config) == c.plain {
				t.Errorf("wrong kind of error: %T", err)
			}
		})
	}
}

func TestWhoIsPrivileged(t *testing.T) {
	type want struct{ build, helper, service bool }
	for name, c := range map[string]struct {
		change func(*Input)
		want   want
	}{
		"nobody":            {func(*Input) {}, want{}},
		"all":               {func(in *Input) { in.Settings.Privileged = true }, want{true, true, true}},
		"not the services":  {func(in *Input) { in.Settings.Privileged, in.Settings.ServicesPrivileged = true, yes(false) }, want{true, true, false}},
		"the services only": {func(in *Input) { in.Settings.ServicesPrivileged = yes(true) }, want{false, false, true}},
		"the default image": {func(in *Input) {
			in.Settings.Privileged, in.Settings.AllowedPrivilegedImages = true, []string{"debian:*"}
		}, want{true, false, true}},
		"other images": {func(in *Input) {
			in.Settings.Privileged, in.Settings.AllowedPrivilegedImages = true, []string{"docker:*"}
		}, want{false, false, true}},
		"other services": {func(in *Input) {
			in.Settings.Privileged, in.Settings.AllowedPrivilegedServices = true, []string{"a/**"}
		}, want{true, true, false}},
		"services that are in there": {func(in *Input) {
			in.Settings.Privileged, in.Settings.AllowedPrivilegedServices = true, []string{"b", "*dind*"}
		}, want{true, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			in.Job.Services = []tranter.Image{{Name: "docker:dind"}}
			c.change(&in)
			r := all(compile(t, in))
			if got := (want{r.Build.HostConfig.Privileged, r.Helper.HostConfig.Privileged, r.Services[0].HostConfig.Privileged}); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestEntrypoints(t *testing.T) {
	for name, c := range map[string]struct {
		asked, image []string
		fixed        bool
		want         []string
	}{
		"none":                      {nil, nil, false, nil},
		"the image's":               {nil, []string{"/e"}, false, []string{"/e"}},
		"the job's":                 {[]string{"/j", "x"}, []string{"/e"}, false, []string{"/j", "x"}},
		"the job wants none":        {[]string{""}, []string{"/e"}, false, nil},
		"the job may not":           {[]string{""}, []string{"/e"}, true, []string{"/e"}},
		"an empty one of the image": {nil, []string{""}, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			in.Job.Image.Entrypoint, in.Settings.DisableEntrypointOverwrite = c.asked, c.fixed
			s := compile(t, in)
			entry := s.Build(Image{Use: "x", Entrypoint: c.image}, nil).Config.Entrypoint
			var got []string
			if i := slices.Index(entry, "--"); i >= 0 {
				got = entry[i+1:]
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if warned := len(s.Warnings) == 1; warned != c.fixed {
				t.Errorf("warnings %q", s.Warnings)
			}
		})
	}
}

func TestUsersOfTheBuildContainer(t *testing.T) {
	for name, c := range map[string]struct {
		user    string
		allowed []string
		asked   string
		want    string
		warns   bool
	}{
		"none":            {"", nil, "", "", false},
		"any":             {"", nil, `"www"`, "www", false},
		"a number":        {"", nil, `1000`, "1000", false},
		"allowed":         {"", []string{"a", "b"}, `"b"`, "b", false},
		"nobody asked":    {"", []string{"a"}, `null`, "", false},
		"forced":          {"a", nil, "", "a", false},
		"forced all same": {"a", nil, `"b"`, "a", true},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			in.Settings.User, in.Settings.AllowedUsers = c.user, c.allowed
			if c.asked != "" {
				in.Job.Image.ExecutorOpts = json.RawMessage(`{"docker":{"user":` + c.asked + `}}`)
			}
			s := compile(t, in)
			if got := s.Build(Image{}, nil).Config.User; got != c.want || len(s.Warnings) > 0 != c.warns {
				t.Errorf("got %q and %q", got, s.Warnings)
			}
		})
	}
}

func TestPodmanTakesSecurityOptionsInItsOwnForm(t *testing.T) {
	in := input()
	in.Podman, in.ReadFile = true, nil
	in.Settings.SecurityOpt = []string{"systempaths=unconfined", "seccomp=/etc/profile.json", "seccomp=unconfined"}
	h := compile(t, in).Build(Image{}, nil).HostConfig
	if want := []string{"unmask=ALL", "seccomp=/etc/profile.json", "seccomp=unconfined"}; !slices.Equal(h.SecurityOpt, want) || h.MaskedPaths != nil {
		t.Errorf("got %q, masked %q", h.SecurityOpt, h.MaskedPaths)
	}
	in.Settings.SecurityOpt = []string{"seccomp={}"}
	if _, err := Compile(in); err == nil || !strings.Contains(err.Error(), "only as a file") {
		t.Errorf("a profile in the settings: %v", err)
	}
}

func TestTheDefaultImageMayHaveVariables(t *testing.T) {
	in := input()
	in.Settings.Image = "registry/$CI_PROJECT_NAME"
	if s := compile(t, in); s.DefaultImage() != "registry/project" || s.Image != s.DefaultImage() {
		t.Errorf("got %q and %q", s.DefaultImage(), s.Image)
	}
}

func TestVolumesThatStayAreNobodysToSweep(t *testing.T) {
	in := input()
	in.Settings.Volumes = []string{"/cache"}
	s := compile(t, in)
	for _, m := range s.Build(Image{}, nil).HostConfig.Mounts {
		if m.Source == in.Agent.Volume {
			continue
		}
		keys := slices.Sorted(maps.Keys(m.VolumeOptions.Labels))
		if slices.Contains(keys, LabelExpires) || slices.Contains(keys, LabelJob) || !slices.Contains(keys, LabelOwner) {
			t.Errorf("%s has the labels %q", m.Source, keys)
		}
	}
}

// In the host's network there is no name server, and all services are at the same address.
func TestServicesHaveNamesInTheNetworkOfTheHost(t *testing.T) {
	in := input()
	in.Settings.NetworkMode = "host"
	in.Job.Services = []tranter.Image{{Name: "postgres:17", Alias: "db"}}
	s, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	hosts := []Host{{Service: 0, ID: "0123456789abcdef"}}
	for _, h := range [][]string{s.Build(Image{}, hosts).HostConfig.ExtraHosts, s.Helper(Image{}, hosts).HostConfig.ExtraHosts} {
		if want := []string{"postgres:127.0.0.1", "db:127.0.0.1"}; !slices.Equal(h, want) {
			t.Errorf("%q, want %q", h, want)
		}
	}
}
