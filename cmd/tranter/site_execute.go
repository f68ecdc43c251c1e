package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/site"
)

// sitePlan does the steps of a plan, one by one. What it has done is on disk before it does the next.
type sitePlan struct {
	server   *siteServer
	stateDir string
	record   *siteRecord
	facts    site.Facts
	out      io.Writer
	log      *slog.Logger
	// after is called when a step was done and before it is on disk; a test ends the process there. Nil: nothing.
	after func(site.Step) error
}

// run does all steps that can be done, and returns what went wrong with the others. After a step that failed nothing more is
// done for its runner.
func (p *sitePlan) run(ctx context.Context, plan site.Plan) error {
	var failed []error
	skip := map[string]bool{}
	for _, step := range plan.Steps {
		if skip[step.Runner] {
			continue
		}
		if err := context.Cause(ctx); ctx.Err() != nil {
			return errors.Join(append(failed, err)...)
		}
		if err := p.step(ctx, step); err != nil {
			skip[step.Runner] = true
			failed = append(failed, fmt.Errorf("%s runner %s: %w", step.Kind, step.Runner, err))
			if errors.Is(err, errSiteStopped) {
				break
			}
		}
	}
	return errors.Join(failed...)
}

// errSiteStopped means that no further step may be done.
var errSiteStopped = errors.New("stopped")

// step does one step and saves what it brought.
func (p *sitePlan) step(ctx context.Context, step site.Step) error {
	entry, gone, err := p.act(ctx, step)
	if err != nil {
		return err
	}
	if p.after != nil {
		if err := p.after(step); err != nil {
			return errors.Join(err, errSiteStopped)
		}
	}
	if err := p.keep(step, entry, gone); err != nil {
		return errors.Join(err, errSiteStopped)
	}
	if step.Kind != site.Keep {
		fmt.Fprintf(p.out, "Done: %s %s\n", step.Kind, step.Runner)
	}
	return p.assign(ctx, step, entry.ID)
}

// act does one step at the server. It returns what is to be known of the runner from now on, or that it is gone.
func (p *sitePlan) act(ctx context.Context, step site.Step) (entry siteEntry, gone bool, err error) {
	entry = p.record.Runners[step.Runner]
	switch step.Kind {
	case site.Create:
		entry, err = p.create(ctx, step)
	case site.Adopt, site.Rotate:
		entry, err = p.reset(ctx, step, entry)
	case site.Update:
		err = p.update(ctx, step)
	case site.Delete:
		if err = p.server.api.DeleteRunner(ctx, step.ID); errors.Is(err, tranter.ErrNotFound) {
			err = nil
		}
		gone = true
	case site.Forget:
		gone = true
	case site.Keep:
	}
	return entry, gone, err
}

// keep writes the record if a step has changed it.
func (p *sitePlan) keep(step site.Step, entry siteEntry, gone bool) error {
	before, had := p.record.Runners[step.Runner]
	if !gone && step.Scope.Kind != "" {
		entry.Scope = step.Scope
		if id := p.facts.Scopes[step.Scope]; id != 0 {
			entry.ScopeID = id
		}
	}
	switch {
	case gone && !had, !gone && had && before == entry:
		return nil
	case gone:
		delete(p.record.Runners, step.Runner)
	default:
		p.record.Runners[step.Runner] = entry
	}
	return p.record.write(p.stateDir)
}

// create makes a runner. When the answer does not come it looks whether the runner was made all the same.
func (p *sitePlan) create(ctx context.Context, step site.Step) (siteEntry, error) {
	scope := gitlab.RunnerScope{Kind: step.Scope.Kind, ID: p.facts.Scopes[step.Scope]}
	got, err := p.server.api.CreateRunner(ctx, scope, runnerChange(step.Set))
	if err == nil && got.ID == 0 {
		err = errors.New("the answer brings no id")
	}
	if err == nil {
		return newEntry(got), nil
	}
	if errors.Is(err, tranter.ErrForbidden) || errors.Is(err, tranter.ErrNotFound) {
		return siteEntry{}, err
	}
	look, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer stop()
	mark := site.Mark{Site: p.record.Site, Runner: step.Runner, Owner: p.record.Owner}
	id, lost := p.server.find(look, step, scope, mark)
	switch {
	case lost != nil:
		return siteEntry{}, fmt.Errorf("%w; whether the runner was made is not known: the next \"site apply\" looks for it", err)
	case id == 0:
		return siteEntry{}, err
	}
	p.log.Warn("The runner was made, but its token did not arrive; it gets a new one", "runner", step.Runner, "id", id, "error", err)
	step.ID = id
	return p.reset(look, step, siteEntry{})
}

func newEntry(got gitlab.Registered) siteEntry {
	return siteEntry{Token: site.Token{
		ID: got.ID, Token: got.Token, ObtainedAt: time.Now().UTC().Truncate(time.Second), ExpiresAt: got.TokenExpiresAt,
	}}
}

// reset gets a runner a new token.
func (p *sitePlan) reset(ctx context.Context, step site.Step, entry siteEntry) (siteEntry, error) {
	got, err := p.server.api.ResetToken(ctx, step.ID)
	if err != nil {
		return siteEntry{}, err
	}
	got.ID = step.ID
	entry.Token = newEntry(got).Token
	return entry, nil
}

func (p *sitePlan) update(ctx context.Context, step site.Step) error {
	if step.Set == (site.Settings{}) {
		return nil
	}
	return p.server.api.UpdateRunner(ctx, step.ID, runnerChange(step.Set))
}

// assign lets the runner serve further projects. GitLab does not let that be done with a locked one.
func (p *sitePlan) assign(ctx context.Context, step site.Step, id int64) error {
	if len(step.Assign) == 0 {
		return nil
	}
	if err := p.lock(ctx, id, false); err != nil {
		return err
	}
	for _, project := range step.Assign {
		if err := p.server.api.AssignRunner(ctx, id, p.facts.Scopes[project]); err != nil {
			return fmt.Errorf("%s: %w", project, err)
		}
	}
	if step.Lock {
		return p.lock(ctx, id, true)
	}
	return nil
}

func (p *sitePlan) lock(ctx context.Context, id int64, locked bool) error {
	return p.server.api.UpdateRunner(ctx, id, gitlab.RunnerChange{Locked: &locked})
}

func runnerChange(s site.Settings) gitlab.RunnerChange {
	return gitlab.RunnerChange{
		Description: s.Description, Tags: s.Tags, Paused: s.Paused, Locked: s.Locked, RunUntagged: s.RunUntagged,
		AccessLevel: s.AccessLevel, MaximumTimeout: s.MaximumTimeout, MaintenanceNote: s.MaintenanceNote,
	}
}

// writeSiteConfig writes the configuration that is made from a site file, if it is not as it should be already.
func writeSiteConfig(path string, s site.Site, tokens map[string]site.Token) (changed bool, err error) {
	data, err := site.RenderConfig(s, tokens)
	if err != nil {
		return false, fmt.Errorf("make the configuration: %w", err)
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read the configuration: %w", err)
	}
	info, statErr := os.Stat(path)
	if err == nil && statErr == nil && bytes.Equal(old, data) && info.Mode().Perm() == 0o600 {
		return false, nil
	}
	if err := replaceFile(path, data); err != nil {
		return false, fmt.Errorf("write the configuration: %w", err)
	}
	return true, nil
}
