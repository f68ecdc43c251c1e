package dockermachine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// state asks a driver for its machine's state.
func (p *Provider) state(ctx context.Context, d *plugin.Process) (state plugin.State, err error) {
	err = limited(ctx, p.limits.ask, func(ctx context.Context) (err error) {
		state, err = d.State(ctx)
		return err
	})
	return state, err
}

// power is what a driver's state means to us. A machine that the driver calls failed runs no jobs any more: some drivers say
// that of one which its provider has ended.
func power(s plugin.State) tranter.Power {
	switch s {
	case plugin.Running:
		return tranter.PowerOn
	case plugin.Starting, plugin.Stopping:
		return tranter.PowerChanges
	case plugin.Stopped, plugin.Paused, plugin.Saved, plugin.Failed:
		return tranter.PowerOff
	default:
		return tranter.PowerUnknown
	}
}

// settled waits until a machine has an address. Until then drivers answer with an error.
func (p *Provider) settled(ctx context.Context, d *plugin.Process) (m tranter.Machine, err error) {
	pause := time.NewTicker(settlePoll)
	defer pause.Stop()
	for {
		login, addressless := p.login(ctx, d)
		if worthRestart(addressless) || errors.Is(addressless, errStrange) {
			return m, addressless
		}
		state, err := p.state(ctx, d)
		if addressless == nil && !absent(err) {
			return tranter.Machine{Power: power(state), Login: login}, nil
		}
		if err := hopeless(state, err); err != nil {
			return m, errors.Join(err, addressless)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return m, errors.Join(context.Cause(ctx), addressless)
		}
	}
}

// hopeless says why a machine will not get an address, if that follows from the answer to the question for its state.
func hopeless(state plugin.State, err error) error {
	switch {
	case absent(err), worthRestart(err):
		return err
	case err == nil && (state == plugin.Failed || state == plugin.Stopped):
		return fmt.Errorf("%w: it does not run", errGone)
	}
	return nil
}

// login asks a driver how its machine is reached.
func (p *Provider) login(ctx context.Context, d *plugin.Process) (l tranter.Login, err error) {
	err = limited(ctx, p.limits.ask, func(ctx context.Context) (err error) {
		if l.Host, l.Port, err = d.SSH(ctx); err != nil {
			return err
		}
		l.User, l.Identity, err = d.SSHUser(ctx)
		return err
	})
	if err == nil {
		err = checkLogin(l)
	}
	if err != nil {
		return tranter.Login{}, err
	}
	return l, nil
}

// errStrange means that a driver answers what no other answer follows.
var errStrange = errors.New("which can't be")

// maxText is longer than any host's or user's name.
const maxText = 255

func checkLogin(l tranter.Login) error {
	strange := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	switch {
	case l.Host == "":
		return errors.New("the driver names no address")
	case len(l.Host) > maxText || l.Host[0] == '-' || strings.ContainsFunc(l.Host, strange):
		return fmt.Errorf("the driver names the address %.100q, %w", l.Host, errStrange)
	case len(l.User) > maxText || strings.HasPrefix(l.User, "-") || strings.ContainsFunc(l.User, strange):
		return fmt.Errorf("the driver names the user %.100q, %w", l.User, errStrange)
	case l.Port < 0 || l.Port > 65535:
		return fmt.Errorf("the driver names the port %d, %w", l.Port, errStrange)
	case strings.ContainsRune(l.Identity, 0):
		return fmt.Errorf("the driver names the key's file %.100q, %w", l.Identity, errStrange)
	}
	return nil
}
