package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
)

// Options are what a Preparer works with.
type Options struct {
	Log *slog.Logger             // nil: none
	Env func(name string) string // nil: os.Getenv; HOME, USER and SSH_AUTH_SOCK count
}

// Preparer makes machines ready for jobs. All methods may be called at the same time.
type Preparer struct {
	settings Settings
	log      *slog.Logger
	env      func(string) string
	refusal  time.Duration // how long a machine may refuse our key
}

// New returns a Preparer. Open says what is wrong with the settings; Settings.Check does so before there is a machine.
func New(s Settings, o Options) *Preparer {
	p := &Preparer{settings: s, log: o.Log, env: o.Env, refusal: refusalTimeout}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.env == nil {
		p.env = os.Getenv
	}
	return p
}

// maxLosses is how often the connection to a machine may be lost while it is being made ready: a script of the user's may
// start it anew.
const maxLosses = 3

// Open connects to a machine. With kept empty it does all that makes it ready: it waits for the login, takes the host key
// that the machine shows at first, runs one script there, and waits for the engine. Otherwise kept is what an earlier call
// has returned: it connects, to a machine with that host key only, asks the engine for a sign of life, and puts the
// machine's end off. It calls report after each step, from one goroutine.
//
// Errors: *tranter.ConfigError if another machine would fare no better; *HeldError if another manager has the machine;
// *remote.HostKeyError if it is not the one that it was; *StepError and others if this machine is of no use. Without a
// deadline in the context it gives up after 15 minutes.
func (p *Preparer) Open(ctx context.Context, m tranter.Machine, memory json.RawMessage, report func(tranter.Timing)) (*Host, json.RawMessage, error) {
	if err := p.settings.Check(); err != nil {
		return nil, nil, err
	}
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	if report == nil {
		report = func(tranter.Timing) {}
	}
	o := &opening{p: p, machine: m, report: report, log: p.log.With("machine", m.Name)}
	var err error
	if isEmpty(memory) {
		err = o.prepare(ctx)
	} else {
		err = o.resume(ctx, memory)
	}
	if err != nil {
		return nil, nil, errors.Join(err, o.close())
	}
	memory, err = json.Marshal(o.kept)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("remember machine %s: %w", m.Name, err), o.close())
	}
	return o.host, memory, nil
}

// opening is one call of Open.
type opening struct {
	p       *Preparer
	machine tranter.Machine
	report  func(tranter.Timing)
	log     *slog.Logger

	target remote.Target
	kept   kept
	host   *Host // nil before the first login
	member bool  // the login was repeated as a member of the engine's group
}

func (o *opening) close() error {
	if o.host == nil {
		return nil
	}
	return o.host.Close()
}

// login logs in, and makes the host of it in place of an earlier one.
func (o *opening) login(ctx context.Context) error {
	conn, err := o.p.login(ctx, o.machine.Name, o.target)
	if err != nil {
		return err
	}
	o.kept.HostKey = conn.HostKey()
	o.target.HostKey = o.kept.HostKey
	err = o.close()
	o.host = nil
	host, problem := newHost(o, remote.Linked(conn, o.log))
	if problem != nil {
		return errors.Join(problem, err, conn.Close())
	}
	o.host = host
	return err
}

// prepare does all that makes a machine ready.
func (o *opening) prepare(ctx context.Context) error {
	var err error
	o.kept = kept{Version: keptVersion, Socket: o.p.settings.Engine.Socket}
	if o.target, err = o.p.target(o.machine, ""); err != nil {
		return err
	}
	w := &work{
		name: o.machine.Name, login: o.target.User, marker: newMarker(), report: o.report, log: o.log, asked: o.answer, told: o.learn,
	}
	if err := o.certify(w); err != nil {
		return err
	}
	if w.script, err = o.p.settings.preparing(w); err != nil {
		return &tranter.ConfigError{Err: err}
	}
	for losses := 0; ; losses++ {
		began := time.Now()
		if err := o.login(ctx); err != nil {
			return err
		}
		o.report(tranter.Timing{Step: "login", Took: time.Since(began)})
		link := o.host.link
		err := w.run(ctx, link)
		if o.host.link != link { // the login was repeated meanwhile
			err = errors.Join(err, link.Close())
		}
		if !wasLost(err) || ctx.Err() != nil || losses == maxLosses {
			return err
		}
		o.log.WarnContext(ctx, "the connection was lost while the machine was made ready; once more", "err", err)
	}
}

// wasLost says whether an error is about the connection, and not about what was done there.
func wasLost(err error) bool {
	_, step := errors.AsType[*StepError](err)
	_, config := errors.AsType[*tranter.ConfigError](err)
	_, held := errors.AsType[*HeldError](err)
	return err != nil && !step && !config && !held
}

// certify makes certificates, if TLS is to be spoken.
func (o *opening) certify(w *work) error {
	s := o.p.settings.Engine
	if !s.TLS {
		return nil
	}
	began := time.Now()
	names := append([]string{o.machine.Name, o.machine.Login.Host, "localhost", "127.0.0.1"}, s.ExtraNames...)
	made, server, err := newCredentials(names, s.CertLife, began)
	if err != nil {
		return err
	}
	made.Port = s.port()
	o.kept.TLS, w.credentials, w.server = &made, &made, server
	o.report(tranter.Timing{Step: "certificates", Took: time.Since(began)})
	return nil
}

// answer answers the script's questions.
func (o *opening) answer(ctx context.Context, e event) string {
	var err error
	switch e.name {
	case "engine":
		if err = awaitEngine(ctx, o.host.Dial); err == nil {
			return "ok"
		}
	case "daemon":
		var answer string
		if answer, err = o.daemon(e.text); err == nil {
			return answer
		}
	default:
		err = errors.New("what is that?")
	}
	return clean(err.Error(), maxText)
}

// daemon puts what is wanted into the machine's daemon.json.
func (o *opening) daemon(question string) (string, error) {
	init, text := question, ""
	for i := range len(question) {
		if question[i] == ' ' {
			init, text = question[:i], question[i+1:]
			break
		}
	}
	existing, err := decodeDaemon(text)
	if err != nil {
		return "", err
	}
	wanted, err := o.p.settings.Engine.wanted(init)
	if err != nil {
		return "", err
	}
	return merge(existing, wanted)
}

// learn acts upon what the script tells of the machine.
func (o *opening) learn(ctx context.Context, e event) error {
	if e.name != "group" || o.member { // once: each is a connection
		return nil
	}
	o.member = true
	// The login's user was put into the engine's group, which holds from its next login on.
	conn, err := o.p.login(ctx, o.machine.Name, o.target)
	if err != nil {
		return err
	}
	host, err := newHost(o, remote.Linked(conn, o.log))
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	err = o.host.release()
	o.host = host
	return err
}

// resume takes up what was prepared earlier.
func (o *opening) resume(ctx context.Context, memory json.RawMessage) error {
	var err error
	if o.kept, err = parseKept(memory); err != nil {
		return fmt.Errorf("what was remembered of machine %s cannot be used: %w", o.machine.Name, err)
	}
	if o.target, err = o.p.target(o.machine, o.kept.HostKey); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"login", o.login},
		{"deadline", func(ctx context.Context) error { return o.host.putOff(ctx) }},
		{"engine", func(ctx context.Context) error { return o.engine(ctx) }},
	} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return err
		}
		o.report(tranter.Timing{Step: step.name, Took: time.Since(began)})
	}
	return nil
}

func (o *opening) engine(ctx context.Context) error {
	if err := awaitEngine(ctx, o.host.Dial); err != nil {
		return &StepError{Machine: o.machine.Name, Step: "engine", Reason: clean(err.Error(), maxText)}
	}
	return nil
}
