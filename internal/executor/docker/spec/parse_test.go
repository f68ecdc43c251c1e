package spec

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/config"
)

func TestDevices(t *testing.T) {
	for text, want := range map[string]container.DeviceMapping{
		"/dev/fuse":          {PathOnHost: "/dev/fuse", PathInContainer: "/dev/fuse", CgroupPermissions: "rwm"},
		"/dev/fuse:r":        {PathOnHost: "/dev/fuse", PathInContainer: "/dev/fuse", CgroupPermissions: "r"},
		"/dev/sda:/dev/xvda": {PathOnHost: "/dev/sda", PathInContainer: "/dev/xvda", CgroupPermissions: "rwm"},
		"/dev/sda:/dev/x:rw": {PathOnHost: "/dev/sda", PathInContainer: "/dev/x", CgroupPermissions: "rw"},
		"":                   {}, ":/dev/x": {}, "/dev/x:": {}, "/a:/b:": {}, "/a:/b:rx": {}, "/a:b:r": {}, "/a:/b:r:w": {}, "/a:/b:rrrr": {},
	} {
		got, err := device(text)
		if (err != nil) != (want.PathOnHost == "") || err == nil && got != want {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
}

func FuzzDevices(f *testing.F) {
	for _, s := range []string{"/dev/a", "/dev/a:/b", "/dev/a:/b:rwm", "a:r", ":::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := device(text)
		if err == nil && (d.PathOnHost == "" || !path.IsAbs(d.PathInContainer) || d.CgroupPermissions == "") {
			t.Errorf("%q gives %+v", text, d)
		}
	})
}

func TestGPUs(t *testing.T) {
	gpu := [][]string{{"gpu"}}
	for text, want := range map[string]container.DeviceRequest{
		"all":                  {Count: -1, Capabilities: gpu},
		"2":                    {Count: 2, Capabilities: gpu},
		"count=all":            {Count: -1, Capabilities: gpu},
		"device=0":             {DeviceIDs: []string{"0"}, Capabilities: gpu},
		`"device=0,GPU-1"`:     {DeviceIDs: []string{"0", "GPU-1"}, Capabilities: gpu},
		"driver=nvidia":        {Count: 1, Driver: "nvidia", Capabilities: gpu},
		`1,"capabilities=a,b"`: {Count: 1, Capabilities: [][]string{{"a", "b", "gpu"}}},
		`all,"options=x=1,y"`:  {Count: -1, Capabilities: gpu, Options: map[string]string{"x": "1", "y": ""}},
	} {
		got, err := gpus(text)
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, got[0]); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
	for text, want := range map[string]string{
		"-1": "not a number of GPUs", "x=1": "is none of", "1,2": "given twice", "device=0,1": "not both", `"`: "no list with commas",
		"all,count=1": "given twice", "99999999999": "not a number of GPUs",
	} {
		if _, err := gpus(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func FuzzGPUs(f *testing.F) {
	for _, s := range []string{"all", "2", `"device=0,1",driver=nvidia`, `"options=a=b,c"`, "\"\n\"", ",,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := gpus(text)
		if err != nil || len(r) == 0 {
			return
		}
		if r[0].Count != 0 && r[0].DeviceIDs != nil || !slices.Contains(r[0].Capabilities[0], "gpu") {
			t.Errorf("%q gives %+v", text, r)
		}
	})
}

func TestSizesAndProcessors(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "-1": -1, "512m": 512 << 20, "1.5g": 3 << 29, "2 GiB": 2 << 30, "10": 10, "-2": -2, "x": -2, "99999999999999999p": -2, "1e400": -2,
	} {
		got, err := memorySize(text)
		if (err != nil) != (want == -2) || err == nil && got != want {
			t.Errorf("size %q: got %d, %v", text, got, err)
		}
	}
	for text, want := range map[string]int64{
		"": 0, "2": 2e9, "1.5": 1.5e9, "0.1": 1e8, "1/3": 333333333, "-1": -2, "1e9": -2, "x": -2, "99999999999999": -2, "1/0": -2,
	} {
		got, err := nanoCPUs(text)
		if (err != nil) != (want == -2) || err == nil && got != want {
			t.Errorf("processors %q: got %d, %v", text, got, err)
		}
	}
}

func FuzzSizesAndLimits(f *testing.F) {
	for _, s := range []string{"", "-1", "1g", "1:2", "1/3", "9999999999999999999", "inf", "nan", "0x1p10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := memorySize(text); err == nil && n < -1 {
			t.Errorf("size %q is %d", text, n)
		}
		if n, err := nanoCPUs(text); err == nil && n < 0 {
			t.Errorf("processors %q are %d", text, n)
		}
		if u, err := ulimit("nofile", text); err == nil && u.Hard != -1 && u.Soft > u.Hard {
			t.Errorf("limit %q is %+v", text, u)
		}
	})
}

func TestUlimits(t *testing.T) {
	for text, want := range map[string]*container.Ulimit{
		"5": {Name: "n", Soft: 5, Hard: 5}, "1:2": {Name: "n", Soft: 1, Hard: 2}, "-1": {Name: "n", Soft: -1, Hard: -1}, "7:-1": {Name: "n", Soft: 7, Hard: -1},
		"": nil, "2:1": nil, "-1:5": nil, "a:1": nil, "1:b": nil, "1:2:3": nil,
	} {
		got, err := ulimit("n", text)
		if (err != nil) != (want == nil) || err == nil && *got != *want {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
	if _, err := ulimit("", "1"); err == nil {
		t.Error("a limit without a name")
	}
}

func TestVolumes(t *testing.T) {
	for text, want := range map[string]volume{
		"/cache":          {target: "/cache"},
		"deps":            {target: "deps"},
		"/cache:ro":       {target: "/cache", options: "ro"},
		"/host:/ctr":      {source: "/host", target: "/ctr"},
		"/host:/ctr:ro,z": {source: "/host", target: "/ctr", options: "ro,z"},
		"/host:/ctr:ro:z": {source: "/host", target: "/ctr", options: "ro,z"},
		"name:/ctr":       {source: "name", target: "/ctr"},
		"":                {}, ":/ctr": {}, "/a:": {}, "a\x00": {},
	} {
		got, err := parseVolume(text)
		if (err != nil) != (want == volume{}) || err == nil && got != want {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
}

func FuzzVolumes(f *testing.F) {
	for _, s := range []string{"/cache", "a:/b:ro", "$X:/y", "${X}", "/a/$X:ro", ":::", "../.."} {
		f.Add(s, "value")
		f.Add(s, "../x:/y")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		in := input()
		in.Settings.Volumes = []string{text}
		in.Variables[0].Key, in.Variables[0].Value = "X", value
		s, err := Compile(in)
		if err != nil {
			return
		}
		for _, m := range s.vols.targets {
			if m == "/" || !path.IsAbs(m) || path.Clean(m) != m || inside("/.tranter", m) {
				t.Errorf("%q with %q is mounted at %q", text, value, m)
			}
		}
	})
}

func TestVariablesInVolumes(t *testing.T) {
	for _, c := range []struct {
		text, value string
		want        volume
	}{
		{"/srv/$X:/data", "a/b", volume{source: "/srv/a/b", target: "/data"}},
		{"$X", "/srv:/data:ro", volume{source: "/srv", target: "/data", options: "ro"}},
		{"${X}", "/../data", volume{target: "/../data"}},
		{"/../srv/$X", "a..b", volume{target: "/../srv/a..b"}},
		{"/srv/$X", "..", volume{}},
		{"/srv/$X/x:/data", "../..", volume{}},
		{"/srv/$X", "a:/b", volume{}},
		{"/srv/$X:/b", "a:/c", volume{}},
	} {
		in := input()
		in.Variables[0].Key, in.Variables[0].Value = "X", c.value
		j := &job{in: in, vars: in.Variables}
		got, err := j.expandVolume(c.text)
		if (err != nil) != (c.want == volume{}) || err == nil && got != c.want {
			t.Errorf("%q with %q: got %+v, %v", c.text, c.value, got, err)
		}
	}
}

func TestWhereTheBuildsAre(t *testing.T) {
	for name, c := range map[string]struct {
		volumes []string
		builds  string
		shared  bool
		mounted bool // by the settings
	}{
		"nothing":            {nil, "/builds", false, false},
		"a cache":            {[]string{"/cache"}, "/builds", false, false},
		"its own volume":     {[]string{"/builds"}, "/builds", false, true},
		"a volume around it": {[]string{"/data"}, "/data/builds", false, true},
		"the host's":         {[]string{"/srv:/builds"}, "/builds", true, true},
		"inside the host's":  {[]string{"/srv:/data/:rw"}, "/data/builds", true, true},
		"beside it":          {[]string{"/srv:/builds2"}, "/builds", false, false},
		"below it":           {[]string{"/srv:/builds/tools"}, "/builds", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := SharedBuilds(config.Docker{Volumes: c.volumes}, c.builds); got != c.shared {
				t.Errorf("shared: %v", got)
			}
			in := input()
			in.Settings.Volumes, in.Dirs.Builds = c.volumes, c.builds
			s := compile(t, in)
			if made := slices.Contains(s.vols.targets, c.builds) && len(s.vols.targets) > len(c.volumes); made == c.mounted {
				t.Errorf("targets: %q", s.vols.targets)
			}
			if !c.mounted && s.Open[0] != c.builds {
				t.Errorf("opened: %q", s.Open)
			}
		})
	}
}

func TestBuildsStayForFetchOnly(t *testing.T) {
	for strategy, keeps := range map[string]bool{"": true, "fetch": true, "clone": false, "none": false, "empty": false, "nonsense": true} {
		in := input()
		in.Variables = append(in.Variables, in.Variables[0])
		in.Variables[len(in.Variables)-1].Key, in.Variables[len(in.Variables)-1].Value = "GIT_STRATEGY", strategy
		s := compile(t, in)
		if got := len(s.Caches) == 1; got != keeps || len(s.Temporary) == len(s.Caches) {
			t.Errorf("%q: kept %q, temporary %q", strategy, s.Caches, s.Temporary)
		}
	}
}

// Whatever volumes there are, each mount point is used once, and what is between the builds directory and one is opened.
func TestMountPointsAreUnique(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "b", "builds", "group", "project"})
	rapid.Check(t, func(t *rapid.T) {
		in := input()
		in.Settings.DisableCache = rapid.Bool().Draw(t, "disable_cache")
		for range rapid.IntRange(0, 4).Draw(t, "volumes") {
			target := strings.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "path"), "/")
			in.Settings.Volumes = append(in.Settings.Volumes, rapid.SampledFrom([]string{"/" + target, target, "/srv:/" + target}).Draw(t, "volume"))
		}
		s, err := Compile(in)
		if err != nil {
			if !strings.Contains(err.Error(), "target of two") {
				t.Fatal(err)
			}
			return
		}
		h := s.Build(Image{}, nil).HostConfig
		var targets []string
		for _, m := range h.Mounts {
			targets = append(targets, m.Target)
		}
		for _, b := range h.Binds {
			targets = append(targets, strings.Split(b, ":")[1])
		}
		slices.Sort(targets)
		if len(slices.Compact(slices.Clone(targets))) != len(targets) {
			t.Fatalf("mounted twice: %q", targets)
		}
		if !s.vols.mounted("/builds") || len(s.Caches)+len(s.Temporary) != len(h.Mounts)-1 {
			t.Fatalf("mounts %q, caches %q, temporary %q", targets, s.Caches, s.Temporary)
		}
	})
}

func TestExecutorOptions(t *testing.T) {
	for text, want := range map[string]executorOpts{
		"": {}, "null": {}, "{}": {}, `{"docker":null}`: {}, `{"docker":{"user":null,"platform":null}}`: {},
		`{"docker":{"user":"a:b","platform":"linux/arm64"}}`: {Platform: "linux/arm64", User: "a:b"},
		`{"docker":{"user":0},"kubernetes":{"user":1000}}`:   {User: "0"},
	} {
		got, err := parseExecutorOpts(json.RawMessage(text))
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"[]": "not an object", `{"docker":1}`: "not an object", `{"docker":{"platform":1}}`: "not a string", `{"docker":{"user":[]}}`: "neither",
		`{"Docker":{}}`: "unknown key", `{"docker":{"User":"x"}}`: "unknown key", `{`: "not an object",
	} {
		if _, err := parseExecutorOpts(json.RawMessage(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func FuzzExecutorOptions(f *testing.F) {
	for _, s := range []string{"", "{}", `{"docker":{"user":1,"platform":"a/b"}}`, `{"docker":{"user":1e99}}`, `{"kubernetes":{"x":1}}`, "[", "nul"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		opts, err := parseExecutorOpts(json.RawMessage(text))
		if err == nil && opts != (executorOpts{}) && !json.Valid([]byte(text)) {
			t.Errorf("%q gives %+v", text, opts)
		}
	})
}

func TestPlatforms(t *testing.T) {
	for text, want := range map[string]string{
		"linux/amd64": "linux/amd64/", "linux/arm/v7": "linux/arm/v7", "Linux/AArch64": "linux/arm64/", "linux/x86_64": "linux/amd64/",
		"linux/armhf": "linux/arm/v7", "linux/armel": "linux/arm/v6", "linux/i386": "linux/386/",
		"linux": "", "linux/": "", "/arm": "", "a/b/c/d": "", "linux/a b": "",
	} {
		p, err := parsePlatform(text)
		if (err != nil) != (want == "") || err == nil && p.OS+"/"+p.Architecture+"/"+p.Variant != want {
			t.Errorf("%q: got %+v, %v", text, p, err)
		}
	}
}

func FuzzPlatforms(f *testing.F) {
	for _, s := range []string{"linux/arm64/v8", "a/b", "//", "linux"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePlatform(text)
		if text != "" && err == nil && (!plainWord(p.OS) || !plainWord(p.Architecture)) {
			t.Errorf("%q gives %+v", text, p)
		}
	})
}

func TestVersionsOfTheAPI(t *testing.T) {
	for version, want := range map[string]bool{"1.43": false, "1.44": true, "1.100": true, "2.0": true, "": true, "1.9": false} {
		if apiAtLeast(version, 44) != want {
			t.Errorf("%q", version)
		}
	}
}
