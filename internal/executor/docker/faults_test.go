package docker_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// kindOf says which of the errors with a failure reason of its own an error is.
func kindOf(err error) string {
	var (
		c *tranter.ConfigError
		d *tranter.DependencyError
		p *tranter.PullError
		b *tranter.BuildError
	)
	switch {
	case err == nil:
		return "none"
	case errors.As(err, &c):
		return "configuration"
	case errors.As(err, &d):
		return "dependency"
	case errors.As(err, &p):
		return "pull"
	case errors.As(err, &b):
		return "build"
	}
	return "system"
}

// refused opens a session that is not to come about.
func (r *rig) refused(kind string, wants ...string) {
	r.t.Helper()
	err := r.try()
	if got := kindOf(err); got != kind {
		r.t.Errorf("an error of kind %s, not %s: %v\n%s", got, kind, err, r.log)
	}
	if err != nil {
		has(r.t, err.Error(), wants...)
		hasNot(r.t, err.Error()+r.log.String(), "S3cret", "correct horse")
	}
}

func TestImagesThatCannotBeHad(t *testing.T) {
	t.Parallel()
	open := enginetest.Registry(t).Address
	private := enginetest.PrivateRegistry(t).Push(t, "busybox", "private/busybox", "1")
	busy := failingRegistry(t, http.StatusTooManyRequests, `{"errors":[{"code":"TOOMANYREQUESTS","message":"too many requests to registry"}]}`)
	for name, tt := range map[string]struct {
		image string
		kind  string
		wants []string
	}{
		"a tag that does not exist":    {open + "/tranter-test/busybox:none", "configuration", []string{"does not have it", "tag none", "Check the spelling"}},
		"a name that does not exist":   {open + "/no/such:1", "configuration", []string{"/no/such", "Check the"}},
		"a name that is none":          {"Not An Image", "configuration", []string{"Not An Image"}},
		"private, without a login":     {private, "configuration", []string{"needs a login and none is set for it", "DOCKER_AUTH_CONFIG"}},
		"too many requests":            {busy + "/x/y:1", "dependency", []string{"too many requests", "registry_mirror", "if-not-present"}},
		"another architecture, pulled": {enginetest.Registry(t).Push(t, "arm64", "tranter-test/foreign", "1"), "configuration", []string{"arm64", "platform"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.job.Image.Name = tt.image
			r.settings.PullPolicy = config.OneOrMany{"always"}
			if strings.Contains(name, "architecture") {
				r.job.Image.ExecutorOpts = []byte(`{"docker":{"platform":"linux/amd64"}}`)
			}
			r.refused(tt.kind, tt.wants...)
		})
	}
	t.Run("a service's", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "busybox")
		r.job.Services = []tranter.Image{{Name: open + "/no/such-service:1"}}
		r.refused("configuration", "no/such-service")
	})
	t.Run("the helper's", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "busybox")
		r.settings.HelperImage = open + "/no/such-helper:1"
		r.refused("configuration", "no/such-helper")
	})
}

func failingRegistry(t *testing.T, code int, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// A registry that takes connections and says nothing ends with its job's time.
func TestARegistryThatHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := newRig(t, "busybox")
	r.job.Image.Name = l.Addr().String() + "/x/y:1"
	began := time.Now()
	err = r.tryWithin(3 * time.Second)
	if err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestLoginsToARegistry(t *testing.T) {
	t.Parallel()
	registry := enginetest.PrivateRegistry(t)
	auth := func(password string) string {
		data, err := json.Marshal(map[string]any{"auths": map[string]any{registry.Address: map[string]string{
			"auth": base64.StdEncoding.EncodeToString([]byte(registry.User + ":" + password)),
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	credential := func(password string) []tranter.Credential {
		return []tranter.Credential{{Type: "registry", URL: registry.Address, Username: registry.User, Password: tranter.Secret(password)}}
	}
	for name, tt := range map[string]struct {
		set  func(*rig)
		kind string
		said []string
	}{
		"the job's variable":    {func(r *rig) { r.set("DOCKER_AUTH_CONFIG", auth(registry.Password)) }, "none", []string{"Authenticating with credentials from $DOCKER_AUTH_CONFIG"}},
		"the runner's":          {func(r *rig) { r.options.Environment = []string{"DOCKER_AUTH_CONFIG=" + auth(registry.Password)} }, "none", []string{"Authenticating with credentials from $DOCKER_AUTH_CONFIG"}},
		"the job's credentials": {func(r *rig) { r.job.Credentials = credential(registry.Password) }, "none", []string{"Authenticating with credentials from job payload (GitLab Registry)"}},
		"a wrong variable":      {func(r *rig) { r.set("DOCKER_AUTH_CONFIG", auth("S3cret")) }, "configuration", nil},
		"wrong credentials":     {func(r *rig) { r.job.Credentials = credential("S3cret") }, "configuration", nil},
		"a right variable comes first": {func(r *rig) {
			r.job.Credentials = credential("S3cret")
			r.set("DOCKER_AUTH_CONFIG", auth(registry.Password))
		}, "none", nil},
		"the user's configuration of docker": {func(r *rig) { r.options.Home = homeWith(r.t, auth(registry.Password)) }, "none", []string{"Authenticating with credentials from ", ".docker/config.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			repository := "private/" + strings.ToLower(r.options.Runner.Owner)
			r.job.Image.Name = registry.Push(t, "busybox", repository, "1")
			t.Cleanup(func() {
				_, _ = r.api().ImageRemove(r.context(), r.job.Image.Name, client.ImageRemoveOptions{})
			})
			r.settings.PullPolicy = config.OneOrMany{"always"}
			r.settings.HelperImage = r.settings.Image // any does
			r.settings.DisableHelper = true
			tt.set(r)
			if tt.kind != "none" {
				r.refused(tt.kind, "refuses access with the credentials from", "Check")
				return
			}
			has(t, r.all("echo pulled"), "\npulled\n")
			has(t, r.log.String(), tt.said...)
			hasNot(t, r.log.String(), "S3cret", "correct horse", base64.StdEncoding.EncodeToString([]byte(registry.User+":"+registry.Password)))
		})
	}
}

func homeWith(t *testing.T, config string) string {
	t.Helper()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".docker", "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return home
}

// Images with which no script can run. The container may start or not; the job says why it can't go on.
func TestImagesThatCannotRunScripts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		image string
		wants []string
	}{
		"no shell":             {"noshell", []string{"no shell in the image", "use an image with a shell"}},
		"another architecture": {"arm64", []string{"platform"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.image)
			err := r.try()
			said := ""
			if err == nil {
				r.sources()
				var result tranter.PhaseResult
				result, said, err = r.perform(r.phase("script", tranter.PlaceBuild, "echo never"))
				if err == nil {
					if result.Status != tranter.PhaseFailed || result.Reason != tranter.RunnerConfigurationError {
						t.Errorf("%+v\n%s", result, said)
					}
					has(t, result.Message, tt.wants...)
					return
				}
			}
			if kindOf(err) != "configuration" {
				t.Errorf("an error of kind %s: %v", kindOf(err), err)
			}
			has(t, err.Error(), tt.wants...)
		})
	}
}

func TestSettingsThatAreWrong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set   func(*config.Docker)
		wants []string
	}{
		"memory":              {func(d *config.Docker) { d.Memory = "lots" }, []string{"memory in [runners.docker]", `"lots"`, `"512m"`}},
		"service_memory":      {func(d *config.Docker) { d.ServiceMemory = "12q" }, []string{"service_memory in [runners.docker]"}},
		"cpus":                {func(d *config.Docker) { d.CPUs = "two" }, []string{"cpus in [runners.docker]"}},
		"ulimit":              {func(d *config.Docker) { d.Ulimit = map[string]string{"nofile": "9:1"} }, []string{"ulimit in [runners.docker]", "above the hard one"}},
		"devices":             {func(d *config.Docker) { d.Devices = []string{"/dev/null:/dev/x:everything"} }, []string{"devices in [runners.docker]"}},
		"gpus":                {func(d *config.Docker) { d.GPUs = "some" }, []string{"gpus in [runners.docker]"}},
		"volumes":             {func(d *config.Docker) { d.Volumes = []string{"/a:/x", "/b:/x"} }, []string{"volumes in [runners.docker]", "target of two volumes"}},
		"volume over ours":    {func(d *config.Docker) { d.Volumes = []string{"/a:/.tranter"} }, []string{"the runner uses it"}},
		"dns":                 {func(d *config.Docker) { d.DNS = []string{"ns.example"} }, []string{"dns in [runners.docker]"}},
		"security_opt":        {func(d *config.Docker) { d.SecurityOpt = []string{"seccomp=/no/such/profile"} }, []string{"security_opt in [runners.docker]", "/no/such/profile"}},
		"log_options":         {func(d *config.Docker) { d.LogOptions = map[string]string{"max-size": "1m"} }, []string{"log_options in [runners.docker]", "env and labels"}},
		"no image":            {func(d *config.Docker) { d.Image = "" }, []string{"write image: in .gitlab-ci.yml"}},
		"mac_address":         {func(d *config.Docker) { d.MACAddress = "x" }, []string{"mac_address in [runners.docker]"}},
		"services_devices":    {func(d *config.Docker) { d.ServicesDevices = map[string][]string{"*": {"x"}} }, []string{"services_devices in [runners.docker]"}},
		"allowed_privileged…": {func(d *config.Docker) { d.AllowedPrivilegedImages = []string{"[", "*"} }, []string{"allowed_privileged_images in [runners.docker]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			tt.set(&r.settings)
			r.refused("configuration", tt.wants...)
		})
	}
}

// What is well-formed and still not what this engine can do.
func TestSettingsThatTheEngineRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set   func(*rig)
		kind  string
		wants []string
	}{
		"a device that is not there":    {func(r *rig) { r.settings.Devices = []string{"/dev/no-such"} }, "configuration", []string{"/dev/no-such", "devices of [runners.docker]"}},
		"an unknown runtime":            {func(r *rig) { r.settings.Runtime = "kata-no-such" }, "configuration", []string{"kata-no-such", "runtime of [runners.docker]"}},
		"an unknown network":            {func(r *rig) { r.settings.NetworkMode = "no-such-network" }, "configuration", []string{"no-such-network", "network_mode of [runners.docker]"}},
		"a container that is not there": {func(r *rig) { r.settings.NetworkMode = "container:no-such" }, "system", []string{"no-such"}},
		"GPUs":                          {func(r *rig) { r.settings.GPUs = "all" }, "configuration", []string{"gpus"}},
		"GPUs of services": {func(r *rig) {
			r.settings.ServiceGPUs = "all"
			r.job.Services = []tranter.Image{greeter(r.t, "web", "x")}
		}, "configuration", []string{"service", "gpus"}},
		"too many processors":           {func(r *rig) { r.settings.CPUs = "4000" }, "configuration", []string{"cpus of [runners.docker]"}},
		"too little memory":             {func(r *rig) { r.settings.Memory = "1m" }, "configuration", []string{"emory"}},
		"a sysctl of the host":          {func(r *rig) { r.settings.Sysctls = map[string]string{"kernel.sysrq": "1"} }, "configuration", []string{"sysctls of [runners.docker]"}},
		"a capability that there isn't": {func(r *rig) { r.settings.CapAdd = []string{"FLY"} }, "configuration", []string{"FLY", "cap_add"}},
		"a user who is not in it":       {func(r *rig) { r.settings.User, r.settings.DisableHelper = "nobody-at-all", true }, "configuration", []string{"nobody-at-all", "user of [runners.docker]"}},
		"a container for volumes":       {func(r *rig) { r.settings.VolumesFrom = []string{"no-such-container"} }, "configuration", []string{"no-such-container"}},
		"a link to nothing":             {func(r *rig) { r.settings.Links = []string{"no-such-container:x"} }, "configuration", []string{"no-such-container"}},
		"an isolation of Windows":       {func(r *rig) { r.settings.Isolation = "hyperv" }, "configuration", []string{"isolation"}},
		"a seccomp profile":             {func(r *rig) { r.settings.SecurityOpt = []string{"seccomp={\"defaultAction\":\"X\"}"} }, "configuration", []string{"seccomp"}},
		"a volume that is a file":       {func(r *rig) { r.settings.Volumes = []string{"/etc:/etc/passwd"} }, "configuration", []string{"volumes of [runners.docker]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			tt.set(r)
			r.refused(tt.kind, tt.wants...)
		})
	}
}

func TestWhatAJobMayNotAskFor(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set   func(*rig)
		kind  string
		wants []string
	}{
		"another image": {func(r *rig) {
			r.settings.AllowedImages, r.job.Image.Name = []string{"ruby:*"}, enginetest.Image(r.t, "user")
		}, "configuration", []string{"allowed_images", "ruby:*"}},
		"an allowed image": {func(r *rig) {
			r.settings.AllowedImages, r.job.Image.Name = []string{"**/user:*"}, enginetest.Image(r.t, "user")
		}, "none", nil},
		"the default image": {func(r *rig) { r.settings.AllowedImages = []string{"ruby:*"} }, "none", nil},
		"another service": {func(r *rig) {
			r.settings.AllowedServices, r.job.Services = []string{"postgres:*"}, []tranter.Image{greeter(r.t, "", "x")}
		}, "configuration", []string{"allowed_services", "postgres:*"}},
		"too many services": {func(r *rig) {
			r.settings.ServicesLimit, r.job.Services = config.Optional[int]{Value: 0, Set: true}, []tranter.Image{greeter(r.t, "", "x")}
		}, "configuration", []string{"services_limit", "allows 0"}},
		"another pull policy": {func(r *rig) { r.job.Image.PullPolicy = []string{"never"} }, "configuration", []string{"never", "allowed_pull_policies"}},
		"an allowed policy": {func(r *rig) {
			r.settings.AllowedPullPolicies, r.job.Image.PullPolicy = []string{"never", "if-not-present"}, []string{"never"}
		}, "none", nil},
		"another user": {func(r *rig) {
			r.settings.AllowedUsers, r.job.Image.ExecutorOpts = []string{"1000"}, []byte(`{"docker":{"user":"root"}}`)
		}, "configuration", []string{`"root"`, "allowed_users"}},
		"an allowed user": {func(r *rig) {
			r.settings.AllowedUsers, r.job.Image.ExecutorOpts = []string{"1000"}, []byte(`{"docker":{"user":"1000"}}`)
		}, "none", nil},
		"options of nothing": {func(r *rig) { r.job.Image.ExecutorOpts = []byte(`{"docker":{"privileged":true}}`) }, "system", []string{"privileged", "platform, user"}},
		"a strange platform": {func(r *rig) { r.job.Image.ExecutorOpts = []byte(`{"docker":{"platform":"x"}}`) }, "configuration", []string{"linux/arm64"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			tt.set(r)
			r.refused(tt.kind, tt.wants...)
		})
	}
}

// What is asked of the engine is seen by a front, and not passed on: not every machine's engine may start such containers.
func TestPrivileged(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set                    func(*config.Docker)
		build, helper, service bool
	}{
		"nobody":        {func(*config.Docker) {}, false, false, false},
		"all":           {func(d *config.Docker) { d.Privileged = true }, true, true, true},
		"no services":   {func(d *config.Docker) { d.Privileged, d.ServicesPrivileged = true, config.Optional[bool]{Set: true} }, true, true, false},
		"services only": {func(d *config.Docker) { d.ServicesPrivileged = config.Optional[bool]{Value: true, Set: true} }, false, false, true},
		"allowed ones": {func(d *config.Docker) {
			d.Privileged, d.AllowedPrivilegedImages, d.AllowedPrivilegedServices = true, []string{"**/busybox:*"}, []string{"**/ports:*"}
		}, true, false, true},
		"ones not allowed": {func(d *config.Docker) {
			d.Privileged, d.AllowedPrivilegedImages, d.AllowedPrivilegedServices = true, []string{"docker:*"}, []string{"docker:*"}
		}, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.job.Services = []tranter.Image{greeter(t, "web", "x")}
			tt.set(&r.settings)
			asked := map[string]bool{}
			var seen sync.Mutex
			r.settings.Host = front(t, r.settings.Host, func(request map[string]any) {
				host, _ := request["HostConfig"].(map[string]any)
				labels, _ := request["Labels"].(map[string]any)
				kind, _ := labels["com.gitlab.gitlab-runner.type"].(string)
				privileged, _ := host["Privileged"].(bool)
				seen.Lock()
				asked[kind] = privileged
				seen.Unlock()
				host["Privileged"] = false
			})
			r.open()
			equal(t, "privileged", fmt.Sprint(asked["build"], asked["predefined"], asked["service"]), fmt.Sprint(tt.build, tt.helper, tt.service))
		})
	}
}

// An engine that may not give all rights itself says so in terms that help.
func TestPrivilegedThatTheEngineMayNotGive(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.Privileged = true
	if err := r.try(); err != nil {
		equal(t, "kind of the error", kindOf(err), "configuration")
		has(t, err.Error(), "the engine itself lacks rights", "remove privileged")
		return
	}
	r.sources()
	equal(t, "privileged", r.build().HostConfig.Privileged, true)
	has(t, r.script("grep CapEff /proc/self/status"), "ffffffff")
}

func TestNoHelperImage(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.HelperImage, r.settings.HelperImageFlavor = "", "ubuntu"
	err := r.tryWithin(15 * time.Second) // its registry is not ours
	if err == nil {                      // somebody has made one here
		r.sources()
		return
	}
	has(t, err.Error(), "make helper-image", "helper_image in [runners.docker]", "gitlab-runner-helper:ubuntu-")
}

// What the kernel kills for want of memory is told of with what to raise, be it the script or one of its commands.
func TestScriptsThatRunOutOfMemory(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.Memory, r.settings.MemorySwap = "64m", "64m"
	r.open()
	r.sources()
	result, log, err := r.perform(r.phase("script", tranter.PlaceBuild, "tail -c 300000000 /dev/zero"))
	if err != nil || result.Status != tranter.PhaseFailed || result.Reason != tranter.ScriptFailure || result.ExitCode != 137 {
		t.Errorf("%+v, %v\n%s", result, err, log)
	}
	has(t, result.Message, "ran out of memory: raise memory in [runners.docker]")
}

// A disk that is full is told of, whoever writes to it.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.VolumeDriver, r.settings.VolumeDriverOps = "local", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
	r.open()
	r.sources()
	result, log, err := r.perform(r.phase("script", tranter.PlaceBuild, "head -c 3000000 /dev/zero >file"))
	if err != nil || result.Status != tranter.PhaseFailed || result.Reason != tranter.RunnerSystemFailure {
		t.Errorf("%+v, %v", result, err)
	}
	has(t, result.Message, "no space is left on the disk of /builds")
	has(t, log, ">file")
}

func TestEnginesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.30")
		w.Header().Set("Ostype", "linux")
		if strings.HasSuffix(r.URL.Path, "/_ping") {
			_, _ = w.Write([]byte("OK"))
			return
		}
		_, _ = w.Write([]byte(`{"ID":"old","Name":"old","OSType":"linux","Architecture":"x86_64","ServerVersion":"17.06","ApiVersion":"1.30","Version":"17.06","Os":"linux","Arch":"amd64"}`))
	}))
	t.Cleanup(old.Close)
	for name, tt := range map[string]struct {
		host  string
		limit time.Duration // 3 s: an engine that may come is waited for until then
		wants []string
	}{
		"too old":          {"tcp://" + old.Listener.Addr().String(), 20 * time.Second, []string{"1.30", "update the engine"}},
		"no socket":        {"unix:///no/such/docker.sock", 3 * time.Second, []string{"/no/such/docker.sock", "host"}},
		"nobody listens":   {"tcp://127.0.0.1:9", 3 * time.Second, []string{"127.0.0.1:9"}},
		"no address":       {"nonsense", 20 * time.Second, []string{"nonsense"}},
		"another protocol": {"http://127.0.0.1:9", 20 * time.Second, []string{"http"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.settings.Host = tt.host
			err := r.tryWithin(tt.limit)
			if err == nil {
				t.Fatal("it works")
			}
			t.Logf("%s: %v", kindOf(err), err)
			has(t, err.Error(), tt.wants...)
		})
	}
}
