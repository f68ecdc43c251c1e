package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/metrics"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/tracing"
	"github.com/tranter-ci/tranter/internal/view"
	"github.com/tranter-ci/tranter/internal/web"
)

// logsDir is where the logs of ended jobs are, in the state directory.
const logsDir = "logs"

// outlook is what is seen of a manager, and what people may do with it: for the page, the control socket and what watches it from
// afar.
type outlook struct {
	watch   *observatory
	kept    *store.Logs // of ended jobs; nil: none are kept
	keep    config.History
	metrics *metrics.Metrics
	tracer  *tracing.Tracer // nil: jobs are not traced
	dir     string          // the state directory
	log     *slog.Logger

	watched  *watched
	operator *operator
	logs     jobLogs
	lag      func() int64
	bills    *bills // nil: nothing is kept

	config atomic.Pointer[loadedConfig]
	pages  []*web.Listener
	url    string // of the web page; empty: there is none
}

// loadedConfig is a configuration that is in use, with what its check says.
type loadedConfig struct {
	config   config.Config
	problems []config.Problem
	path     string
}

// places say where a manager's files are.
type places struct {
	state    string // directory
	config   string // directory that relative paths in the configuration start at
	systemID string
}

// openOutlook opens what a manager keeps of the past in its state directory, and what watches it. What can't be opened is told, and
// not kept: no job waits for it.
func openOutlook(ctx context.Context, at places, c config.Config, log *slog.Logger) (*outlook, error) {
	dir := at.state
	history, err := store.OpenHistory(ctx, filepath.Join(dir, historyFile))
	if err != nil {
		log.Error("The history can't be used: nothing that happens is kept", "error", err)
		history = nil
	}
	o := &outlook{watch: newObservatory(history, log), keep: c.History, dir: dir, log: log}
	if h := c.History; h.KeepLogs > 0 && h.MaxLogsMiB > 0 {
		if o.kept, err = store.OpenLogs(filepath.Join(dir, logsDir), h.KeepLogs, int64(h.MaxLogsMiB)<<20); err != nil {
			log.Error("The logs of ended jobs are not kept", "error", err)
			o.kept = nil
		} else {
			o.kept.Yield(lacking(dir, c.DiskGuard))
		}
	}
	o.metrics = o.newMetrics(at.systemID, c)
	o.watch.also = append(o.watch.also, o.metrics.Observe)
	if err := o.openTracer(ctx, c, at.config); err != nil {
		return nil, errors.Join(err, o.close()) //nolint:contextcheck // what is left is written whatever has ended
	}
	o.watch.settle(c)
	o.watch.open(ctx)
	return o, nil
}

// lacking tells how many bytes the disk of a directory lacks for jobs to be taken for sure: what is kept of ended ones goes before the
// guard of the disk stops others.
func lacking(dir string, g config.DiskGuard) func() int64 {
	wanted := 2*int64(g.MinFreeMiB)<<20 + leastFree
	return func() int64 {
		room, err := diskspace.Of(dir)
		if err != nil {
			return 0
		}
		return wanted - int64(min(room.Bytes, 1<<60)) //nolint:gosec // it fits
	}
}

func (o *outlook) newMetrics(systemID string, c config.Config) *metrics.Metrics {
	return metrics.New(metrics.Options{
		Source: lateSource{o}, SystemID: systemID, Currency: c.Cost.Currency, Log: o.log,
		Version: metrics.Version{Version: version, Revision: commit, Built: date},
		Lag: func() int64 {
			if o.lag == nil {
				return 0
			}
			return o.lag()
		},
		Unkept: o.watch.failed.Load,
		Disk: func() (free, size uint64, err error) {
			room, err := diskspace.Of(o.dir)
			return room.Bytes, room.Size, err
		},
		BatchCost: func(j tranter.JobHistory) (float64, bool) {
			if j.Bill == nil {
				return 0, false
			}
			one := cost.Job(&j, nil, o.watch.table(), time.Now())
			return one.Cost, one.Priced
		},
	})
}

func (o *outlook) openTracer(ctx context.Context, c config.Config, configDir string) error {
	t := c.Tracing
	if t.Endpoint == "" {
		return nil
	}
	var ca []byte
	if t.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(besides(configDir, t.CAFile)); err != nil {
			return fmt.Errorf("tracing.ca_file: %w", err)
		}
	}
	tracer, err := tracing.New(ctx, tracing.Options{
		Endpoint: t.Endpoint, Headers: t.Headers, ServiceName: t.ServiceName, Sample: t.Sample, CA: ca, Version: version, Log: o.log,
	})
	if err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	o.tracer = tracer
	o.watch.also = append(o.watch.also, func(e tranter.Event) {
		if e.Kind == tranter.JobEnded && e.Past != nil {
			tracer.Job(*e.Past)
		}
	})
	return nil
}

// lateSource is the outlook's snapshot, as soon as there is a manager.
type lateSource struct{ *outlook }

// Snapshot implements metrics.Source.
func (l lateSource) Snapshot(ctx context.Context) (view.Snapshot, error) {
	if l.watched == nil {
		return view.Snapshot{}, errors.New("the manager is starting")
	}
	return l.watched.Snapshot(ctx)
}

// calls returns what is told of the calls of a runner's server; nil: nobody is.
func (o *outlook) calls(r config.Runner) func(gitlab.Call) {
	if o == nil {
		return nil
	}
	token, name := r.Token.Short(), r.Name
	return func(c gitlab.Call) {
		if c.Endpoint == "request_job" && c.Status == http.StatusNoContent {
			o.watch.emptied(token)
		}
		o.metrics.Call(token, name, metrics.Call{Endpoint: c.Endpoint, Method: c.Method, Status: c.Status, Took: c.Took})
	}
}

// into gives a manager what it tells of its jobs to. Nil leaves all as it is.
func (o *outlook) into(ctx context.Context, to *manager.Options) {
	if o == nil {
		return
	}
	to.Events = o.watch.publish
	if h := o.watch.history; h != nil {
		to.Past = h
		paused, err := h.Paused(ctx)
		o.watch.complain(err)
		to.Paused = paused
	}
	if o.kept != nil {
		to.Logs = o.kept
	}
}

// remember makes the history agree with the machines that the book has: some may have gone while nobody kept it.
func (o *outlook) remember(ctx context.Context, book *store.Machines) {
	h := o.watch.history
	if h == nil {
		return
	}
	pools, err := book.Pools(ctx)
	o.watch.complain(err)
	open, err := h.OpenPools(ctx) // also of those that have no machines in the book any more
	o.watch.complain(err)
	pools = append(pools, open...)
	slices.Sort(pools)
	pools = slices.Compact(pools)
	for _, name := range pools {
		machines, err := book.Load(ctx, name)
		o.watch.complain(err)
		if err != nil && len(machines) == 0 { // nothing is known: no life is ended for that
			continue
		}
		o.watch.complain(h.Reconcile(ctx, name, machines, time.Now()))
		o.watch.complain(o.watch.recallDecision(ctx, name))
	}
	lives, err := h.Lives(ctx, time.Now(), time.Now())
	o.watch.complain(err)
	o.watch.rates.recall(lives)
}

// of is set once there is a manager to look at.
func (o *outlook) of(m *manager.Manager, machines *machineFleet, batches *batchFleet) {
	o.watched = &watched{manager: m, machines: machines, batches: batches, watch: o.watch, config: o.path, warnings: o.warnings}
	if machines != nil {
		machines.rates = &o.watch.rates
	}
	o.operator = &operator{manager: m, machines: machines, history: o.watch.history}
	o.logs = jobLogs{path: m.LogPath, kept: o.kept}
	o.lag = m.Lag
	if h := o.watch.history; h != nil {
		o.bills = billsOf(h, o.watch.table, o.running)
	}
}

// running are the jobs that have not ended, with their places.
func (o *outlook) running(ctx context.Context) []tranter.JobHistory {
	s, err := o.watched.Snapshot(ctx)
	if err != nil {
		return nil
	}
	out := make([]tranter.JobHistory, 0, len(s.Jobs))
	for i := range s.Jobs {
		out = append(out, s.Jobs[i].JobHistory)
	}
	return out
}

// settle takes a configuration that is in use from now on.
func (o *outlook) settle(c config.Config, problems []config.Problem, path string) {
	o.config.Store(&loadedConfig{c, problems, path})
	o.watch.settle(c)
	o.metrics.SetRunners(metricRunners(c))
}

// path is that of the configuration that is in use.
func (o *outlook) path() string {
	if l := o.config.Load(); l != nil {
		return l.path
	}
	return ""
}

// serve does all that goes on beside a manager, until ctx ends.
func (o *outlook) serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range o.pages {
		group.Go(func() error { return l.Serve(ctx) })
	}
	group.Go(func() error {
		o.watch.sample(ctx, o.watched, o.keep)
		return nil
	})
	if h := o.watch.history; h != nil {
		group.Go(func() error {
			o.watch.reckon(ctx, o.bills)
			return nil
		})
	}
	if o.kept != nil {
		group.Go(func() error {
			o.tidyLogs(ctx)
			return nil
		})
	}
	return group.Wait()
}

// tidyEvery is how often logs that are too old or too many are removed.
const tidyEvery = time.Minute

func (o *outlook) tidyLogs(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		if err := o.kept.Prune(time.Now()); err != nil {
			o.watch.complain(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// traceLimit is how long the end of a manager may wait for what is left of its traces.
const traceLimit = 3 * time.Second

// close keeps what is left to be kept. Nil does nothing.
func (o *outlook) close() error {
	if o == nil {
		return nil
	}
	var err error
	if o.tracer != nil {
		ctx, stop := context.WithTimeout(context.Background(), traceLimit)
		defer stop()
		err = o.tracer.Close(ctx)
	}
	return errors.Join(err, o.watch.close())
}

// addLookedFlags defines the flags that say where a manager is to be seen.
func addLookedFlags(cmd *cobra.Command, at *looked) {
	cmd.Flags().StringVar(&at.web, "web", "", "address of the web page, such as 127.0.0.1:9253 (default: that of [web])")
	cmd.Flags().StringVar(&at.listen, "listen-address", "", "address for metrics and health, such as :9252 (default: listen_address of the configuration)")
	withEnv(cmd.Flags(), "listen-address", "LISTEN_ADDRESS")
}

// looked are the addresses that a command names for the pages, in place of the configuration's.
type looked struct{ web, listen string }

// openPages listens where a manager is to be seen. Relative paths in the configuration start at dir.
func (o *outlook) openPages(ctx context.Context, c config.Config, dir string, at looked) error {
	page, monitoring := cmp.Or(at.web, c.Web.Address), cmp.Or(at.listen, c.ListenAddress)
	if page == "" && monitoring == "" {
		return nil
	}
	action, read, err := webTokens(c.Web, dir, o.dir)
	if err != nil {
		return err
	}
	options := web.Options{
		Source: o.watched, Logs: o.logs, Control: o.operator, Config: o.effective, Events: &o.watch.hub, Token: action, ReadToken: read,
		Metrics: o.metrics.Handler(), Checks: o.checks, Version: version, Log: o.log,
	}
	if h := o.watch.history; h != nil {
		options.Past, options.Bills = pricedPast{h, o.watch}, o.bills
	}
	server := web.New(options)
	if page != "" {
		l, err := server.Open(ctx, page, web.TLS{CertFile: besides(dir, c.Web.CertFile), KeyFile: besides(dir, c.Web.KeyFile)})
		if err != nil {
			return fmt.Errorf("serve the web page (--web, or [web] address): %w", err)
		}
		o.pages, o.url = append(o.pages, l), l.URL()
		o.log.Info("The web page is served", "url", l.URL())
	}
	if monitoring != "" {
		l, err := server.OpenMetrics(ctx, monitoring)
		if err != nil {
			return fmt.Errorf("serve metrics (--listen-address, or listen_address): %w", err)
		}
		o.pages = append(o.pages, l)
		o.log.Info("Metrics are served", "url", l.URL()+"/metrics")
	}
	return nil
}

func besides(dir, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// effective is the configuration that is in use, for people.
func (o *outlook) effective() web.ConfigView {
	l := o.config.Load()
	if l == nil {
		return web.ConfigView{}
	}
	v := web.ConfigView{Path: l.path}
	whole := l.config
	whole.Runners = nil
	if text, err := config.Render(whole); err == nil {
		v.Global = string(text)
	}
	for i := range l.config.Runners {
		r := &l.config.Runners[i]
		one := web.RunnerConfig{Runner: r.Token.Short(), Name: r.Name}
		if text, err := config.RenderRunner(*r); err == nil {
			one.Text = string(text)
		}
		v.Runners = append(v.Runners, one)
	}
	for _, p := range l.problems {
		told := web.ConfigProblem{Level: p.Severity.String(), At: whereOf(p), Text: p.Text, Fix: p.Hint}
		if p.Section > 0 && p.Section <= len(v.Runners) {
			of := &v.Runners[p.Section-1].Problems
			*of = append(*of, told)
			continue
		}
		v.Problems = append(v.Problems, told)
	}
	return v
}

// warnings are those of the runners' configurations, by their short tokens.
func (o *outlook) warnings() map[string][]string {
	out := map[string][]string{}
	l := o.config.Load()
	if l == nil {
		return out
	}
	for _, p := range l.problems {
		if p.Severity == config.Warning && p.Section > 0 && p.Section <= len(l.config.Runners) {
			token := l.config.Runners[p.Section-1].Token.Short()
			out[token] = append(out[token], strings.TrimSpace(p.Key+": "+p.Text+". "+p.Hint))
		}
	}
	return out
}

// whereOf is where in the configuration a problem is.
func whereOf(p config.Problem) string {
	at := p.File
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	return strings.TrimSpace(at + " " + p.Key)
}

// leastFree is how much of the state directory's disk must be free for the manager to be ready.
const leastFree = 16 << 20

// checks are the lines of /readyz, besides that of the manager.
func (o *outlook) checks(context.Context) []web.Check {
	status := o.watched.manager.Status()
	inUse := "in use"
	if status.ConfigProblem != "" {
		inUse = "the one from before is in use, and the changed one is not: " + status.ConfigProblem
	}
	all := []web.Check{{Name: "configuration", OK: true, Reason: inUse}}
	room, err := diskspace.Of(o.dir)
	if err != nil {
		all = append(all, web.Check{Name: "state", OK: false, Reason: err.Error()})
	} else {
		all = append(all, web.Check{Name: "state", OK: room.Bytes > leastFree, Reason: fmt.Sprintf("%d MiB are free on the disk of the state directory", room.Bytes>>20)})
	}
	fit, reason := len(status.Runners) == 0, fmt.Sprintf("%d in the configuration", len(status.Runners))
	for _, r := range status.Runners {
		if r.Problem == "" {
			fit = true
			continue
		}
		reason = fmt.Sprintf("%s can take no jobs: %s", cmp.Or(r.Name, r.Runner), r.Problem)
	}
	return append(all, web.Check{Name: "runners", OK: fit, Reason: reason})
}
