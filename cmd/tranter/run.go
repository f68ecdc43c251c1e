package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/sessionserver"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
)

// watchInterval is how often the configuration's file is looked at (contract 11.10).
const watchInterval = 3 * time.Second

// runFlags are the flags of run.
type runFlags struct {
	source    configSource
	site      *siteConfig // nil: the configuration is no site file
	state     *string
	dir, user string
	at        looked
	logs      logOptions
	signals   chan os.Signal // those that end the manager; nil: it listens for them itself
}

func newRun(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Take jobs from GitLab and run them, until told to stop",
		Long: `Take jobs from GitLab for all runners of the configuration and run them.

SIGQUIT (or "tranter drain") finishes the running jobs and takes no new ones. SIGTERM
and SIGINT end the running jobs and report them, within shutdown_timeout. A second one
ends the manager at once; its jobs go on and the next start takes them up. SIGHUP, or
a change of the file, reads the configuration again; running jobs are not touched.
SIGUSR2 (or "tranter upgrade") replaces the manager by the version that is installed now.`,
		Example: `  tranter run
  tranter run --config /etc/gitlab-runner/config.toml --user gitlab-runner --working-directory /home/gitlab-runner`,
		Args: onlyFlags,
	}
	var f runFlags
	file := addConfigFlag(cmd.Flags())
	f.state = addStateDirFlag(cmd.Flags())
	cmd.Flags().StringVarP(&f.dir, "working-directory", "d", "", "directory that builds and caches without a directory of their own are made in (default: the current one)")
	cmd.Flags().StringVarP(&f.user, "user", "u", "", "system user as whom the shell executor runs jobs (default: ours, or user of the configuration)")
	addAcceptedFlags(cmd)
	addLookedFlags(cmd, &f.at)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.logs, f.source = logFlags(cmd.Flags()), configFile(*file)
		return runManager(cmd.Context(), s, f)
	}
	return cmd
}

// addAcceptedFlags defines flags that GitLab Runner's unit files give and that have no effect here, so that those files
// work.
func addAcceptedFlags(cmd *cobra.Command) {
	cmd.Flags().StringP("service", "n", "", "name of the service, as unit files give it; no effect")
	cmd.Flags().Bool("syslog", false, "accepted for old unit files; no effect: the log goes to standard error")
	for _, name := range []string{"service", "syslog"} {
		_ = cmd.Flags().MarkHidden(name)
	}
}

// managerGC lets the garbage collector run earlier than by default: a manager waits most of the time, and its memory
// counts per job.
const managerGC = 50

// drainLimit is how long machines may take to be removed when the configuration wants that at the end.
const drainLimit = 5 * time.Minute

// runManager is the command run.
func runManager(ctx context.Context, s streams, f runFlags) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(managerGC)
	}
	notify := newNotifier()
	c, problems, err := f.source.read()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	log, err := f.logs.or(logOptions{level: c.LogLevel, format: c.LogFormat}).logger(s.err, level)
	if err != nil {
		return err
	}
	if config.Failed(problems, false) {
		printProblems(s.err, problems, config.Warning)
		return fmt.Errorf("the configuration %s can't be used: see above", f.source.name())
	}
	logProblems(log, problems)
	m, closeStore, err := f.manager(ctx, c, log)
	if err != nil {
		return err
	}
	m.outlook.settle(c, problems, f.source.name())
	if err := m.outlook.openPages(ctx, c, filepath.Dir(f.source.name()), f.at); err != nil {
		return errors.Join(err, closeStore())
	}
	log.Info("Tranter takes jobs", "version", version, "config", f.source.name(), "state_dir", m.dir, "runners", len(c.Runners), "concurrent", c.Concurrent)
	f.told(log, len(c.Runners))
	m.notify = notify
	untold := notify.start(ctx, m)
	err = m.serve(ctx, level)
	if err == nil && m.drain.Enabled && !m.left {
		err = m.around.machines.removeAll(context.WithoutCancel(ctx), drainLimit)
	}
	m.around.cache.close()
	untold()
	if err == nil && m.replace {
		return m.become(closeStore)
	}
	return errors.Join(err, closeStore())
}

// become makes this process the program's new version.
func (d *daemon) become(closeStore func() error) error {
	if !d.hasty {
		if err := closeStore(); err != nil {
			d.log.Error("The state could not be closed in order", "error", err)
		}
	}
	d.notify.handOver()
	if err := becomeProgram(d.around.program); err != nil {
		return fmt.Errorf("become the new version: %w; start it: it takes up the jobs, which go on", err)
	}
	return nil
}

// daemon is a manager with all that surrounds it.
type daemon struct {
	*manager.Manager
	flags  runFlags
	around surroundings
	dir    string // the state directory
	log    *slog.Logger
	// rewritten has an element after we have changed the configuration ourselves.
	rewritten chan struct{}
	terminals *sessionserver.Server // nil: there is none
	outlook   *outlook
	machines  *machineFleet
	batches   *batchFleet
	drain     config.ShutdownDrain
	way       chan bool // has an element when the manager is to make way; true: for the program's new version
	left      bool      // the manager makes way: jobs and machines stay
	replace   bool      // by the program's new version
	hasty     bool      // the manager has not ended in order
	notify    *notifier // tells systemd; nil: there is none
}

// manager opens the state directory and makes the manager. The returned function closes what it has opened.
func (f runFlags) manager(ctx context.Context, c config.Config, log *slog.Logger) (*daemon, func() error, error) {
	around, err := f.around(c, log)
	if err != nil {
		return nil, nil, err
	}
	dir := around.state
	st, err := store.Open(ctx, filepath.Join(dir, "tranter.db"))
	if errors.Is(err, store.ErrInUse) {
		return nil, nil, fmt.Errorf("another manager uses the state directory %s: end it, or name another directory with --state-dir", dir)
	}
	if err != nil {
		return nil, nil, err
	}
	seen, err := openOutlook(ctx, places{state: dir, config: filepath.Dir(f.source.name()), systemID: around.systemID}, c, log)
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	seen.remember(ctx, st.Machines())
	around.observe = seen
	owner := engineOwner(around.systemID, dir)
	around.machines = newMachinePools(dir, owner, st.Machines(), log).toldTo(seen.watch)
	around.clusters, around.site = newBatchClusters(owner, st.Allocations(), log).toldTo(seen.watch), f.site
	closeAll := func() error { //nolint:contextcheck // what is left is written whatever has ended
		around.clusters.close()
		around.machines.close()
		return errors.Join(seen.close(), st.Close())
	}
	settings, err := around.settings(ctx, c)
	if err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	options := manager.Options{Dir: filepath.Join(dir, "jobs"), Records: st, Log: log, Secrets: externalSecrets(), Adopt: around.adopt}
	seen.into(ctx, &options)
	terminals, err := openTerminals(ctx, c.SessionServer, dir, log, &options)
	if err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	d := &daemon{
		Manager: manager.New(options, settings), terminals: terminals, outlook: seen, flags: f, around: around, dir: dir, log: log,
		machines: &machineFleet{pools: around.machines.list, history: st.Machines()}, batches: around.clusters.fleet(dir, st.Allocations()),
		drain:     c.Machine.ShutdownDrain,
		rewritten: make(chan struct{}, 1), way: make(chan bool, 1),
	}
	seen.of(d.Manager, d.machines, d.batches)
	return d, closeAll, nil
}

// around makes the state directory and finds what runners are made in.
func (f runFlags) around(c config.Config, log *slog.Logger) (surroundings, error) {
	dir, err := stateDir(*f.state, c.StateDir)
	if err != nil {
		return surroundings{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return surroundings{}, fmt.Errorf("make the state directory: %w", err)
	}
	user := f.user
	if user == "" {
		user = c.User
	}
	work, err := workingDirectory(f.dir)
	if err != nil {
		return surroundings{}, err
	}
	around, err := newSurroundings(work, user, systemID(f.source.name(), log), log)
	if err != nil {
		return surroundings{}, err
	}
	around.state, around.cache = dir, newCacheServer(dir, log)
	return around, f.openJobsDir(dir, user)
}

// workingDirectory is the absolute path of the directory that was given, if one was.
func workingDirectory(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the working directory %s: %w", dir, err)
	}
	info, err := os.Stat(abs)
	if err == nil && !info.IsDir() {
		err = errors.New("it is no directory")
	}
	if err != nil {
		return "", fmt.Errorf("--working-directory: %w", err)
	}
	return abs, nil
}

// openJobsDir lets another system user reach its jobs' directories, though not list them.
func (f runFlags) openJobsDir(dir, user string) error {
	jobs := filepath.Join(dir, "jobs")
	if err := os.MkdirAll(jobs, 0o700); err != nil {
		return fmt.Errorf("make the directory of jobs: %w", err)
	}
	if user == "" {
		return nil
	}
	for _, d := range []string{dir, jobs} {
		if err := os.Chmod(d, 0o711); err != nil { //nolint:gosec // to pass, not to read
			return fmt.Errorf("let user %s reach its jobs: %w", user, err)
		}
	}
	return nil
}

// logProblems logs what a usable configuration has that its user should know.
func logProblems(log *slog.Logger, problems []config.Problem) {
	for _, p := range problems {
		if p.Severity == config.Note {
			log.Info("Configuration", "note", p.String())
		} else {
			log.Warn("Configuration", "problem", p.String())
		}
	}
}

// serve runs the manager until it has ended, with its control socket and changes of its configuration.
func (d *daemon) serve(ctx context.Context, level *slog.LevelVar) error {
	around, stop := context.WithCancel(ctx)
	defer stop()
	group, around := errgroup.WithContext(around)
	group.Go(func() error {
		return control{controlled: d, machines: d.machines, batches: d.batches, outlook: d.outlook}.serve(around, d.dir)
	})
	group.Go(func() error { return d.outlook.serve(around) })
	group.Go(func() error { return giveBackStart(around) })
	group.Go(func() error { return d.watchConfig(around, level) })
	group.Go(func() error { return d.rotateTokens(around) })
	group.Go(func() error { return d.watchUpgrade(around) })
	if d.terminals != nil {
		group.Go(func() error { return d.terminals.Serve(around) })
	}
	// Without one of those around it the manager is not what its user expects: it ends then.
	release := context.AfterFunc(around, func() { d.Stop(context.Cause(around)) }) //nolint:contextcheck // its end is why
	err := d.untilEnded(ctx)
	release()
	stop()
	if e := group.Wait(); e != nil && !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	if d.replace {
		return err
	}
	d.log.Info("Tranter has ended")
	return err
}

// startOver is when what a manager needs for its start only is not needed any more.
const startOver = 5 * time.Second

// giveBackStart gives back the memory that the start has taken: a manager waits most of the time.
func giveBackStart(ctx context.Context) error {
	timer := time.NewTimer(startOver)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		debug.FreeOSMemory()
		agent.ReleaseProgram()
	}
	return nil
}

// told tells whose jobs run elsewhere, or that there is nobody whose jobs could run.
func (f runFlags) told(log *slog.Logger, runners int) {
	if f.site != nil {
		ls, err := f.site.launches()
		if err == nil && len(ls) > 0 {
			log.Info("A command is launched for jobs that wait", "runners", len(ls))
			return
		}
	}
	if runners == 0 {
		log.Warn("There are no runners in the configuration; it is read again when it changes", "config", f.source.name())
	}
}

// untilEnded runs the manager until it has ended, or a second signal says not to wait for that.
func (d *daemon) untilEnded(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	signals := d.flags.signals
	if signals == nil {
		signals = make(chan os.Signal, 4)
		signal.Notify(signals, append(stopSignals(), drainSignals()...)...)
		defer signal.Stop(signals)
	}
	stopping := false
	var late <-chan time.Time
	for {
		select {
		case err := <-ended:
			return err
		case d.replace = <-d.way:
			d.left = true
			d.Leave()
			late = time.After(leaveLimit)
		case <-late:
			d.hasty = true
			return nil
		case sig := <-signals:
			if stopping {
				return &exitError{code: 1, err: fmt.Errorf("ended at once by a second %v; unreported jobs stay recorded for the next start", sig)}
			}
			stopping = d.onSignal(sig) //nolint:contextcheck // it ends the manager, not this call
		}
	}
}

// onSignal drains or stops the manager (contract 12.5), and says whether the next signal ends it at once.
func (d *daemon) onSignal(sig os.Signal) bool {
	if slices.Contains(drainSignals(), sig) {
		d.log.Warn("Taking no new jobs; running jobs finish", "signal", sig.String())
		d.Drain()
		return false
	}
	d.log.Warn("Stopping; a second signal ends at once", "signal", sig.String())
	d.Stop(fmt.Errorf("received %v", sig))
	return true
}

// watchConfig reads the configuration again at SIGHUP and when the file has changed, until ctx ends.
func (d *daemon) watchConfig(ctx context.Context, level *slog.LevelVar) error {
	hup := make(chan os.Signal, 1)
	if signals := reloadSignals(); len(signals) > 0 {
		signal.Notify(hup, signals...)
		defer signal.Stop(hup)
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	seen := d.flags.source.state()
	for {
		reloaded := func() {}
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			reloaded = d.notify.reloading()
		case <-d.rewritten:
		case <-tick.C:
			if d.flags.source.state() == seen {
				continue
			}
		}
		seen = d.flags.source.state()
		d.reload(ctx, level)
		reloaded()
	}
}

// reload replaces the manager's settings by what the file says now. A file with a mistake changes nothing.
func (d *daemon) reload(ctx context.Context, level *slog.LevelVar) {
	c, problems, err := d.flags.source.read()
	if err == nil && config.Failed(problems, false) {
		err = problemList(problems)
	}
	var settings manager.Settings
	if err == nil {
		settings, err = d.around.settings(ctx, c)
	}
	if err != nil {
		d.log.Error("The changed configuration is not used: the one from before holds", "config", d.flags.source.name(), "error", err)
		d.Refuse(err)
		d.outlook.watch.publish(tranter.Event{Kind: tranter.ConfigRefused, Level: tranter.EventError, Text: "The changed configuration is not used, the one from before holds: " + err.Error()})
		return
	}
	logProblems(d.log, problems)
	if l, err := d.flags.logs.or(logOptions{level: c.LogLevel}).leastLevel(); err == nil {
		level.Set(l)
	}
	d.Reload(settings) //nolint:contextcheck // pollers end with the manager, not with this call
	d.outlook.settle(c, problems, d.flags.source.name())
	d.outlook.watch.publish(tranter.Event{Kind: tranter.ConfigLoaded, Text: fmt.Sprintf("The configuration was loaded: %s.", view.Count(len(c.Runners), "runner"))})
	d.log.Info("Configuration loaded", "config", d.flags.source.name(), "runners", len(c.Runners), "concurrent", c.Concurrent)
}

// mark is by what a change of a file is seen.
type mark struct {
	time time.Time
	size int64
	gone bool
}

// String returns what differs for marks that do.
func (m mark) String() string {
	return fmt.Sprint(m.time.UnixNano(), m.size, m.gone)
}

func fileState(path string) mark {
	info, err := os.Stat(path)
	if err != nil {
		return mark{gone: errors.Is(err, fs.ErrNotExist)}
	}
	return mark{time: info.ModTime(), size: info.Size()}
}
