package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

func newRegister(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "register",
		Short: "Add a runner to the configuration",
		Long: `Ask GitLab whether a runner's token is good, and add a section for the runner to the
configuration. What else is in the file stays as it is, comments and order included.

Create the runner in GitLab and give its token, which begins with glrt-; tags and the
like are set there. A registration token, the old way, makes the runner in GitLab with
the settings that are given here.

Without --non-interactive, what is needed is asked for. --token-file names a file with the
token, which then stays out of the command line and of the configuration.`,
		Example: `  tranter register
  tranter register --non-interactive --url https://gitlab.example.com --token glrt-... --executor shell
  tranter register --non-interactive --url https://gitlab.example.com --token glrt-... --executor docker --docker-image debian:stable-slim
  tranter register --non-interactive --template-config template.toml --url https://gitlab.example.com --token-file /run/secrets/runner
  tranter register --non-interactive --url https://gitlab.example.com --registration-token GR1348941... --executor shell --tag-list linux,x86`,
		Args: onlyFlags,
	}
	r := &registration{s: s, path: addConfigFlag(cmd.Flags()), flags: cmd.Flags()}
	r.addFlags()
	addRunnerFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if r.log, err = logFlags(cmd.Flags()).logger(s.err, new(slog.LevelVar)); err != nil {
			return err
		}
		return r.run(cmd.Context())
	}
	return cmd
}

// registration is the command register (contract 12.4).
type registration struct {
	s     streams
	log   *slog.Logger
	path  *string
	flags *pflag.FlagSet

	template          string
	nonInteractive    bool
	leave             bool
	ignoreServer      bool // settings that GitLab keeps are given by habit: they have no effect
	registrationToken tranter.Secret
	server            serverSettings
}

// serverSettings are those that GitLab keeps. They can be given here only when the runner is made with a registration
// token.
type serverSettings struct {
	tags, accessLevel, note     string
	runUntagged, locked, paused bool
	maximumTimeout              int // seconds
}

func (r *registration) addFlags() {
	f := r.flags
	f.StringVar(&r.template, "template-config", "", "file with one [[runners]] section, whose values hold where no flag gives another")
	withEnv(f, "template-config", "TEMPLATE_CONFIG_FILE")
	f.BoolVarP(&r.nonInteractive, "non-interactive", "n", false, "ask nothing: what is missing is an error")
	withEnv(f, "non-interactive", "REGISTER_NON_INTERACTIVE")
	f.BoolVar(&r.leave, "leave-runner", false, "leave the runner registered in GitLab when something goes wrong afterwards")
	withEnv(f, "leave-runner", "REGISTER_LEAVE_RUNNER")
	f.VarP(secretValue{&r.registrationToken}, "registration-token", "r", "token with which a runner is made in GitLab, the old way")
	withEnv(f, "registration-token", "REGISTRATION_TOKEN")

	const only = " (registration token only)"
	f.StringVar(&r.server.tags, "tag-list", "", "tags, separated by commas"+only)
	withEnv(f, "tag-list", "RUNNER_TAG_LIST")
	f.BoolVar(&r.server.runUntagged, "run-untagged", false, "take jobs without tags; true if there are no tags"+only)
	withEnv(f, "run-untagged", "REGISTER_RUN_UNTAGGED")
	f.BoolVar(&r.server.locked, "locked", true, "keep the runner to its project"+only)
	withEnv(f, "locked", "REGISTER_LOCKED")
	f.StringVar(&r.server.accessLevel, "access-level", "", "not_protected or ref_protected"+only)
	withEnv(f, "access-level", "REGISTER_ACCESS_LEVEL")
	f.IntVar(&r.server.maximumTimeout, "maximum-timeout", 0, "longest job in seconds, 0 for no limit"+only)
	withEnv(f, "maximum-timeout", "REGISTER_MAXIMUM_TIMEOUT")
	f.BoolVar(&r.server.paused, "paused", false, "take no jobs until somebody says so in GitLab"+only)
	withEnv(f, "paused", "REGISTER_PAUSED")
	f.StringVar(&r.server.note, "maintenance-note", "", "note for those who look after the runner"+only)
	withEnv(f, "maintenance-note", "REGISTER_MAINTENANCE_NOTE")
}

// serverFlags are the names of the flags of serverSettings.
func serverFlags() []string {
	return []string{"tag-list", "run-untagged", "locked", "access-level", "maximum-timeout", "paused", "maintenance-note"}
}

// tokenKind says what is done with the token that was given (contract 12.4).
type tokenKind int

const (
	kindCreated  tokenKind = iota // of a runner that was created in GitLab: it is verified
	kindLegacy                    // of a runner that was registered the old way: it is verified
	kindExchange                  // a registration token: a runner is made with it
)

// candidate is a runner that is to be registered.
type candidate struct {
	section config.Section // without what only the server knows
	config  config.Config  // the section alone, with the values that its references stand for
	kind    tokenKind
	known   bool // the file has a runner with this token
}

func (c candidate) runner() config.Runner { return c.config.Runners[0] }

func (r *registration) run(ctx context.Context) error {
	file, err := readRunners(*r.path, true)
	if err != nil {
		return err
	}
	values, err := r.values()
	if err != nil {
		return err
	}
	if !r.nonInteractive {
		if err := r.ask(values); err != nil {
			return err
		}
	}
	c, err := r.candidate(values, file)
	if err != nil {
		return err
	}
	if err := r.checkServerSettings(c.kind); err != nil {
		return err
	}
	if c.known {
		r.log.Warn("The configuration has a runner with this token already: both will ask for the same jobs", "runner", c.runner().Token.Short(), "config", *r.path)
	}
	// What can go wrong with the file should do so before there is a runner in GitLab.
	if err := os.MkdirAll(filepath.Dir(*r.path), 0o700); err != nil {
		return fmt.Errorf("make the directory of the configuration: %w", err)
	}
	if err := appendable(*r.path, r.finished(c, gitlab.Registered{Token: "tried"})); err != nil {
		return err
	}
	// From here on, what was done in GitLab is undone if this process is told to end.
	ctx, stop := signal.NotifyContext(ctx, stopSignals()...)
	defer stop()
	return r.register(ctx, c)
}

// values are the settings that the flags give.
func (r *registration) values() (map[string][]string, error) {
	values := runnerValues(r.flags)
	if file := values["token-file"]; len(file) > 0 {
		if values["token"] != nil || r.registrationToken != "" {
			return nil, errors.New("--token-file is given together with another token: leave one of them out")
		}
		path, err := filepath.Abs(file[0])
		if err != nil {
			return nil, fmt.Errorf("find the token file: %w", err)
		}
		values["token-file"] = []string{path}
	}
	switch {
	case r.registrationToken == "":
	case values["token"] != nil:
		r.log.Warn("--registration-token has no effect beside --token")
		r.registrationToken = ""
	case createdToken(r.registrationToken):
		r.takeAsToken(values, r.registrationToken)
	}
	return values, nil
}

// takeAsToken uses the token of a runner that was created in GitLab, although it was given as a registration token.
// Settings that GitLab keeps have no effect then, so that scripts of the old way go on working.
func (r *registration) takeAsToken(values map[string][]string, token tranter.Secret) {
	r.registrationToken = ""
	r.ignoreServer = true
	values["token"] = []string{token.Reveal()}
}

// merged is the section that the values make, with the template underneath.
func (r *registration) merged(values map[string][]string) (config.Section, error) {
	section, problems := config.Apply(values)
	if found := blocking(problems); len(found) > 0 {
		return nil, found
	}
	if r.template == "" {
		return section, nil
	}
	data, err := os.ReadFile(r.template)
	if err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	section, problems = config.MergeTemplate(section, config.Source{Name: r.template, Data: data})
	if found := blocking(problems); len(found) > 0 {
		return nil, found
	}
	return section, nil
}

// candidate checks the section that the values make, and finds out what is to be done with the token.
func (r *registration) candidate(values map[string][]string, file runnersFile) (candidate, error) {
	section, err := r.completed(values)
	if err != nil {
		return candidate{}, err
	}
	c := candidate{section: sortSection(section)}
	if r.registrationToken != "" {
		section = section.With("token", r.registrationToken)
	}
	var problems []config.Problem
	c.config, problems, err = sectionConfig(section)
	if found := blocking(problems); err == nil && len(found) > 0 {
		err = found
	}
	if err != nil {
		return c, err
	}
	switch {
	case r.registrationToken != "":
		c.kind = kindExchange
	case createdToken(c.runner().Token):
		c.kind = kindCreated
	default:
		c.kind = kindLegacy
	}
	c.known = slices.ContainsFunc(file.config.Runners, func(other config.Runner) bool {
		return other.Token == c.runner().Token && sameServer(other.URL, c.runner().URL)
	})
	return c, nil
}

// completed is the section that the values make, with all that it needs but a token that is yet to be made.
func (r *registration) completed(values map[string][]string) (config.Section, error) {
	section, err := r.merged(values)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"url", "executor"} {
		if sectionText(section, key) == "" {
			return nil, fmt.Errorf("--%s is missing", key)
		}
	}
	if section.Get("token") == nil && section.Get("token_file") == nil && r.registrationToken == "" {
		return nil, errors.New("--token is missing: create a runner in GitLab and give its token, with --token or --token-file")
	}
	executor := sectionText(section, "executor")
	if err := executorBuilt(executor); err != nil {
		return nil, err
	}
	if sectionText(section, "name") == "" {
		section = section.With("name", hostName())
	}
	if executor == "docker" {
		if section, err = withContainers(section); err != nil {
			return nil, err
		}
	}
	return section.ForExecutor(executor).Without("id", "token_obtained_at", "token_expires_at"), nil
}

// withContainers adds what each runner of the docker executor should have: an image for jobs that name none, and a volume
// in which caches outlive their job (contract 12.4).
func withContainers(s config.Section) (config.Section, error) {
	docker, _ := s.Get("docker").(config.Section)
	if sectionText(docker, "image") == "" {
		return nil, errors.New("--docker-image is missing: name the image of jobs that name none, such as debian:stable-slim")
	}
	if off, _ := docker.Get("disable_cache").(bool); !off && docker.Get("volumes") == nil {
		docker = docker.With("volumes", []string{containerCacheDir})
	}
	return s.With("docker", docker), nil
}

// sectionText returns a key of a section that is a text.
func sectionText(s config.Section, key string) string {
	switch v := s.Get(key).(type) {
	case string:
		return v
	case tranter.Secret:
		return v.Reveal()
	default:
		return ""
	}
}

// executorNames are the executors that jobs can run in.
func executorNames() []string { return slices.Sorted(maps.Keys(executors())) }

func executorBuilt(name string) error {
	if slices.Contains(executorNames(), name) {
		return nil
	}
	return fmt.Errorf("the executor %q is unknown or not built yet: there is %s", name, strings.Join(executorNames(), ", "))
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "tranter"
	}
	return name
}

// checkServerSettings tells of settings that can't have an effect, or no sense.
func (r *registration) checkServerSettings(kind tokenKind) error {
	if kind == kindExchange {
		r.log.Warn("Registration tokens are the old way, and GitLab will drop them: create the runner in GitLab and give its token, which begins with glrt-")
		switch {
		case r.server.maximumTimeout < 0:
			return errors.New("--maximum-timeout is below 0")
		case !slices.Contains([]string{"", "not_protected", "ref_protected"}, r.server.accessLevel):
			return fmt.Errorf("--access-level %q is not known: use not_protected or ref_protected", r.server.accessLevel)
		}
		return nil
	}
	var given []string
	for _, name := range serverFlags() {
		if f := r.flags.Lookup(name); f.Value.String() != f.DefValue {
			given = append(given, "--"+name)
		}
	}
	switch {
	case len(given) == 0:
		return nil
	case kind == kindCreated && !r.ignoreServer:
		return fmt.Errorf("%s: GitLab keeps these settings of a runner whose token begins with glrt-; change them there, and leave flags and environment variables out here", strings.Join(given, ", "))
	}
	r.log.Warn("These settings have no effect: GitLab keeps them, change them there", "flags", strings.Join(given, " "))
	return nil
}

// appendSection adds a section to a configuration.
func appendSection(section config.Section) configEdit {
	return func(e *config.Editor, _ config.Config) error { return e.AppendRunner(section) }
}

// appendable tries to add a section, without doing it.
func appendable(path string, section config.Section) error {
	target, err := followLinks(path)
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if _, _, err := edited(target, appendSection(section)); err != nil {
		return err
	}
	return writableBeside(target)
}

// register does what is to be done in GitLab, and writes the section.
func (r *registration) register(ctx context.Context, c candidate) error {
	got, client, err := r.atServer(ctx, c)
	if err != nil {
		return err
	}
	if err = context.Cause(ctx); err == nil {
		err = editConfig(ctx, *r.path, appendSection(r.finished(c, got)))
	}
	if err != nil {
		return r.undo(ctx, c, client, err)
	}
	fmt.Fprintf(r.s.out, "Runner %q (%s) of %s is registered, and is in %s.\n", sectionText(c.section, "name"), got.Token.Short(), c.runner().URL, *r.path)
	fmt.Fprintln(r.s.out, "A manager that runs with this configuration takes it up by itself; otherwise start one: tranter run")
	return nil
}

// atServer verifies the token, or makes a runner with it. The client is that of the runner.
func (r *registration) atServer(ctx context.Context, c candidate) (gitlab.Registered, *gitlab.Client, error) {
	if err := context.Cause(ctx); err != nil {
		return gitlab.Registered{}, nil, err
	}
	id := systemID(*r.path, r.log)
	client, err := newClient(c.config, c.runner(), id, r.log)
	if err != nil {
		return gitlab.Registered{}, nil, err
	}
	if c.kind == kindExchange {
		got, err := r.exchange(ctx, client, c)
		if err != nil {
			return got, nil, err
		}
		made := c.runner()
		made.Token = got.Token
		client, err = newClient(c.config, made, id, r.log)
		return got, client, err
	}
	got, err := client.Verify(ctx)
	switch {
	case errors.Is(err, tranter.ErrForbidden):
		return got, nil, fmt.Errorf("GitLab does not accept the token: %w", err)
	case err != nil:
		return got, nil, err
	case c.kind == kindCreated && got.ID == 0:
		return got, nil, fmt.Errorf("%s does not name the runner of the token: is it a GitLab of at least version 15.10?", c.runner().URL)
	}
	return got, client, nil
}

// answerGrace is how long the answer to a registration is waited for after the command was told to end: without it the
// new runner could not be removed again.
const answerGrace = 10 * time.Second

// exchange makes a runner with the registration token.
func (r *registration) exchange(ctx context.Context, client *gitlab.Client, c candidate) (gitlab.Registered, error) {
	var tags []string
	for tag := range strings.SplitSeq(r.server.tags, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			tags = append(tags, tag)
		}
	}
	call, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop := context.AfterFunc(ctx, func() {
		r.log.Warn("Told to end: waiting for GitLab's answer, to take the registration back")
		late := time.AfterFunc(answerGrace, end)
		context.AfterFunc(call, func() { late.Stop() })
	})
	defer stop()
	return client.Register(call, gitlab.RegisterParams{
		Token: r.registrationToken, Description: sectionText(c.section, "name"), MaintenanceNote: r.server.note, Tags: tags,
		RunUntagged: r.server.runUntagged || len(tags) == 0, Locked: r.server.locked, Paused: r.server.paused,
		AccessLevel: r.server.accessLevel, MaximumTimeout: time.Duration(r.server.maximumTimeout) * time.Second,
	})
}

// finished is the section as it is written.
func (r *registration) finished(c candidate, got gitlab.Registered) config.Section {
	section := c.section
	if c.kind == kindLegacy {
		return section
	}
	if c.kind == kindExchange {
		section = section.With("token", got.Token)
	}
	section = section.With("id", got.ID).With("token_obtained_at", time.Now().UTC().Truncate(time.Second))
	if !got.TokenExpiresAt.IsZero() {
		section = section.With("token_expires_at", got.TokenExpiresAt)
	}
	return sortSection(section)
}

// undo takes a registration back that did not get as far as the file. A runner that was there before is left alone.
func (r *registration) undo(ctx context.Context, c candidate, client *gitlab.Client, cause error) error {
	switch {
	case c.kind == kindLegacy || c.known:
		return cause
	case r.leave:
		return fmt.Errorf("%w; the runner stays registered in GitLab", cause)
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer stop()
	if err := unregisterManager(ctx, client); err != nil {
		return errors.Join(cause, fmt.Errorf("the runner stays registered in GitLab: remove it there: %w", err))
	}
	return fmt.Errorf("%w; the registration was taken back", cause)
}
