package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// maxUpNote is how long GitLab lets a maintenance note be.
const maxUpNote = 1024

// start registers the runner and writes the configuration.
func (u *launcher) start(ctx context.Context) error {
	if err := u.ownSystemID(); err != nil {
		return err
	}
	prefix := ownPrefix(u.values("", "").Name)
	got, err := u.register(ctx, prefix)
	if err != nil {
		return err
	}
	f, err := u.given.fill(u.values(got.Token, prefix), u.kept(got), time.Now())
	if err != nil {
		return err
	}
	// Intent before action: from here on there may be machines and the like.
	u.record.Work, u.record.Process = true, thisProcess()
	if f.prefixed {
		u.record.Prefixes = append(u.record.Prefixes, prefix)
	}
	if err := u.record.write(); err != nil {
		return err
	}
	if err := os.MkdirAll(u.workDir(), 0o700); err != nil {
		return fmt.Errorf("make the working directory: %w", err)
	}
	if err := replaceFile(u.configPath(), f.text); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// kept is what of the server's answer is written into the configuration. A token that we were given is not replaced before
// it expires: whoever has given it would not know the new one.
func (u *launcher) kept(got gitlab.Registered) gitlab.Registered {
	if u.want.registration == "" && !got.TokenExpiresAt.IsZero() {
		u.log.Warn("The runner's token expires and is not renewed here, where it would be lost at the end", "expires", got.TokenExpiresAt.Format(time.RFC3339))
		got.TokenExpiresAt = time.Time{}
	}
	return got
}

// ownSystemID makes sure that this manager is told from others on the same host that use the same token.
func (u *launcher) ownSystemID() error {
	path := filepath.Join(u.dir, systemIDFile)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := replaceFile(path, []byte(newSystemID())); err != nil {
		return fmt.Errorf("keep the system id: %w", err)
	}
	return nil
}

// register has GitLab make or verify the runner, and tries for a while if it does not answer.
func (u *launcher) register(ctx context.Context, prefix string) (gitlab.Registered, error) {
	within, stop := context.WithTimeout(ctx, u.want.registerTimeout)
	defer stop()
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		got, err := u.registerOnce(within, prefix)
		switch {
		case err == nil:
			u.log.Info("The runner is registered", "runner", got.Token.Short(), "id", got.ID)
			return got, nil
		case !passingFault(err):
			return got, err
		case context.Cause(ctx) != nil:
			return got, context.Cause(ctx)
		}
		u.log.Warn("GitLab can't be asked; trying again", "after", wait.String(), "error", err)
		if !pause(within, wait) {
			if context.Cause(ctx) != nil {
				return got, context.Cause(ctx)
			}
			return got, fmt.Errorf("the runner could not be registered within %s: %w", u.want.registerTimeout, err)
		}
	}
}

// pause waits, and says whether ctx still holds.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// passingFault says whether it makes sense to ask again: the server could not be reached, or is not well.
func passingFault(err error) bool {
	if _, ok := errors.AsType[*tranter.UnavailableError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

// registerOnce asks once. What is about to be made is recorded before.
func (u *launcher) registerOnce(ctx context.Context, prefix string) (gitlab.Registered, error) {
	path := u.configPath()
	r := &registration{s: u.s, log: u.log, path: &path, registrationToken: u.want.registration, server: u.tell}
	c, err := u.candidate(prefix)
	if err != nil {
		return gitlab.Registered{}, err
	}
	runner := c.runner()
	entry := upRegistration{
		Kind: c.kind, URL: runner.URL, Name: sectionText(c.section, "name"), At: time.Now().UTC().Truncate(time.Second),
		CA: runner.TLSCAFile, Cert: runner.TLSCertFile, Key: runner.TLSKeyFile,
	}
	if c.kind == kindExchange {
		entry.Mark = "[tranter up=" + strings.ToLower(rand.Text()[:10]) + "]"
		r.server.note = strings.TrimLeft(r.server.note+"\n"+entry.Mark, "\n")
		if n := len([]rune(r.server.note)); n > maxUpNote {
			return gitlab.Registered{}, fmt.Errorf("REGISTER_MAINTENANCE_NOTE is too long: with our own mark it has %d characters, and %d are possible", n, maxUpNote)
		}
	} else {
		entry.Token = runner.Token
	}
	if err := u.record.intend(entry); err != nil {
		return gitlab.Registered{}, err
	}
	got, _, err := r.atServer(ctx, c)
	if err != nil {
		return got, errors.Join(err, u.withdraw(c.kind, err))
	}
	last := &u.record.Registrations[len(u.record.Registrations)-1]
	last.Token, last.ID = got.Token, got.ID
	return got, u.record.write()
}

// withdraw takes the last intention back if it is certain that the server has not carried it out, and otherwise leaves it
// for the removal.
func (u *launcher) withdraw(kind tokenKind, err error) error {
	i := len(u.record.Registrations) - 1
	switch {
	case certain(err):
		u.record.Registrations = u.record.Registrations[:i]
	case kind == kindExchange:
		u.log.Warn("The answer to the registration was lost", "advice", u.record.Registrations[i].lost())
	}
	return u.record.write()
}

// certain says of an error that the server has not made a runner: it has refused, or was not reached.
func certain(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	if cutOff(err) {
		return false
	}
	_, unavailable := errors.AsType[*tranter.UnavailableError](err)
	return !unavailable && strings.Contains(err.Error(), "the server answers") || errors.Is(err, tranter.ErrForbidden) || errors.Is(err, tranter.ErrNotFound)
}

// cutOff says of an error that an answer was under way, or may have been.
func cutOff(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*stoppedError](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// candidate is the runner of the filled template, with the token that is given.
func (u *launcher) candidate(prefix string) (candidate, error) {
	token := u.want.token
	if token == "" {
		token = u.want.registration
	}
	f, err := u.given.fill(u.values(token, prefix), gitlab.Registered{}, time.Now())
	if err != nil {
		return candidate{}, err
	}
	c := candidate{config: f.config, section: config.Section{}.With("name", f.runner().Name)}
	switch {
	case u.want.registration != "":
		c.kind = kindExchange
	case createdToken(token):
		c.kind = kindCreated
	default:
		c.kind = kindLegacy
	}
	return c, nil
}
