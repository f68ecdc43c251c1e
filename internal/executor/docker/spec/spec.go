// Package spec compiles a runner's [runners.docker] settings and one job into what is asked of a Docker Engine: the
// requests that make the job's containers, network and volumes, their names and labels, and the list of its services.
//
// It is pure: it reads no clock and no file, and asks no engine; facts that only those know come in with the arguments.
// The docker executor calls it (runner contract, sections 9.5 to 9.11 and 11.4).
package spec

import (
	"errors"
	"fmt"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/variables"
)

// Where the agent is in a container.
const (
	AgentDir      = "/.tranter/bin" // mount point of the agent's volume
	AgentProgram  = AgentDir + "/tranter"
	WorkerProgram = AgentDir + "/tranter-work" // what an image's entrypoint is to start: a link to AgentProgram
	AgentRoot     = "/.tranter/job"            // a memory file system for secrets and journals
)

// Input is all that a job's requests depend on.
type Input struct {
	Settings  config.Docker
	Job       *tranter.Job
	Variables []tranter.Variable // of the job: complete, expanded; a file variable holds its content
	Dirs      tranter.Dirs
	Runner    Runner
	Slots     variables.Slots
	Slot      Slot            // of the machine, for control groups
	Session   string          // 16 random hex digits
	Name      string          // tranter.SessionSpec.Name
	Expires   time.Time       // when all that is made may be removed by anybody; zero: never
	Flags     map[string]bool // resolved feature flags
	Agent     AgentVolume
	API       string // version that is spoken with the engine, such as "1.41"
	Podman    bool   // the engine is Podman, which takes some settings in another form
	Mirror    string // address of a registry mirror for engines among the services; "": none
	// ReadFile reads a seccomp profile that the settings name; nil: there are no files.
	ReadFile func(path string) ([]byte, error)
}

// Runner is who runs the job. Owner is the manager's id, for the label that says whose the containers are.
type Runner struct {
	ShortToken string
	Token      tranter.Secret // its hash is in the names of cache volumes
	SystemID   string
	Owner      string
	LocalID    int // number among the manager's jobs of this runner
}

// Slot is a place on a machine that runs several jobs at a time. Each has a control group of its own if Use is set
// (use_slot_cgroups); ${slot} in Template stands for Number.
type Slot struct {
	Use      bool
	Template string
	Number   int
}

// AgentVolume is the volume with the agent's program, and how large AgentRoot may grow.
type AgentVolume struct {
	Volume string
	Room   int64 // bytes; 0: the engine's default, half of the memory
}

// Image is what must be known of an image to make a container from it.
type Image struct {
	Use        string   // what to create the container from: an id or a digest
	Entrypoint []string // the image's own
}

// Host is a service that runs: its container's id and addresses.
type Host struct {
	Service   int // index in Spec.Services
	ID        string
	Addresses []string // IPv4 and IPv6
}

// Spec is what a job needs of an engine.
type Spec struct {
	Unique string // the stock name of the job's slot, which is the host name too
	Prefix string // of the names of all containers

	Image      string   // of the build container, as the job or the settings name it, variables put in
	PullPolicy []string // that the job asks for
	Platform   string   // that the job asks for; "": the engine's

	HelperImage  string // as the settings name it, variables put in; "": ours
	HelperFlavor string
	Helperless   bool // the build container does what the helper container would

	Services []Service // in the order in which they are started

	// Open are the mount points that the agent of the helper, or of the build container if Helperless, makes writable
	// for everybody; they are in its command already.
	Open        []string
	Temporary   []string // names of volumes to be removed after the job
	Caches      []string // names of volumes that stay
	KeepVolumes bool     // anonymous volumes stay when containers are removed

	// Linked says that the names of services come from hosts entries: they must run before the containers are made that
	// are to know them. Otherwise the network resolves their names.
	Linked bool

	Warnings []string // for the job's log

	job    *job
	labels labels
	net    networking
	vols   volumes
	parts  parts
}

// job is what requests are made for, and what its user is to be told.
type job struct {
	in       Input
	vars     variables.List
	warnings []string
}

// Compile makes the requests for a job. The error is a *tranter.ConfigError when the settings or what the job asks for
// can't be carried out; options of the job's image that nobody knows give another one (runner contract, section 2.6).
func Compile(in Input) (*Spec, error) {
	if in.Job == nil {
		return nil, errors.New("there is no job")
	}
	j := &job{in: in, vars: in.Variables}
	s := &Spec{job: j, labels: newLabels(j), Helperless: in.Settings.DisableHelper, KeepVolumes: in.Settings.VolumeKeep}
	s.net, s.vols = networking{job: j}, volumes{job: j, labels: s.labels}
	s.Unique = UniqueName(in.Runner.ShortToken, in.Job.Info.ProjectID, in.Slots.Project)
	s.Prefix = s.Unique + "-" + in.Session
	s.HelperImage, s.HelperFlavor = j.expand(in.Settings.HelperImage), j.expand(in.Settings.HelperImageFlavor)
	for _, compile := range []func() error{
		s.compileImage, s.compileResources, s.compileDevices, s.compileSecurity, s.compileLog,
		s.net.compile, func() error { return s.vols.compile(s.Prefix) }, s.compileServices,
	} {
		if err := compile(); err != nil {
			return nil, err
		}
	}
	s.Linked, s.Open, s.Caches, s.Temporary, s.Warnings = s.net.byHosts(), s.vols.open, s.vols.caches, s.vols.temporary, j.warnings
	return s, nil
}

// DefaultImage returns the settings' image with variables put in. It is always allowed (runner contract, section 9.7).
func (s *Spec) DefaultImage() string { return s.job.expand(s.job.in.Settings.Image) }

// expand puts the job's variables in (runner contract, section 5.2).
func (j *job) expand(text string) string { return j.vars.ExpandString(text, j.in.Dirs.Temp) }

func (j *job) warn(format string, args ...any) {
	j.warnings = append(j.warnings, fmt.Sprintf(format, args...))
}

// invalid is an error about a key of [runners.docker].
func invalid(key string, err error) error {
	return &tranter.ConfigError{Err: fmt.Errorf("%s in [runners.docker]: %w", key, err)}
}
