// Package plan turns a job's payload and the runner's settings into phases of typed steps: which directories, variables
// and scripts, in which order, under which conditions.
//
// It is pure, and the only place where the meaning of a payload is decided; the agent carries out what it says. Package
// job calls it.
package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// Settings is what a runner's configuration, its executor and this program contribute to a job.
type Settings struct {
	Name        string // of the runner
	Executor    string
	ServerURL   string
	ShortToken  string
	SystemID    string
	Environment []string // KEY=VALUE
	Flags       map[string]bool
	OutputLimit int64 // bytes of the whole log; 0: none

	Dirs    DirSettings
	Shell   string // bash, sh, pwsh or powershell
	Login   bool   // start it as a login shell
	Shared  bool   // environments are shared by jobs, and so is the home directory
	Scripts Scripts
	Limits  Limits
	Git     GitSettings
	Cache   CacheSettings
	Program Program

	DebugTraceDisabled bool
	RestartLost        bool // a job whose machine was lost starts again, unless it says otherwise (TRANTER_RESTART_LOST)

	Containers
}

// Containers says what of a job is in containers.
type Containers struct {
	Container bool // jobs run in containers
	Helper    bool // one of them is there for sources, caches and artifacts
	Network   bool // they may be in a network that is made for the job
	// ReadFile reads what jobs log in to the server with, if they can't do that themselves, as in containers.
	ReadFile func(path string) ([]byte, error)
}

// DirSettings says where jobs work. Paths are absolute in the job's environment.
type DirSettings struct {
	Builds       string
	Cache        string
	SharedBuilds bool // jobs that run at the same time share Builds
	Custom       bool // GIT_CLONE_PATH is allowed
}

// Scripts are the configuration's hooks.
type Scripts struct{ PreGetSources, PostGetSources, PreBuild, PostBuild string }

// Limits are the configuration's limits; 0 means the job's timeout or, for the last two, the defaults of one hour and
// ten minutes.
type Limits struct{ Prepare, GetSources, Upload, UploadHeader time.Duration }

// GitSettings is what the configuration says about sources.
type GitSettings struct {
	CloneURL      string
	SafeDirectory bool
	CleanConfig   bool
}

// CacheSettings is what the configuration says about the shared cache.
type CacheSettings struct {
	Type, Directory, Path string
	Shared                bool
	MaxUpload             int64 // bytes
}

// Program names this program to the job.
type Program struct{ Version, Commit, Arch string }

// Plan is what to do for a job.
type Plan struct {
	Dirs     tranter.Dirs
	Phases   []tranter.Phase
	Header   []string // first lines of the log
	Warnings []string // about the job's settings, for the log
	Masked   []tranter.Secret
	Sections bool
	Stamps   bool
	Debug    bool // the log may hold secrets
	Timeout  time.Duration
}

// Variables returns the job's: complete, ordered, expanded.
func (p *Plan) Variables() []tranter.Variable { return p.Phases[0].Variables }

// Format returns how messages about the job are to be written into its log, before and after its phases.
func (p *Plan) Format() tranter.LogFormat {
	f := p.Phases[0].Log
	f.LimitBytes = 0
	return f
}

// Format returns how messages about a job are to be written for which there is no plan, because none can be made or
// because only its end is left to tell.
func Format(job *tranter.Job, s Settings) tranter.LogFormat {
	b := &builder{job: job, settings: s}
	b.resolveFlags()
	b.vars = b.early.Expand("")
	f := b.format()
	f.LimitBytes = 0
	return f
}

// builder holds what the parts of a plan need of each other.
type builder struct {
	job      *tranter.Job
	settings Settings
	flags    map[string]bool
	early    variables.List // what the runner's environment and the payload say, unexpanded
	raw      variables.List // as in reader, unexpanded
	dirs     tranter.Dirs
	reader
}

// UnsupportedError means that a job asks for what this runner can't do, so that its result would be wrong.
type UnsupportedError struct{ Err error }

func (e *UnsupportedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Build makes the plan for a job. An error that is a *tranter.ConfigError is the user's, an *UnsupportedError means that
// the job asks for what this runner can't do.
func Build(job *tranter.Job, s Settings, slots variables.Slots) (*Plan, error) {
	if err := supported(job); err != nil {
		return nil, err
	}
	b := &builder{job: job, settings: s, reader: reader{timeout: job.Timeout()}}
	p, err := b.plan(slots)
	if err != nil {
		return nil, public(b, err)
	}
	return p, nil
}

func (b *builder) plan(slots variables.Slots) (*Plan, error) {
	if err := b.resolve(slots); err != nil {
		return nil, err
	}
	steps, err := b.steps()
	if err != nil {
		return nil, err
	}
	phases := split(b, steps)
	b.notices()
	return &Plan{
		Dirs:     b.dirs,
		Phases:   phases,
		Header:   b.header(),
		Warnings: b.warnings,
		Masked:   phases[0].Log.Phrases,
		Sections: phases[0].Log.Sections,
		Stamps:   phases[0].Log.Timestamps,
		Debug:    debug(b),
		Timeout:  b.job.Timeout(),
	}, nil
}

// supported refuses jobs whose result would be wrong without something that is not there.
func supported(job *tranter.Job) error {
	if len(job.Secrets) > 0 {
		return &UnsupportedError{errors.New("the job uses secrets: of an external provider that were not fetched")}
	}
	if !slices.Contains([]string{"", "null", "[]"}, job.Run) {
		return &UnsupportedError{errors.New("the job uses run: steps, which this runner can't execute; use script")}
	}
	return nil
}

// resolve finds flags, directories and variables, which depend on each other in this order.
func (b *builder) resolve(slots variables.Slots) error {
	b.resolveFlags()
	if b.flags["FF_ENABLE_JOB_INPUTS_INTERPOLATION"] && len(b.job.Inputs) > 0 {
		job, err := withInputs(b.job)
		if err != nil {
			return &tranter.ConfigError{Err: err}
		}
		b.job = job
	}
	p := variables.Provided{
		Flags: b.flags, ShortToken: b.settings.ShortToken, Environment: b.settings.Environment,
		Dirs: tranter.Dirs{Builds: b.settings.Dirs.Builds}, Slots: slots, Timeout: b.job.Timeout(),
		TLSCA: b.job.Local[tranter.LocalTLSCA], TLSCert: b.job.Local[tranter.LocalTLSCert], TLSKey: b.job.Local[tranter.LocalTLSKey],
		Shared: b.settings.Shared, Version: b.settings.Program.Version, Commit: b.settings.Program.Commit, Arch: b.settings.Program.Arch,
	}
	if b.settings.Network && b.flags["FF_NETWORK_PER_BUILD"] {
		p.Network = variables.NetworkName(b.settings.ShortToken, b.job.Info.ProjectID, slots.Project, b.job.ID)
	}
	if err := carryTLS(b, &p); err != nil {
		return err
	}
	b.raw = variables.Build(b.job, p)
	dirs, err := b.directories(slots)
	if err != nil {
		return err
	}
	b.dirs, p.Dirs = dirs, dirs
	p.Image = b.raw.ExpandString(b.job.Image.Name, dirs.Temp)
	b.raw = variables.Build(b.job, p)
	b.vars = b.raw.Expand(dirs.Temp)
	return nil
}

// carryTLS reads the client certificate and its key for jobs that can't do it, as they are in containers.
func carryTLS(b *builder, p *variables.Provided) error {
	if p.TLSFiles = b.settings.ReadFile != nil; !p.TLSFiles {
		return nil
	}
	for _, file := range []*string{&p.TLSCert, &p.TLSKey} {
		if *file == "" {
			continue
		}
		text, err := b.settings.ReadFile(*file)
		if err != nil {
			return fmt.Errorf("read what jobs log in to the server with: %w", err)
		}
		*file = string(text)
	}
	return nil
}

// serverFile returns the path of the client certificate, or of its key, as the job sees it.
func serverFile(b *builder, local, variable string) string {
	if own := b.job.Local[local]; own == "" || b.settings.ReadFile == nil {
		return own
	}
	return path.Join(b.dirs.Temp, variable)
}

// resolveFlags finds the feature flags, which variables of the job and of the runner's environment may set.
func (b *builder) resolveFlags() {
	for _, kv := range b.settings.Environment {
		if k, v, ok := strings.Cut(kv, "="); ok {
			b.early = append(b.early, tranter.Variable{Key: k, Value: v})
		}
	}
	b.early = append(b.early, b.job.Variables...)
	var warnings []string
	b.flags, warnings = variables.ResolveFlags(b.settings.Flags, b.early)
	b.warnings = append(b.warnings, warnings...)
}

// directories returns where the job works (runner contract, section 3.11).
func (b *builder) directories(slots variables.Slots) (tranter.Dirs, error) {
	d := b.settings.Dirs
	slug := projectSlug(b.job)
	project := path.Join(d.Builds, slug)
	if d.SharedBuilds {
		project = path.Join(d.Builds, b.settings.ShortToken, fmt.Sprint(slots.Project), slug)
	}
	if custom := b.raw.ExpandString(b.raw.Get("GIT_CLONE_PATH"), ""); custom != "" {
		if !d.Custom {
			return tranter.Dirs{}, &tranter.ConfigError{Err: errors.New("setting GIT_CLONE_PATH is not allowed: the runner's configuration does not set custom_build_dir.enabled")}
		}
		custom = path.Clean(custom)
		if custom == d.Builds || !strings.HasPrefix(custom, strings.TrimSuffix(d.Builds, "/")+"/") {
			return tranter.Dirs{}, &tranter.ConfigError{Err: fmt.Errorf("the GIT_CLONE_PATH %q is not within the builds directory %q", custom, d.Builds)}
		}
		project = custom
	}
	if b.strategy(false) == "empty" {
		project += "-empty"
	}
	return tranter.Dirs{Builds: d.Builds, Project: project, Temp: project + ".tmp", Cache: path.Join(d.Cache, slug)}, nil
}

// projectSlug returns the path of the repository's URL without ".git", which cannot lead out of where it is put.
func projectSlug(job *tranter.Job) string {
	u := job.CleanRepoURL()
	_, rest, ok := strings.Cut(u, "://")
	_, p, hasPath := strings.Cut(rest, "/")
	p = strings.TrimSuffix(strings.Trim(path.Clean("/"+p), "/"), ".git")
	if !ok || !hasPath || strings.HasPrefix(rest, "/") || p == "" {
		return fmt.Sprintf("project-%d", job.Info.ProjectID)
	}
	return p
}

func debug(b *builder) bool {
	on, _ := b.vars.Bool("CI_DEBUG_TRACE")
	services, _ := b.vars.Bool("CI_DEBUG_SERVICES")
	return (on || services) && !b.settings.DebugTraceDisabled
}

// header returns the first lines of the log (runner contract, section 3.2, step 2).
func (b *builder) header() []string {
	s := b.settings
	lines := []string{
		fmt.Sprintf("Running with tranter %s (%s)", s.Program.Version, s.Program.Commit),
		fmt.Sprintf("  on %s %s, system ID: %s", s.Name, s.ShortToken, s.SystemID),
	}
	if changed := variables.ChangedFlags(b.flags); len(changed) > 0 {
		lines = append(lines, "  feature flags: "+strings.Join(changed, ", "))
	}
	if p := b.job.Policy; p.ExecutionPolicyJob && p.PolicyName != "" {
		lines = append(lines, "  job of the policy "+p.PolicyName)
	}
	return lines
}

// format returns how the job's log is written.
func (b *builder) format() tranter.LogFormat {
	return tranter.LogFormat{
		Timestamps:    b.flags["FF_TIMESTAMPS"],
		Sections:      b.job.Features.TraceSections,
		LimitBytes:    b.settings.OutputLimit,
		LimitWhole:    b.settings.OutputLimit,
		Phrases:       b.secrets(),
		TokenPrefixes: b.job.Features.TokenMaskPrefixes,
		FewTokens:     !b.flags["FF_MASK_ALL_DEFAULT_TOKENS"],
	}
}

// secrets returns all values that must not be seen in the log: masked variables, and the tokens in the payload, which
// the stock runner masks only when they have a known prefix.
func (b *builder) secrets() []tranter.Secret {
	var out []tranter.Secret
	seen := map[string]bool{}
	add := func(s string) {
		if s = strings.TrimSpace(s); s != "" && !seen[s] {
			seen[s] = true
			out = append(out, tranter.Secret(s))
		}
	}
	for _, s := range b.vars.Masked() {
		add(s)
	}
	add(b.job.Token.Reveal())
	add(repoPassword(b.job))
	for _, d := range b.job.Dependencies {
		add(d.Token.Reveal())
	}
	for _, c := range b.job.Credentials {
		add(c.Password.Reveal())
	}
	return out
}
