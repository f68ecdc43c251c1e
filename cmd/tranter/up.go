package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

func newUp(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Register a runner from environment variables, run it, and remove all that it made at the end",
		Long: `Register a runner, fill a template of the configuration, take jobs, and at the end remove
what was made: the runner in GitLab, machines, containers, volumes, caches.

All is said by flags or environment variables, so that it serves as the entrypoint of a
container image. With REGISTRATION_TOKEN the runner is made in GitLab at the start and
deleted at the end; with CI_SERVER_TOKEN, the token of a runner that was created in GitLab,
only this manager of it is removed.

SIGTERM and SIGINT end the running jobs, SIGQUIT lets them finish; then all is removed, for
--cleanup-timeout at most. What could not be removed is named, and the exit code is 1. What
a start has left that was killed, the next one removes, or "tranter up --clean".`,
		Example: `  CI_SERVER_URL=https://gitlab.example.com CI_SERVER_TOKEN=glrt-... tranter up
  tranter up --url https://gitlab.example.com --token-file /run/secrets/runner --template machine
  tranter up --show
  tranter up --clean`,
		Args: onlyFlags,
	}
	u := &launcher{s: s}
	u.addFlags(cmd.Flags())
	addLookedFlags(cmd, &u.at)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if os.Getpid() == 1 {
			return asInit()
		}
		u.logs = logFlags(cmd.Flags())
		return u.run(cmd.Context())
	}
	return cmd
}

// launcher is the command up.
type launcher struct {
	s     streams
	logs  logOptions
	want  upFlags
	tell  serverSettings // what GitLab is to keep of a runner that is made
	log   *slog.Logger
	dir   string // the state directory
	given upTemplate
	at    looked

	record  *upRecord
	signals chan os.Signal
}

// upFlags are the flags of up.
type upFlags struct {
	url, name, executor         string
	registration, token         tranter.Secret
	registrationFile, tokenFile string
	tls                         struct{ ca, cert, key string }
	template, configDir         string
	state                       *string
	logs                        struct {
		dir         string
		size, files int
	}
	registerTimeout, cleanupTimeout time.Duration
	clean, forget, show             bool
}

// textFlag is a flag that is a text, with its environment variable.
type textFlag struct {
	to                      *string
	name, env, preset, what string
}

func (u *launcher) addFlags(flags *pflag.FlagSet) {
	w := &u.want
	for _, f := range []textFlag{
		{&w.url, "url", "CI_SERVER_URL", "", "address of GitLab"},
		{&w.name, "name", "RUNNER_NAME", "", "name of the runner (default: that of the host)"},
		{&w.executor, "executor", "RUNNER_EXECUTOR", "", "what runs the jobs: docker, docker+machine, shell ...; it has to be that of the template"},
		{&w.registrationFile, "registration-token-file", "REGISTRATION_TOKEN_FILE", "", "file with the registration token"},
		{&w.tokenFile, "token-file", "CI_SERVER_TOKEN_FILE", "", "file with the runner's token"},
		{&w.tls.ca, "tls-ca-file", "CI_SERVER_TLS_CA_FILE", "", "PEM file of certificate authorities"},
		{&w.tls.cert, "tls-cert-file", "CI_SERVER_TLS_CERT_FILE", "", "PEM file of the client certificate"},
		{&w.tls.key, "tls-key-file", "CI_SERVER_TLS_KEY_FILE", "", "PEM file of its key"},
		{&w.template, "template", "CONFIG", defaultTemplate, "name of the template of the configuration: NAME.toml in --config-dir, or docker, machine or shell"},
		{&w.configDir, "config-dir", "CONFIG_DIR", "/etc/tranter/templates", "directory of templates"},
		{&w.logs.dir, "log-dir", "LOG_DIR", "", "directory of logs, a file for each start (default: log in the state directory)"},
		{&u.tell.tags, "tag-list", "RUNNER_TAG_LIST", "", "tags, separated by commas (registration token only)"},
		{&u.tell.accessLevel, "access-level", "REGISTER_ACCESS_LEVEL", "", "not_protected or ref_protected (registration token only)"},
		{&u.tell.note, "maintenance-note", "REGISTER_MAINTENANCE_NOTE", "", "note for those who look after the runner (registration token only)"},
	} {
		flags.StringVar(f.to, f.name, f.preset, f.what)
		withEnv(flags, f.name, f.env)
	}
	flags.Var(secretValue{&w.registration}, "registration-token", "token with which a runner is made in GitLab, the old way")
	withEnv(flags, "registration-token", "REGISTRATION_TOKEN")
	flags.Var(secretValue{&w.token}, "token", "token of a runner that was created in GitLab: glrt-...")
	withEnv(flags, "token", "CI_SERVER_TOKEN")
	flags.BoolVar(&u.tell.runUntagged, "run-untagged", false, "take jobs without tags; true if there are no tags (registration token only)")
	withEnv(flags, "run-untagged", "REGISTER_RUN_UNTAGGED")
	flags.BoolVar(&u.tell.locked, "locked", true, "keep the runner to its project (registration token only)")
	withEnv(flags, "locked", "REGISTER_LOCKED")
	flags.BoolVar(&u.tell.paused, "paused", false, "take no jobs until somebody says so in GitLab (registration token only)")
	withEnv(flags, "paused", "REGISTER_PAUSED")
	flags.IntVar(&u.tell.maximumTimeout, "maximum-timeout", 0, "longest job in seconds, 0 for no limit (registration token only)")
	withEnv(flags, "maximum-timeout", "REGISTER_MAXIMUM_TIMEOUT")
	w.addRest(flags)
}

// addRest defines the flags that say where and how long.
func (w *upFlags) addRest(flags *pflag.FlagSet) {
	w.state = flags.String("state-dir", "", "directory of the state (default: up in "+defaultStateDir()+")")
	withEnv(flags, "state-dir", "TRANTER_STATE_DIR")
	flags.IntVar(&w.logs.size, "log-max-size", 50, "size in MiB at which another file of the log is begun")
	withEnv(flags, "log-max-size", "LOG_MAX_SIZE")
	flags.IntVar(&w.logs.files, "log-max-files", 20, "files of the log that are kept")
	withEnv(flags, "log-max-files", "LOG_MAX_FILES")
	flags.DurationVar(&w.registerTimeout, "register-timeout", 5*time.Minute, "how long GitLab is tried at the start while it does not answer")
	withEnv(flags, "register-timeout", "REGISTER_TIMEOUT")
	flags.DurationVar(&w.cleanupTimeout, "cleanup-timeout", drainLimit, "how long the removal of what was made may take")
	withEnv(flags, "cleanup-timeout", "CLEANUP_TIMEOUT")
	flags.BoolVar(&w.clean, "clean", false, "only remove what earlier starts have left")
	flags.BoolVar(&w.forget, "forget", false, "with --clean: forget what can't be removed; a person has to do it then")
	flags.BoolVar(&w.show, "show", false, "only print the filled template, without secrets")
}

// run is the command.
func (u *launcher) run(ctx context.Context) error {
	if err := u.prepare(); err != nil {
		return err
	}
	if u.want.show {
		return u.show()
	}
	u.signals = make(chan os.Signal, 4)
	signal.Notify(u.signals, append(stopSignals(), drainSignals()...)...)
	defer signal.Stop(u.signals)
	// What makes a manager read its files again, or become another version, must not end this process before there is one.
	others := make(chan os.Signal, 1)
	if all := append(reloadSignals(), upgradeSignals()...); len(all) > 0 {
		signal.Notify(others, all...)
		defer signal.Stop(others)
	}
	if err := ownUp(u.dir); err != nil {
		return err
	}
	lock, err := lockUp(u.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	logs, err := openUpLog(&upLog{dir: cmp.Or(u.want.logs.dir, filepath.Join(u.dir, "log")), most: int64(u.want.logs.size) << 20, keep: u.want.logs.files, also: u.s.err, now: time.Now})
	if err != nil {
		return err
	}
	defer logs.Close() //nolint:errcheck // what it could not write is told as it happens
	err = u.locked(ctx, logs)
	logs.last(err)
	return err
}

// locked goes on when the state directory is ours.
func (u *launcher) locked(ctx context.Context, logs io.Writer) error {
	u.s.err = logs
	var err error
	if u.log, err = u.logs.logger(logs, new(slog.LevelVar)); err != nil {
		return err
	}
	if u.record, err = readUpRecord(u.dir); err != nil {
		return err
	}
	if !u.want.clean && u.record.Work && u.record.Process != "" && u.record.Process == thisProcess() {
		return u.serve(ctx) // we have become another version
	}
	if err := u.before(ctx); err != nil || u.want.clean {
		return err
	}
	if err := u.phase(ctx, u.start); err != nil {
		return u.after(ctx, err)
	}
	return u.serve(ctx)
}

// before removes what earlier starts have left.
func (u *launcher) before(ctx context.Context) error {
	if u.record.empty() {
		if u.want.clean {
			u.log.Info("There is nothing to remove", "state_dir", u.dir)
		}
		return nil
	}
	u.log.Info("Removing what an earlier start has left", "state_dir", u.dir)
	err := u.phase(ctx, func(ctx context.Context) error { return u.clean(ctx, u.want.clean) })
	if stopped, ok := errors.AsType[*stoppedError](err); ok {
		return stopped
	}
	switch {
	case err == nil:
		return nil
	case u.want.clean && u.want.forget:
		u.log.Warn("What can't be removed is forgotten: a person has to do it", "error", err)
		*u.record = upRecord{path: u.record.path}
		return u.record.write()
	case u.want.clean:
		return fmt.Errorf("not all could be removed; it stays recorded, and is tried again by the next start:\n%w", err)
	}
	u.log.Warn("What an earlier start has left could not all be removed: it is tried again at the end", "error", err)
	return u.leave()
}

// serve runs the manager until it ends, and removes what was made.
func (u *launcher) serve(ctx context.Context) error {
	state, file := u.dir, configFile(u.configPath())
	f := runFlags{source: file, state: &state, dir: u.workDir(), logs: u.logs, at: u.at, signals: u.signals}
	return u.after(ctx, runManager(ctx, u.s, f))
}

// after removes what was made.
func (u *launcher) after(ctx context.Context, cause error) error {
	if u.record.empty() {
		return cause
	}
	u.log.Info("Removing what was made", "cleanup_timeout", u.want.cleanupTimeout.String())
	err := u.phase(context.WithoutCancel(ctx), func(ctx context.Context) error { return u.clean(ctx, u.record.Work) })
	if err != nil {
		err = fmt.Errorf("not all that was made could be removed; the next start tries again, and so does \"tranter up --clean\":\n%w", err)
	} else {
		u.log.Info("All that was made is removed")
	}
	if _, stopped := errors.AsType[*stoppedError](cause); stopped {
		cause = nil // it was told to end
	}
	return errors.Join(cause, err)
}

// stoppedError is the cause of the end of a phase that a signal has ended.
type stoppedError struct{ signal os.Signal }

// Error names the signal.
func (e *stoppedError) Error() string { return "received " + e.signal.String() }

// phase does something that a signal ends. One that comes later is left for the manager.
func (u *launcher) phase(ctx context.Context, do func(context.Context) error) error {
	ctx, end := context.WithCancelCause(ctx)
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case sig := <-u.signals:
			u.log.Warn("Told to end", "signal", sig.String())
			end(&stoppedError{sig})
		case <-done:
		}
	})
	err := do(ctx)
	close(done)
	watcher.Wait()
	if stopped, ok := errors.AsType[*stoppedError](context.Cause(ctx)); ok && err != nil {
		err = errors.Join(stopped, err)
	} else if ok {
		err = stopped
	}
	end(nil)
	return err
}

// prepare checks all that can be checked before anything is done.
func (u *launcher) prepare() error {
	w := &u.want
	var err error
	if u.dir, err = filepath.Abs(cmp.Or(*w.state, filepath.Join(defaultStateDir(), "up"))); err != nil {
		return fmt.Errorf("find the state directory: %w", err)
	}
	if err := cmp.Or(w.check(), scarce(u.dir)); err != nil {
		return err
	}
	if w.clean {
		return nil
	}
	if err := u.readTokens(); err != nil {
		return err
	}
	if err := u.tell.check(); err != nil {
		return err
	}
	if u.given, err = findTemplate(w.configDir, w.template, w.executor); err != nil {
		return err
	}
	if w.show {
		return nil
	}
	return u.tryTemplate()
}

// check tells what makes no sense.
func (w *upFlags) check() error {
	switch {
	case w.forget && !w.clean:
		return errors.New("--forget goes with --clean")
	case w.cleanupTimeout <= 0 || w.registerTimeout <= 0:
		return errors.New("--cleanup-timeout and --register-timeout have to be more than nothing")
	case w.logs.size <= 0 || w.logs.files <= 0:
		return errors.New("--log-max-size and --log-max-files have to be 1 or more")
	}
	return nil
}

// check tells what no server would take.
func (s serverSettings) check() error {
	switch {
	case s.maximumTimeout < 0:
		return errors.New("--maximum-timeout is below 0")
	case s.accessLevel != "" && s.accessLevel != "not_protected" && s.accessLevel != "ref_protected":
		return fmt.Errorf("--access-level %q is not known: use not_protected or ref_protected", s.accessLevel)
	}
	return nil
}

// readTokens finds the one token that is given. That of a runner counts as such however it is given.
func (u *launcher) readTokens() error {
	w := &u.want
	for _, t := range []struct {
		to   *tranter.Secret
		file string
		flag string
	}{{&w.token, w.tokenFile, "--token-file"}, {&w.registration, w.registrationFile, "--registration-token-file"}} {
		if t.file == "" {
			continue
		}
		if *t.to != "" {
			return fmt.Errorf("%s is given together with the token itself: leave one of them out", t.flag)
		}
		data, err := os.ReadFile(t.file)
		if err != nil {
			return fmt.Errorf("%s: %w", t.flag, err)
		}
		if *t.to = tranter.Secret(strings.TrimSpace(string(data))); *t.to == "" {
			return fmt.Errorf("%s: %s is empty", t.flag, t.file)
		}
	}
	switch {
	case w.token != "" && w.registration != "":
		return errors.New("REGISTRATION_TOKEN and CI_SERVER_TOKEN are both given: the first makes a runner, the second is that of one, so leave one of them out")
	case createdToken(w.registration):
		w.token, w.registration = w.registration, ""
	case w.token == "" && w.registration == "" && !w.show:
		return errors.New("there is no token: set CI_SERVER_TOKEN to that of a runner that was created in GitLab (glrt-...), or REGISTRATION_TOKEN to make one")
	}
	return nil
}

// values are those of the template's placeholders; token is that of the runner.
func (u *launcher) values(token tranter.Secret, prefix string) upValues {
	w := u.want
	v := upValues{URL: w.url, Name: cmp.Or(w.name, hostName()), Tags: u.tell.tags, Executor: w.executor, Token: token, Prefix: prefix}
	v.TLS = struct{ CA, Cert, Key string }{w.tls.ca, w.tls.cert, w.tls.key}
	return v
}

// tryTemplate fills the template as it will be, so that mistakes come out before a runner is made.
func (u *launcher) tryTemplate() error {
	missing := errors.New("CI_SERVER_URL is missing: set it, or --url, to the address of GitLab")
	if u.want.url == "" && strings.Contains(u.given.text, "{{ CI_SERVER_URL }}") {
		return missing
	}
	const anyToken = tranter.Secret("glrt-00000000000000000000")
	f, err := u.given.fill(u.values(anyToken, ownPrefix("try")), gitlab.Registered{}, time.Now())
	if err != nil {
		return err
	}
	r := f.runner()
	switch {
	case r.URL == "":
		return missing
	case u.want.executor != "" && u.want.executor != r.Executor:
		return fmt.Errorf("RUNNER_EXECUTOR is %q, but the template %s is for %q: leave it out, or choose another template with CONFIG", u.want.executor, u.given.name, r.Executor)
	}
	return executorBuilt(r.Executor)
}

// show prints the filled template.
func (u *launcher) show() error {
	text, err := u.given.shown(u.values("shown", "tranter-up/"+hostLabel(cmp.Or(u.want.name, hostName()))+"-********"))
	if err != nil {
		return err
	}
	_, err = io.WriteString(u.s.out, text)
	return err
}

func (u *launcher) configPath() string { return filepath.Join(u.dir, upConfigFile) }

// workDir is where builds and caches are made of executors that work on this host.
func (u *launcher) workDir() string { return filepath.Join(u.dir, "work") }

// scarce makes do with what a container may lack: a home directory, and a place for temporary files.
func scarce(dir string) error {
	if os.Getenv("HOME") == "" {
		if err := os.Setenv("HOME", filepath.Join(dir, "home")); err != nil {
			return fmt.Errorf("set HOME: %w", err)
		}
	}
	trial, err := os.CreateTemp("", "tranter-*")
	if err == nil {
		return errors.Join(trial.Close(), os.Remove(trial.Name()))
	}
	temp := filepath.Join(dir, "tmp")
	if e := os.MkdirAll(temp, 0o700); e != nil {
		return fmt.Errorf("there is no place for temporary files: %w", errors.Join(err, e))
	}
	if err := os.Setenv("TMPDIR", temp); err != nil {
		return fmt.Errorf("set TMPDIR: %w", err)
	}
	return nil
}
