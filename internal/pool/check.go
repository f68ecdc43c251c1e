package pool

import (
	"context"
	"errors"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/scale"
)

// checkEvery is how often settings that are wrong are looked at again: what they name, such as a driver, may come.
const checkEvery = 30 * time.Second

// proof is what is known of whether the settings are right.
type proof struct {
	next    time.Time // when they are looked at; zero: no more
	pending bool      // for the first time
	wrong   string    // why they are not
}

// proving is the loop, seeing to whether its settings are right.
type proving struct{ *loop }

// dueCheck has the provider look at its settings, before anything is created with them.
func (l proving) dueCheck(now time.Time) {
	if l.proof.next.IsZero() || now.Before(l.proof.next) || l.ops[checkName] != nil {
		return
	}
	l.proof.next = time.Time{}
	s := l.settings
	c, ok := s.Provider.(tranter.Checker)
	if !ok && s.Hands.Check == nil {
		l.proof.pending = false
		return
	}
	l.begin(task{
		name: checkName, limit: listLimit,
		work: func(ctx context.Context) func() {
			var err error
			if s.Hands.Check != nil {
				err = s.Hands.Check()
			}
			if ok && err == nil {
				err = c.Check(ctx)
			}
			return func() { l.proved(err) }
		},
		fail: l.proved,
	})
}

// checkName stands for the look at the settings among operations; no machine is called that.
const checkName = "\x00check"

func (l proving) proved(err error) {
	if l.ending {
		return
	}
	var config *tranter.ConfigError
	before := l.proof.wrong
	l.proof.wrong, l.proof.pending = "", false
	switch {
	case err == nil:
		if before != "" {
			l.log.Info("The settings of machines are right now")
		}
	case errors.Is(err, tranter.ErrRejected), errors.As(err, &config):
		l.proof.wrong = brief(err)
		if l.proof.wrong != before {
			l.log.Error("The settings of machines are wrong: while there are no machines, no jobs are taken", "error", l.proof.wrong)
		}
	default:
		l.log.Warn("Whether the settings of machines are right could not be found out", "error", brief(err))
	}
	if err != nil {
		l.proof.next = time.Now().Add(checkEvery)
	}
}

// doubt is why no job can be taken although the policy would, if there is a reason: nothing can be created with settings
// that are wrong, which fault tells.
func (l proving) doubt() (v scale.Verdict, fault bool) {
	switch {
	case len(l.book.Machines) > 0:
	case l.proof.pending:
		v.Reason = "the settings of machines are being checked"
	case l.proof.wrong != "":
		v.Reason = "the settings of machines are wrong: " + l.proof.wrong
		fault = true
	}
	return v, fault
}
