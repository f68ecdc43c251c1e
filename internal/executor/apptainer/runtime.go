package apptainer

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/apptainer/image"
)

// runtime is one kind of program that runs containers.
type runtime string

// The runtimes, as the configuration calls them.
const (
	apptainer    runtime = "apptainer"
	singularity  runtime = "singularity"
	charliecloud runtime = "charliecloud"
	bubblewrap   runtime = "bubblewrap"
)

func runtimeOf(s config.Apptainer) (runtime, error) {
	switch rt := runtime(cmp.Or(s.Runtime, string(apptainer))); rt {
	case apptainer, singularity:
		return rt, nil
	case charliecloud, bubblewrap:
		if s.ImageForm == "sif" {
			return "", configError("image_form = \"sif\" in [runners.apptainer] needs the runtime apptainer or singularity; %s takes directories", rt)
		}
		return rt, nil
	default:
		return "", configError("runtime = %q in [runners.apptainer] is not known: use apptainer, singularity, charliecloud or bubblewrap", s.Runtime)
	}
}

func configError(format string, args ...any) error {
	return &tranter.ConfigError{Err: fmt.Errorf(format, args...)}
}

// title is how the log calls the runtime.
func (r runtime) title() string { return strings.ToUpper(string(r[:1])) + string(r[1:]) }

func (r runtime) program() string {
	switch r {
	case charliecloud:
		return "ch-run"
	case bubblewrap:
		return "bwrap"
	default:
		return string(r)
	}
}

// sif says whether the runtime has images in files.
func (r runtime) sif() bool { return r == apptainer || r == singularity }

// form is how images are to lie in the store.
func (r runtime) form(setting string) image.Form {
	if setting == "sif" {
		return image.File
	}
	return image.Directory
}

// tools are the host's programs that make containers: paths.
type tools struct {
	Runtime string `json:"runtime"`
	Unshare string `json:"unshare,omitempty"`
	Shell   string `json:"shell,omitempty"`
	Enter   string `json:"enter,omitempty"`
}

// findTools looks the programs up that a runtime needs.
func findTools(r runtime, s config.Apptainer) (tools, error) {
	var t tools
	var err error
	name := cmp.Or(s.Executable, r.program())
	if t.Runtime, err = exec.LookPath(name); err != nil {
		return t, fmt.Errorf("the container runtime %s is not there: install it, or set runtime or executable in [runners.apptainer]: %w", r, err)
	}
	if t.Runtime, err = filepath.Abs(t.Runtime); err != nil {
		return t, err
	}
	needed := map[string]*string{}
	if !r.sif() || s.Network == "job" {
		needed["unshare"], needed["sh"] = &t.Unshare, &t.Shell
	}
	if s.Network == "job" {
		needed["nsenter"] = &t.Enter
	}
	for name, path := range needed {
		if *path, err = exec.LookPath(name); err != nil {
			return t, fmt.Errorf("%s, which containers need, is not there: %w", name, err)
		}
	}
	return t, nil
}

// bind is a file or directory of the host that a container has.
type bind struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

func (b bind) String() string {
	if b.ReadOnly {
		return b.Source + ":" + b.Target + ":ro"
	}
	return b.Source + ":" + b.Target
}

// container says how containers from one image are run: plain data, which outlives the manager in a file.
type container struct {
	Runtime  runtime  `json:"runtime"`
	Tools    tools    `json:"tools"`
	Image    string   `json:"image"`           // path
	Layer    string   `json:"layer,omitempty"` // directory for what is written, of runtimes without a layer of their own
	Home     string   `json:"home"`
	Tmp      string   `json:"tmp"` // what is the container's /tmp
	Env      []string `json:"env"`
	Binds    []bind   `json:"binds"` // later ones may be below earlier ones
	Nvidia   bool     `json:"nvidia,omitempty"`
	AMD      bool     `json:"amd,omitempty"`
	Writable bool     `json:"writable,omitempty"`
	Options  []string `json:"options,omitempty"`
	Before   []string `json:"before,omitempty"` // the entrypoint: it gets the command
	Dir      string   `json:"dir,omitempty"`    // to start in
}

// invocation is a command line with its environment.
type invocation struct {
	Argv []string
	Env  []string
}

// command returns what runs argv in a container. network is the process whose network it is in, or 0; mark is the value
// of the variable by which what runs there is found again.
func (c container) command(network int, mark string, argv []string) (invocation, error) {
	argv = append(append([]string(nil), c.Before...), argv...)
	if c.Runtime.sif() {
		return c.sifCommand(network, mark, argv), nil
	}
	if err := c.prepareLayer(); err != nil {
		return invocation{}, err
	}
	if c.Runtime == charliecloud {
		return c.charliecloudCommand(network, mark, argv)
	}
	return c.bubblewrapCommand(network, mark, argv)
}

// marker is the variable by which agents and what they have started are found (package agent).
const marker = "TRANTER_PHASE_DIR"

// hostEnv is what the host's programs get.
func (c container) hostEnv(mark string) []string {
	env := []string{marker + "=" + mark, "PATH=" + cmp.Or(os.Getenv("PATH"), defaultPath) + ":/usr/sbin:/sbin"}
	for _, name := range []string{"USER", "LOGNAME", "HOME", "LANG", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// enter is in front of a command that joins a network.
func (c container) enter(network int) []string {
	if network == 0 {
		return nil
	}
	out := []string{c.Tools.Enter, "--target", strconv.Itoa(network), "--net"}
	if os.Geteuid() != 0 {
		out = append(out, "--user", "--preserve-credentials")
	}
	return append(out, "--")
}

// sifCommand is Apptainer's or Singularity's. Variables come in by its own prefix: they are in no command line, and mean
// nothing to the runtime itself (hpc, section 4.3).
func (c container) sifCommand(network int, mark string, argv []string) invocation {
	out := append(c.enter(network), c.Tools.Runtime, "exec", "--cleanenv", "--contain", "--pid", "--ipc", "--home", c.Home)
	if network != 0 && os.Geteuid() != 0 {
		out = append(out, "--userns")
	}
	if c.Writable {
		out = append(out, "--writable-tmpfs")
	}
	if c.Nvidia {
		out = append(out, "--nv")
	}
	if c.AMD {
		out = append(out, "--rocm")
	}
	for _, b := range c.Binds {
		out = append(out, "--bind", b.String())
	}
	if c.Dir != "" {
		out = append(out, "--pwd", c.Dir)
	}
	out = append(append(append(out, c.Options...), c.Image), argv...)
	prefix := strings.ToUpper(string(c.Runtime))
	env := c.hostEnv(mark)
	for _, kv := range os.Environ() { // an administrator's settings for it
		if strings.HasPrefix(kv, prefix+"_") {
			env = append(env, kv)
		}
	}
	for _, kv := range append(c.Env, marker+"="+mark) {
		if !strings.HasPrefix(kv, "HOME=") { // --home says it
			env = append(env, prefix+"ENV_"+kv)
		}
	}
	return invocation{Argv: out, Env: env}
}
