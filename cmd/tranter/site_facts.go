package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/site"
)

// siteServer is the part of GitLab's management that a site needs.
type siteServer struct {
	api    *gitlab.Management
	access gitlab.Access
	mu     sync.Mutex // guards what survey collects
}

// dialSite connects to the site's server and looks at its management token.
func dialSite(ctx context.Context, s site.Site, o gitlab.ManagementOptions) (*siteServer, error) {
	if s.Token == "" {
		return nil, errors.New("the site file has no management_token: make an access token with the scopes read_api, create_runner and manage_runner at " + s.URL + "/-/user_settings/personal_access_tokens")
	}
	o.URL, o.Token, o.TLSCAFile, o.Version = s.URL, s.Token, s.TLSCAFile, clientVersion()
	api, err := gitlab.NewManagement(o)
	if err != nil {
		return nil, err
	}
	access, err := api.Scopes(ctx)
	if err == nil {
		err = access.Check(gitlab.ScopeReadAPI)
	}
	if err != nil {
		return nil, err
	}
	return &siteServer{api: api, access: access}, nil
}

// allow says whether the token has the scopes for what a plan does.
func (s *siteServer) allow(p site.Plan) error {
	var needs []string
	need := func(scope string) {
		if !slices.Contains(needs, scope) {
			needs = append(needs, scope)
		}
	}
	for _, step := range p.Steps {
		switch step.Kind {
		case site.Create:
			need(gitlab.ScopeCreateRunner)
		case site.Adopt, site.Update, site.Rotate, site.Delete:
			need(gitlab.ScopeManageRunner)
		case site.Keep, site.Forget:
		}
		if len(step.Assign) > 0 {
			need(gitlab.ScopeManageRunner)
		}
	}
	return s.access.Check(needs...)
}

// siteLookups is how many questions are asked at once.
const siteLookups = 4

// survey collects what there is at the server. It changes nothing.
func (s *siteServer) survey(ctx context.Context, want site.Site, record siteRecord) (site.Facts, error) {
	f := site.Facts{Owner: record.Owner, Known: record.known(), Actual: map[int64]site.Actual{}, Now: time.Now()}
	var err error
	if f.Scopes, err = s.scopes(ctx, want); err != nil {
		return site.Facts{}, err
	}
	var ids []int64
	for _, e := range record.Runners {
		ids = append(ids, e.ID)
	}
	if err := s.look(ctx, ids, f.Actual); err != nil {
		return site.Facts{}, err
	}
	return f, s.strays(ctx, want, f)
}

// scopes looks up all projects and groups of the file. All that is wrong with them is one error.
func (s *siteServer) scopes(ctx context.Context, want site.Site) (map[site.Scope]int64, error) {
	found := map[site.Scope]int64{}
	var wrong []error
	for _, r := range want.Runners {
		for _, scope := range append([]site.Scope{r.Scope}, r.Projects...) {
			if _, have := found[scope]; have {
				continue
			}
			place, err := s.place(ctx, scope)
			if err != nil {
				if stop := context.Cause(ctx); stop != nil {
					return nil, stop
				}
				wrong = append(wrong, fmt.Errorf("runner %s: %w", r.Name, err))
			}
			found[scope] = place.ID
		}
	}
	return found, errors.Join(wrong...)
}

func (s *siteServer) place(ctx context.Context, scope site.Scope) (gitlab.Place, error) {
	switch scope.Kind {
	case site.ScopeProject:
		return s.api.Project(ctx, scope.Path)
	case site.ScopeGroup:
		return s.api.Group(ctx, scope.Path)
	}
	return gitlab.Place{}, nil
}

// look asks for runners by their ids. What is not there is left out.
func (s *siteServer) look(ctx context.Context, ids []int64, into map[int64]site.Actual) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(siteLookups)
	for _, id := range ids {
		group.Go(func() error {
			r, err := s.api.Runner(ctx, id)
			if errors.Is(err, tranter.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			into[id] = actualRunner(r)
			return nil
		})
	}
	return group.Wait()
}

func actualRunner(r gitlab.ManagedRunner) site.Actual {
	a := site.Actual{
		ID: r.ID, Description: r.Description, Tags: r.Tags, Paused: r.Paused, Locked: r.Locked, RunUntagged: r.RunUntagged,
		AccessLevel: r.AccessLevel, MaximumTimeout: r.MaximumTimeout, MaintenanceNote: r.MaintenanceNote,
	}
	for _, p := range r.Projects {
		a.Projects = append(a.Projects, p.Path)
	}
	return a
}

// strays looks for runners that are at the server though our state does not know them: those whose creation was answered,
// but not to us, and those of another state directory. They have the description of a runner of the file, and its mark.
func (s *siteServer) strays(ctx context.Context, want site.Site, f site.Facts) error {
	listed := map[site.Scope][]gitlab.ManagedRunner{}
	var ids []int64
	for _, r := range want.Runners {
		if _, there := f.Actual[f.Known[r.Name].ID]; there && f.Known[r.Name].Scope == r.Scope {
			continue
		}
		list, have := listed[r.Scope]
		if !have {
			var err error
			if list, err = s.api.Runners(ctx, gitlab.RunnerScope{Kind: r.Scope.Kind, ID: f.Scopes[r.Scope]}); err != nil {
				return err
			}
			listed[r.Scope] = list
		}
		for _, one := range list {
			if _, have := f.Actual[one.ID]; one.Description == r.Description && !have && !slices.Contains(ids, one.ID) {
				ids = append(ids, one.ID)
			}
		}
	}
	return s.look(ctx, ids, f.Actual)
}

// find looks for the runner whose creation may have been carried out although its answer did not come.
func (s *siteServer) find(ctx context.Context, step site.Step, scope gitlab.RunnerScope, mark site.Mark) (int64, error) {
	list, err := s.api.Runners(ctx, scope)
	if err != nil {
		return 0, err
	}
	for _, one := range list {
		if step.Set.Description == nil || one.Description != *step.Set.Description {
			continue
		}
		r, err := s.api.Runner(ctx, one.ID)
		if errors.Is(err, tranter.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if m, ok := site.ReadMark(r.MaintenanceNote); ok && m == mark {
			return r.ID, nil
		}
	}
	return 0, nil
}
