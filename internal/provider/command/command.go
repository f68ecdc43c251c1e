// Package command provides machines through programs of the user's own: one is called for each thing that is to be done,
// reads a request as JSON, and answers in JSON. docs/machine-command.md is the protocol.
package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/redact"
)

// Options name the programs: each is a program and its arguments.
type Options struct {
	Create, Remove []string      // needed
	List, Status   []string      // at least one of them is needed
	Start, Stop    []string      // both or none
	Timeout        time.Duration // for one run of a program; 0: ten minutes
	Environment    []string      // NAME=VALUE, besides the few of ours that are passed on. Values are kept out of logs and errors
	Options        []string      // NAME=VALUE, for each machine's creation; those of an option set win
	Log            *slog.Logger  // nil: none
}

const (
	defaultTimeout = 10 * time.Minute
	// questions is how many machines are asked for at the same time.
	questions = 4
)

// Provider calls the programs. It is a tranter.Provider and a tranter.Checker.
type Provider struct {
	programs map[string][]string // action → program and its arguments
	timeout  time.Duration
	env      []string
	secrets  []string
	options  []string
	log      *slog.Logger
}

// New returns a provider, which is a tranter.Starter too if there are programs that start and stop machines.
func New(o Options) (tranter.Provider, error) {
	p := &Provider{
		programs: map[string][]string{}, timeout: cmp.Or(o.Timeout, defaultTimeout), options: o.Options,
		log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
	}
	for action, argv := range map[string][]string{
		"create": o.Create, "remove": o.Remove, "list": o.List, "status": o.Status, "start": o.Start, "stop": o.Stop,
	} {
		if len(argv) > 0 {
			p.programs[action] = argv
		}
	}
	if err := errors.Join(append(p.missing(), p.keepSecret(o.Environment)...)...); err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	p.env = environment(o.Environment)
	if p.can("start") {
		return &starter{p}, nil
	}
	return p, nil
}

// missing says which programs are needed besides.
func (p *Provider) missing() (wrong []error) {
	for _, action := range []string{"create", "remove"} {
		if !p.can(action) {
			wrong = append(wrong, fmt.Errorf("no program for %s: it is needed", action))
		}
	}
	if !p.can("list") && !p.can("status") {
		wrong = append(wrong, errors.New("no program for list or status: one of them is needed to know which machines there are"))
	}
	if p.can("start") != p.can("stop") {
		wrong = append(wrong, errors.New("start and stop: a program is needed for both, or for none"))
	}
	return wrong
}

// keepSecret makes secrets of the values of an environment.
func (p *Provider) keepSecret(environment []string) (wrong []error) {
	for _, v := range environment {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" || strings.ContainsRune(v, 0) {
			wrong = append(wrong, errors.New("environment: expected entries of the form NAME=VALUE"))
		} else if len(value) >= minSecret {
			p.secrets = append(p.secrets, value)
		}
	}
	return wrong
}

// minSecret is how long a value is at least that is masked: shorter ones are words such as "yes".
const minSecret = 8

func (p *Provider) can(action string) bool { return len(p.programs[action]) > 0 }

// environment is what programs get: what every program needs, what leads to the internet, and what was configured.
func environment(configured []string) []string {
	var env []string
	for _, name := range []string{
		"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CONFIG_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
		"SystemRoot", "SystemDrive", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA",
	} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, configured...)
}

// Check says whether the programs are there and can be executed.
func (p *Provider) Check(context.Context) error {
	var wrong []error
	for _, action := range slices.Sorted(maps.Keys(p.programs)) {
		if _, err := exec.LookPath(p.programs[action][0]); err != nil {
			wrong = append(wrong, fmt.Errorf("program for %s: %w", action, err))
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return &tranter.ConfigError{Err: err}
	}
	return nil
}

// Create has the program make a machine, and notes what it says of it while it works.
func (p *Provider) Create(ctx context.Context, spec tranter.MachineSpec, note func(json.RawMessage)) (tranter.Machine, error) {
	r := request{Action: "create", Name: spec.Name, Owner: spec.Mark.Owner, Pool: spec.Mark.Pool, Options: options(slices.Concat(p.options, spec.Options))}
	var noted json.RawMessage
	a, err := p.machine(ctx, r, answer{}, func(a answer) {
		if ref := a.keep(); ref != nil && string(ref) != string(noted) && note != nil {
			noted = ref
			note(ref)
		}
	})
	if err != nil {
		return tranter.Machine{}, fmt.Errorf("create machine %s: %w", spec.Name, err)
	}
	return a.machine(spec.Name), nil
}

// Destroy has the program remove a machine; that it is not there is success.
func (p *Provider) Destroy(ctx context.Context, m tranter.MachineRef) error {
	if err := p.tell(ctx, "remove", m); err != nil && !errors.Is(err, errNotFound) {
		return fmt.Errorf("remove machine %s: %w", m.Name, err)
	}
	return nil
}

// tell has a machine's program do something that has no answer.
func (p *Provider) tell(ctx context.Context, action string, m tranter.MachineRef) error {
	_, err := p.run(ctx, about(action, m, kept(m.Ref)), nil)
	return err
}

// machine has a program answer for one machine. What it leaves out is as was known before.
func (p *Provider) machine(ctx context.Context, r request, known answer, learned func(answer)) (answer, error) {
	a := known
	a.Power = ""
	end, err := p.run(ctx, r, func(value json.RawMessage) error {
		var e entry
		if err := decode(value, &e); err != nil {
			return err
		}
		if e.Name != "" && e.Name != r.Name {
			return fmt.Errorf("the answer is about machine %s", brief(e.Name))
		}
		e.Power = tranter.Power(firstOf(string(e.Power), string(a.Power)))
		a = e.over(a)
		if learned != nil {
			learned(a)
		}
		return nil
	})
	if err != nil {
		return a, err
	}
	if err := a.check(); err != nil {
		return a, fmt.Errorf("%s: %w: %s%s", end.program, err, expected(r.Action), end.said())
	}
	return a, nil
}

// List asks for all machines in one call, and for those one by one of which the answer says too little.
func (p *Provider) List(ctx context.Context, mark tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	refs := make(map[string]answer, len(known))
	for _, m := range known {
		refs[m.Name] = kept(m.Ref)
	}
	var list []entry
	if p.can("list") {
		var err error
		if list, err = p.list(ctx, mark); err != nil {
			return nil, fmt.Errorf("list the machines: %w", err)
		}
	}
	machines := make([]tranter.Machine, 0, len(list))
	for _, e := range list {
		before, ours := refs[e.Name]
		// A program that lists too much must not have others' machines taken over, or removed.
		if !ours && (e.Owner != mark.Owner || e.Pool != mark.Pool) {
			p.log.DebugContext(ctx, "a machine in the list is not ours", "machine", e.Name)
			continue
		}
		machines = append(machines, e.over(before).machine(e.Name))
		delete(refs, e.Name)
	}
	if p.can("status") { // a list may lag behind: what it does not have is asked for
		for name, a := range refs {
			a.Power = tranter.PowerUnknown
			machines = append(machines, a.machine(name))
		}
		slices.SortFunc(machines, func(a, b tranter.Machine) int { return strings.Compare(a.Name, b.Name) })
	}
	return p.complete(ctx, machines)
}

// list returns the entries of the program's list.
func (p *Provider) list(ctx context.Context, mark tranter.Mark) ([]entry, error) {
	var list struct {
		Machines *[]entry `json:"machines"`
	}
	r := request{Action: "list", Owner: mark.Owner, Pool: mark.Pool}
	end, err := p.run(ctx, r, func(value json.RawMessage) error { return decode(value, &list) })
	if err != nil {
		return nil, err
	}
	if list.Machines == nil {
		return nil, fmt.Errorf("%s: no machines: %s%s", end.program, expected("list"), end.said())
	}
	seen := map[string]bool{}
	for _, e := range *list.Machines {
		if err := e.check(); err == nil && seen[e.Name] {
			return nil, fmt.Errorf("%s: machine %q is listed twice", end.program, e.Name)
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", end.program, err, expected("list"))
		}
		seen[e.Name] = true
	}
	return *list.Machines, nil
}

// complete asks for the machines of which too little is known, if there is a program for that. Those that are not there
// are left out; those that can't be asked for stay as they are.
func (p *Provider) complete(ctx context.Context, machines []tranter.Machine) ([]tranter.Machine, error) {
	if !p.can("status") {
		return machines, nil
	}
	gone := make([]bool, len(machines))
	var group errgroup.Group
	group.SetLimit(questions)
	for i, m := range machines {
		if m.Power != tranter.PowerUnknown && m.Login.Host != "" {
			continue
		}
		group.Go(func() error {
			a, err := p.machine(ctx, about("status", tranter.MachineRef{Name: m.Name}, kept(m.Ref)), kept(m.Ref), nil)
			switch {
			case errors.Is(err, errNotFound):
				gone[i] = true
			case err != nil:
				p.log.WarnContext(ctx, "a machine can't be asked for", "machine", m.Name, "error", err)
			default:
				machines[i] = a.machine(m.Name)
			}
			return nil
		})
	}
	_ = group.Wait() // none fails
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list the machines: %w", err)
	}
	left := machines[:0]
	for i, m := range machines {
		if !gone[i] {
			left = append(left, m)
		}
	}
	return left, nil
}

// starter is a Provider whose machines can be stopped and started again.
type starter struct{ *Provider }

// Start has the program switch a machine on again. Its address may have changed.
func (s *starter) Start(ctx context.Context, m tranter.MachineRef) (tranter.Machine, error) {
	before := kept(m.Ref)
	a, err := s.machine(ctx, about("start", m, before), before, nil)
	if err != nil {
		return tranter.Machine{}, fmt.Errorf("start machine %s: %w", m.Name, err)
	}
	return a.machine(m.Name), nil
}

// Stop has the program switch a machine off.
func (s *starter) Stop(ctx context.Context, m tranter.MachineRef) error {
	if err := s.tell(ctx, "stop", m); err != nil {
		return fmt.Errorf("stop machine %s: %w", m.Name, err)
	}
	return nil
}

// masker returns what takes secrets out of what a program says.
func (p *Provider) masker(r request) func(string) string {
	secrets := slices.Clone(p.secrets)
	for name, value := range r.Options {
		if secretName(name) && len(value) >= minSecret {
			secrets = append(secrets, value)
		}
	}
	matcher := redact.Compile(redact.Rules{Phrases: secrets})
	return func(text string) string {
		var b strings.Builder
		w := matcher.NewWriter(&b)
		_, _ = io.WriteString(w, text) // a Builder takes all
		_ = w.Flush()
		return b.String()
	}
}

func secretName(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"token", "secret", "password", "key", "credential", "user-data", "userdata"}, func(s string) bool { return strings.Contains(name, s) })
}
