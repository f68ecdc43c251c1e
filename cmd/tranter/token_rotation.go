package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// flagNoRotation turns the rotation of tokens into a warning (contract 1.6).
const flagNoRotation = "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION"

// rotation is the next token that is due.
type rotation struct {
	runner config.Runner
	due    time.Time
	// advice is set when the token is not to be replaced by us: what its owner has to do, and why.
	advice string
}

// tokenDue is when a runner's token is due to be replaced: after three quarters of its life (contract 1.6). It is false
// for a token that does not expire. A token of which nobody knows when it was issued is due at once.
func tokenDue(r config.Runner) (time.Time, bool) {
	if r.TokenExpiresAt.IsZero() {
		return time.Time{}, false
	}
	if r.TokenObtainedAt.IsZero() || !r.TokenObtainedAt.Before(r.TokenExpiresAt) {
		return r.TokenObtainedAt, true
	}
	life := r.TokenExpiresAt.Sub(r.TokenObtainedAt)
	return r.TokenObtainedAt.Add(life/4*3 + life%4*3/4), true
}

// nextRotation returns the token that is due first, leaving out runners for which skip is true: those, say, that
// failed a short while ago. It is false when none of the tokens expires.
func nextRotation(c config.Config, skip func(config.Runner) bool) (rotation, bool) {
	var next rotation
	found := false
	for _, r := range c.Runners {
		due, expires := tokenDue(r)
		if !expires || skip(r) || found && !due.Before(next.due) {
			continue
		}
		next, found = rotation{runner: r, due: due, advice: rotationAdvice(r)}, true
	}
	return next, found
}

// rotationAdvice tells why a token is not replaced automatically, or nothing.
func rotationAdvice(r config.Runner) string {
	switch {
	case r.FeatureFlags[flagNoRotation]:
		return flagNoRotation + " is on: replace it with \"tranter reset-token\""
	case expanded(r):
		return "it comes from an environment variable: replace it in GitLab and set the variable anew, or use token_file"
	default:
		return ""
	}
}

// tokenResetter is what the rotation needs of a gitlab.Client.
type tokenResetter interface {
	ResetToken(ctx context.Context) (gitlab.Registered, error)
}

// rotateToken replaces a runner's token and writes the new one into the file at path, or into its token_file. The
// configuration is to be read again afterwards: the old token is not valid any more. The section has to be as the
// runner was read from it.
func rotateToken(ctx context.Context, path string, r config.Runner, client tokenResetter, now time.Time) error {
	_, err := renewToken(ctx, path, r, client.ResetToken, now)
	return err
}

// renewToken has renew replace a runner's token, and saves the new one. It first makes sure that the new token can be
// saved: if it were lost, so would be the runner.
func renewToken(ctx context.Context, path string, r config.Runner, renew func(context.Context) (gitlab.Registered, error), now time.Time) (gitlab.Registered, error) {
	if expanded(r) {
		return gitlab.Registered{}, errors.New("the token comes from an environment variable, where no new one can be put: use token_file, or replace it in GitLab")
	}
	if err := tokenSavable(path, r); err != nil {
		return gitlab.Registered{}, fmt.Errorf("the token is left as it is, because a new one could not be saved: %w", err)
	}
	got, err := renew(ctx)
	if err != nil {
		return gitlab.Registered{}, err
	}
	ctx = context.WithoutCancel(ctx) // the old token is gone: this has to be done
	if err := saveToken(ctx, path, r, got, now); err != nil {
		return got, rescueToken(got.Token, err)
	}
	return got, nil
}

// tokenSavable tries all of saveToken but the writing itself.
func tokenSavable(path string, r config.Runner) error {
	target, err := followLinks(path)
	if err != nil {
		return err
	}
	if _, _, err := edited(target, tokenEdit(r, gitlab.Registered{ID: r.ID, Token: "tried"}, time.Unix(0, 0))); err != nil {
		return err
	}
	if err := writableBeside(target); err != nil || r.TokenFile == "" {
		return err
	}
	file, err := followLinks(tokenFilePath(path, r))
	if err != nil {
		return err
	}
	return writableBeside(file)
}

// saveToken writes a runner's new token to where the old one was read from.
func saveToken(ctx context.Context, path string, r config.Runner, got gitlab.Registered, now time.Time) error {
	if r.TokenFile != "" {
		file, err := followLinks(tokenFilePath(path, r))
		if err == nil {
			err = replaceFile(file, []byte(got.Token.Reveal()+"\n"))
		}
		if err != nil {
			return fmt.Errorf("write the token file: %w", err)
		}
	}
	return editConfig(ctx, path, tokenEdit(r, got, now))
}

// tokenEdit puts a new token and its dates into a runner's section, and into others with the same token.
func tokenEdit(r config.Runner, got gitlab.Registered, now time.Time) configEdit {
	return func(e *config.Editor, c config.Config) error {
		found := false
		for _, other := range c.Runners {
			if other.Raw != r.Raw {
				continue
			}
			found = true
			if err := setToken(e, other, got, now); err != nil {
				return err
			}
		}
		if !found {
			return fmt.Errorf("the section of runner %s is not there any more", runnerLabel(r))
		}
		return nil
	}
}

// setToken sets the keys of one section that a new token changes.
func setToken(e *config.Editor, r config.Runner, got gitlab.Registered, now time.Time) error {
	keys := []config.Entry{{Key: "token_obtained_at", Value: now.UTC().Truncate(time.Second)}}
	if r.TokenFile == "" {
		keys = append(keys, config.Entry{Key: "token", Value: got.Token})
	}
	if got.ID != 0 && got.ID != r.ID {
		keys = append(keys, config.Entry{Key: "id", Value: got.ID})
	}
	if !got.TokenExpiresAt.IsZero() {
		keys = append(keys, config.Entry{Key: "token_expires_at", Value: got.TokenExpiresAt})
	} else if err := e.Unset(r.Index, "token_expires_at"); err != nil {
		return err
	}
	for _, k := range keys {
		if err := e.Set(r.Index, k.Key, k.Value); err != nil {
			return err
		}
	}
	return nil
}

// rescueToken keeps a new token that could not be saved where it belongs, because the server gives it only once.
func rescueToken(token tranter.Secret, cause error) error {
	f, err := os.CreateTemp("", "runner-token-*") // mode 0600
	if err == nil {
		_, err = f.WriteString(token.Reveal() + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("the token was replaced, but the new one could not be saved, and is lost: reset it in GitLab: %w", errors.Join(cause, err))
	}
	return fmt.Errorf("the token was replaced, but the new one could not be saved; it is in %s, put it into the configuration by hand: %w", f.Name(), cause)
}
