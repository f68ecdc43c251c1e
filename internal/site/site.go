package site

import (
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
)

// Source is a site file and the surroundings that it refers to.
type Source struct {
	Name string // path of the file, for messages; relative paths in it start at its directory
	Path string // the same as an absolute path, for what is generated; Name unless given
	Data []byte
	// Read reads included files and files of values. Nil: those can't be had, which is a problem where one is named.
	Read func(path string) ([]byte, error)
	// List returns the files that a pattern of include stands for, in order; nil: as Read.
	List func(pattern string) ([]string, error)
	// Env looks up variables of the environment; nil: there are none.
	Env func(name string) (string, bool)
	// This is the path of our own program, $THIS in the file. Home is what a leading ~ stands for.
	This, Home string
}

// Scope is what a runner serves: a project, a group, or the instance.
type Scope struct {
	Kind string `json:"kind"`           // project, group or instance
	Path string `json:"path,omitempty"` // full path of the project or group
}

// The kinds of scopes.
const (
	ScopeProject  = "project"
	ScopeGroup    = "group"
	ScopeInstance = "instance"
)

// String returns the scope for people: "project a/b".
func (s Scope) String() string {
	if s.Path == "" {
		return s.Kind
	}
	return s.Kind + " " + s.Path
}

// Site is what a site file says.
type Site struct {
	Name      string
	URL       string         // of the server, without a slash at the end
	Token     tranter.Secret // the management token
	TLSCAFile string         // absolute, or empty
	Scopes    []Scope        // of the file; a runner may have others
	Poll      time.Duration  // between two looks at jobs that wait
	Runners   []Runner       // in the order of the file
	Manager   config.Config  // settings that are not of one runner: concurrent, log_level ...; without runners
	Path      string         // of the file, absolute
	This      string         // path of our own program
	Files     []string       // the file and what it includes, as problems name them

	pending    []Scope        // where jobs wait that runners of the instance may have
	concurrent bool           // is given
	stock      config.Section // top of a configuration for the stock runner
	hidden     []string       // texts that are not to be shown
}

// Runner is one runner at the server. A [runners.NAME] whose scopes can't be served by one is several: one for all its
// projects, and one for each group and for the instance.
type Runner struct {
	Name        string // in the file: [runners.NAME]; from the second one of a section on, with its scope added
	Description string // at the server: <site>-<name> unless given
	File        string
	Line        int // of its section in File
	Column      int
	Scope       Scope   // where the runner is made
	Projects    []Scope // further projects that it is to serve: a project runner may serve several
	Pending     []Scope // where its jobs wait
	Tags        []string

	Paused, Locked, RunUntagged config.Optional[bool] // not given: as the server has it; new ones: not paused, locked, no untagged jobs
	AccessLevel                 string                // not_protected, ref_protected or empty
	MaximumTimeout              time.Duration         // 0: none
	MaintenanceNote             string

	Priority config.Optional[int] // launch_priority: higher ones first, none last
	Launch   *Launch              // nil: no command
	Section  config.Runner        // as of config.toml, without url and token; no executor: the file does not say how jobs run

	given config.Section // the section as the stock runner gets it, without url and token
}

// Token is what is known of a runner that has been made at the server.
type Token struct {
	ID         int64          `json:"id"`
	Token      tranter.Secret `json:"token"`
	ObtainedAt time.Time      `json:"obtained_at,omitzero"`
	ExpiresAt  time.Time      `json:"expires_at,omitzero"`
}

// Parse reads a site file and what it includes. The site can be used if no problem is an Error. Problems are in the order
// of the files, each file by its lines.
func Parse(s Source) (Site, []config.Problem) {
	return parse(s)
}
