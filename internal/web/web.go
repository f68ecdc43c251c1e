// Package web is the page on which people see what the manager does: jobs, machines, runners, events and cost, live, with actions for
// those who hold the token; and the small endpoints for monitoring that GitLab Runner has at its listen_address (runner contract,
// section 12.6).
//
// All is rendered here, on the server; pages work without JavaScript, which adds live updates, charts and the log viewer. Nothing on
// a page comes from elsewhere, and nothing in a page is executed: scripts and styles are files, and the content security policy
// lets nothing else in.
package web

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/events"
	"github.com/tranter-ci/tranter/internal/view"
)

// Options say what the pages show and what they may do. Source is needed; a page whose part is missing says so.
type Options struct {
	Source    Source
	Past      Past
	Logs      Logs
	Bills     Bills
	Control   Control
	Config    func() ConfigView
	Events    *events.Hub
	Token     tranter.Secret // for actions and pprof; empty: there are none
	ReadToken tranter.Secret // for reading; empty: who reaches the address may read
	Metrics   http.Handler   // nil: no /metrics
	Checks    func(context.Context) []Check
	Version   string
	Log       *slog.Logger // nil: nothing is logged
	Links     Links
}

// Source tells what is there now. It is asked about once in a second, however many people look on.
type Source interface {
	Snapshot(ctx context.Context) (view.Snapshot, error)
}

// Past tells what was. Errors of Job wrap tranter.ErrNotFound for what is not known.
type Past interface {
	Jobs(ctx context.Context, q view.JobQuery) ([]tranter.JobHistory, error)
	Job(ctx context.Context, key string) (tranter.JobHistory, error)
	Events(ctx context.Context, q view.EventQuery) ([]tranter.Event, error)
	Lanes(ctx context.Context, q view.LaneQuery) ([]view.Lane, error)
	Chart(ctx context.Context, q view.ChartQuery) (view.Chart, error)
}

// Bills tells what things have cost.
type Bills interface {
	Report(ctx context.Context, q cost.Query) (cost.Report, error)
	Job(ctx context.Context, j tranter.JobHistory) (cost.JobCost, error)
}

// Logs opens the log of a job that runs, or of one that has ended as long as it is kept; else the error wraps tranter.ErrNotFound.
type Logs interface {
	Open(ctx context.Context, key string) (Log, error)
}

// Log is a job's log.
type Log interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error) // now, in bytes
	Live() bool           // more may come
}

// Control does what people want done. Errors wrap tranter.ErrNotFound for what is not there.
type Control interface {
	Drain(ctx context.Context) error
	Pause(ctx context.Context, runner string, paused bool, by string) error
	RemoveMachine(ctx context.Context, name string, force bool) error
	DrainMachine(ctx context.Context, name string) error
	CancelJob(ctx context.Context, key, by string) error
}

// Check is a line of /readyz.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// ConfigView is the configuration as effective, with every secret starred.
type ConfigView struct {
	Path    string         `json:"path"`
	Global  string         `json:"global,omitempty"` // TOML of what is not a runner's
	Runners []RunnerConfig `json:"runners"`
	// Problems are those of the whole file.
	Problems []ConfigProblem `json:"problems,omitempty"`
}

// RunnerConfig is the effective configuration of one runner.
type RunnerConfig struct {
	Runner   string          `json:"runner"` // short token
	Name     string          `json:"name"`
	Text     string          `json:"text"` // TOML
	Problems []ConfigProblem `json:"problems,omitempty"`
}

// ConfigProblem is something that the check of a configuration has to say.
type ConfigProblem struct {
	Level string `json:"level"` // error, warning or note
	At    string `json:"at,omitempty"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// Links say where things are that are not ours.
type Links struct {
	GitLab map[string]string // address of GitLab by the runner's short token
	Docs   string            // address of the documentation; empty: no link
}

// Server serves the pages.
type Server struct {
	options Options
	log     *slog.Logger
	assets  *assets
	pages   *pages
	now     *snapshots
	rights  *rights
	hub     *live
	cache   *renderings
}

// New makes a server. It panics when the templates that were built in are broken, which a test would see.
func New(o Options) *Server {
	s := &Server{options: o, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.assets = newAssets()
	s.pages = newPages(s.assets)
	s.cache = newRenderings()
	s.now = &snapshots{source: o.Source}
	s.rights = newRights(o.Token, o.ReadToken)
	s.hub = newLive(s.now, o.Events)
	return s
}

// Handler serves everything. Live streams end with the context of the server that uses it.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	overviewPages{s}.routes(mux)
	runnerPages{s}.routes(mux)
	eventPages{s}.routes(mux)
	costPages{s}.routes(mux)
	s.machineRoutes(mux)
	s.jobRoutes(mux)
	s.chartRoutes(mux)
	s.pipelineRoutes(mux)
	actionPages{s}.routes(mux)
	loginPages{s}.routes(mux)
	health{s}.routes(mux)
	api{s}.routes(mux)
	mux.Handle("GET /static/", s.assets)
	mux.Handle("GET /live", s.hub)
	return gate{Server: s}.before(mux)
}

// Listen serves what GitLab Runner has at its listen_address (runner contract, section 12.6), without a token as existing scrapers
// expect it; pprof needs the token all the same.
func (s *Server) Listen() http.Handler {
	mux := http.NewServeMux()
	health{s}.routes(mux)
	return gate{Server: s, small: true}.before(mux)
}
