package main

import (
	"context"
	"time"

	"github.com/tranter-ci/tranter/internal/config"
)

const (
	rotationLook  = time.Minute      // how often the configuration is looked at for a token that is due, at least
	rotationPause = 10 * time.Second // between two rotations, whatever a server says about how long tokens are valid
	rotationRetry = 5 * time.Minute  // after a rotation that failed
	rotationNag   = 24 * time.Hour   // between two reminders of a token that its owner has to replace
)

// rotateTokens replaces tokens before they expire (contract 1.6), until ctx ends. The changed file is then read again.
func (d *daemon) rotateTokens(ctx context.Context) error {
	later := map[config.Raw]time.Time{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(rotationLook)
		c, problems, err := d.flags.source.read()
		if err != nil || config.Failed(problems, false) {
			continue // watchConfig has said so
		}
		now := time.Now()
		next, found := nextRotation(c, func(r config.Runner) bool { return now.Before(later[r.Raw]) })
		switch {
		case !found:
		case next.due.After(now):
			timer.Reset(min(next.due.Sub(now), rotationLook))
		default:
			later[next.runner.Raw] = now.Add(d.rotate(ctx, c, next))
			timer.Reset(rotationPause)
		}
	}
}

// rotate replaces one token, or says why it is not replaced, and returns how long to leave it then.
func (d *daemon) rotate(ctx context.Context, c config.Config, next rotation) time.Duration {
	log := d.log.With("runner", next.runner.Token.Short(), "name", next.runner.Name, "expires", next.runner.TokenExpiresAt)
	if next.advice != "" {
		log.Warn("The runner's token expires and is not replaced automatically", "advice", next.advice)
		return rotationNag
	}
	client, err := newClient(c, next.runner, d.around.systemID, d.log)
	if err == nil {
		err = d.flags.source.rotate(ctx, next.runner, client, time.Now())
	}
	if err != nil {
		log.Error("The runner's token could not be replaced; it will be tried again", "in", rotationRetry, "error", err)
		return rotationRetry
	}
	log.Info("The runner's token was replaced before it expires")
	select {
	case d.rewritten <- struct{}{}: // the old token is not valid any more
	default:
	}
	return rotationRetry
}
