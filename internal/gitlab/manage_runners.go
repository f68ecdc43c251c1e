package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// The kinds of runners, by where their jobs come from.
const (
	ProjectRunner  = "project"
	GroupRunner    = "group"
	InstanceRunner = "instance"
)

// RunnerScope says whose jobs a runner takes.
type RunnerScope struct {
	Kind string // ProjectRunner, GroupRunner or InstanceRunner
	ID   int64  // of the project or group
}

// RunnerChange are settings of a runner; nil ones stay as they are, or as the server has them by default.
type RunnerChange struct {
	Description     *string
	Tags            *[]string
	Paused          *bool
	Locked          *bool
	RunUntagged     *bool
	AccessLevel     *string        // not_protected or ref_protected
	MaximumTimeout  *time.Duration // 0: none
	MaintenanceNote *string
}

// ManagedRunner is a runner as the management API shows it.
type ManagedRunner struct {
	ID              int64
	Kind            string // as in RunnerScope
	Description     string
	Tags            []string
	Paused          bool
	Locked          bool
	RunUntagged     bool
	AccessLevel     string
	MaximumTimeout  time.Duration // 0: none
	MaintenanceNote string
	Status          string // online, offline, stale or never_contacted
	ContactedAt     time.Time
	Projects        []Place // of a project runner
	Groups          []Place // of a group runner
}

// body is the change as the API wants it.
func (c RunnerChange) body() map[string]any {
	out := map[string]any{}
	put(out, "description", c.Description)
	put(out, "tag_list", c.Tags)
	put(out, "paused", c.Paused)
	put(out, "locked", c.Locked)
	put(out, "run_untagged", c.RunUntagged)
	put(out, "access_level", c.AccessLevel)
	put(out, "maintenance_note", c.MaintenanceNote)
	if c.Tags != nil && *c.Tags == nil {
		out["tag_list"] = []string{}
	}
	if c.MaximumTimeout != nil {
		out["maximum_timeout"] = nil // takes it away
		if *c.MaximumTimeout > 0 {
			out["maximum_timeout"] = int64((*c.MaximumTimeout + time.Second - 1) / time.Second)
		}
	}
	return out
}

func put[T any](to map[string]any, key string, value *T) {
	if value != nil {
		to[key] = *value
	}
}

// CreateRunner makes a runner (gitlab-server, section 4.1). Its token is in the answer only. Nothing is repeated after which
// the runner may be there already: an error that is not ErrForbidden may mean that it was made and the answer was lost. The
// end of ctx does not cut off an answer that is under way.
func (m *Management) CreateRunner(ctx context.Context, s RunnerScope, settings RunnerChange) (Registered, error) {
	q := m.call("create a runner", http.MethodPost, "user/runners", nil)
	content := settings.body()
	content["runner_type"] = s.Kind + "_type"
	switch s.Kind {
	case ProjectRunner:
		content["project_id"] = s.ID
	case GroupRunner:
		content["group_id"] = s.ID
	}
	if content["maximum_timeout"] == nil {
		delete(content, "maximum_timeout")
	}
	q.want, q.linger, q.once = http.StatusCreated, resetLinger, true
	return m.token201(ctx, q, content)
}

// token201 makes a call whose answer brings a token.
func (m *Management) token201(ctx context.Context, q *call, content any) (Registered, error) {
	if err := q.setJSON(content); err != nil {
		return Registered{}, err
	}
	a, err := m.exchange(ctx, q)
	if err != nil {
		return Registered{}, err
	}
	if a.status != http.StatusCreated && a.status != http.StatusOK {
		return Registered{}, m.refused(q, a)
	}
	return registered(m.log, q, a)
}

// UpdateRunner changes settings of a runner. ErrNotFound: it is not there any more.
func (m *Management) UpdateRunner(ctx context.Context, id int64, settings RunnerChange) error {
	q := m.call(fmt.Sprintf("change runner %d", id), http.MethodPut, fmt.Sprintf("runners/%d", id), nil)
	if err := q.setJSON(settings.body()); err != nil {
		return err
	}
	a, err := m.exchange(ctx, q)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return m.refused(q, a)
	}
	return nil
}

// DeleteRunner removes a runner. ErrNotFound: it is not there any more.
func (m *Management) DeleteRunner(ctx context.Context, id int64) error {
	q := m.call(fmt.Sprintf("remove runner %d", id), http.MethodDelete, fmt.Sprintf("runners/%d", id), nil)
	q.want = http.StatusNoContent
	a, err := m.exchange(ctx, q)
	if err != nil {
		return err
	}
	if a.status != http.StatusNoContent && a.status != http.StatusOK {
		return m.refused(q, a)
	}
	return nil
}

// ResetToken replaces a runner's token; the old one is not valid any more. Save the new one before anything else.
func (m *Management) ResetToken(ctx context.Context, id int64) (Registered, error) {
	q := m.call(fmt.Sprintf("replace the token of runner %d", id), http.MethodPost, fmt.Sprintf("runners/%d/reset_authentication_token", id), nil)
	q.want, q.linger = http.StatusCreated, resetLinger
	r, err := m.token201(ctx, q, map[string]any{})
	if err == nil && r.ID == 0 {
		r.ID = id
	}
	return r, err
}

// managedRunner is a runner in the API's words.
type managedRunner struct {
	ID          int64    `json:"id"`
	Type        string   `json:"runner_type"`
	Description string   `json:"description"`
	Tags        []string `json:"tag_list"`
	Paused      bool     `json:"paused"`
	Locked      bool     `json:"locked"`
	RunUntagged bool     `json:"run_untagged"`
	AccessLevel string   `json:"access_level"`
	Timeout     int64    `json:"maximum_timeout"`
	Note        string   `json:"maintenance_note"`
	Status      string   `json:"status"`
	Contacted   string   `json:"contacted_at"`
	Projects    []struct {
		ID   int64  `json:"id"`
		Path string `json:"path_with_namespace"`
	} `json:"projects"`
	Groups []struct {
		ID  int64  `json:"id"`
		URL string `json:"web_url"`
	} `json:"groups"`
}

func (r *managedRunner) view() ManagedRunner {
	out := ManagedRunner{
		ID: r.ID, Kind: strings.TrimSuffix(r.Type, "_type"), Description: r.Description, Tags: r.Tags, Paused: r.Paused,
		Locked: r.Locked, RunUntagged: r.RunUntagged, AccessLevel: r.AccessLevel, MaintenanceNote: r.Note, Status: r.Status,
		ContactedAt: day(r.Contacted),
	}
	if r.Timeout > 0 && r.Timeout < int64(longestQueue/time.Second) {
		out.MaximumTimeout = time.Duration(r.Timeout) * time.Second
	}
	for _, p := range r.Projects {
		out.Projects = append(out.Projects, Place{ID: p.ID, Path: p.Path})
	}
	for _, g := range r.Groups {
		_, path, _ := strings.Cut(g.URL, "/groups/")
		out.Groups = append(out.Groups, Place{ID: g.ID, Path: path})
	}
	return out
}

// decodeRunner reads one runner.
func decodeRunner(data []byte) (ManagedRunner, error) {
	var r managedRunner
	if err := json.Unmarshal(data, &r); err != nil {
		return ManagedRunner{}, fmt.Errorf("decode the answer: %w", err)
	}
	if r.ID <= 0 {
		return ManagedRunner{}, errors.New("the answer brings no id")
	}
	return r.view(), nil
}

// Runner asks for a runner. ErrNotFound: it is not there any more.
func (m *Management) Runner(ctx context.Context, id int64) (ManagedRunner, error) {
	var raw json.RawMessage
	what := fmt.Sprintf("look at runner %d", id)
	if err := m.get(ctx, what, fmt.Sprintf("runners/%d", id), nil, &raw); err != nil {
		return ManagedRunner{}, err
	}
	r, err := decodeRunner(raw)
	if err != nil {
		return ManagedRunner{}, fmt.Errorf("%s: %w", what, err)
	}
	return r, nil
}

// Runners lists the runners of one scope, not those that it inherits, as far as a list shows them: without tags, notes and
// other settings, which only Runner has.
func (m *Management) Runners(ctx context.Context, s RunnerScope) ([]ManagedRunner, error) {
	path := "runners/all"
	switch s.Kind {
	case ProjectRunner:
		path = fmt.Sprintf("projects/%d/runners", s.ID)
	case GroupRunner:
		path = fmt.Sprintf("groups/%d/runners", s.ID)
	case InstanceRunner:
	default:
		return nil, fmt.Errorf("list runners: %w: a scope of kind %q", tranter.ErrNotFound, s.Kind)
	}
	q := m.call("list the runners of the "+s.Kind, http.MethodGet, path, url.Values{"type": {s.Kind + "_type"}, "per_page": {"100"}})
	var out []ManagedRunner
	err := m.pages(ctx, q, func(a *answer) error {
		var list []managedRunner
		if err := q.read(a, &list); err != nil {
			return err
		}
		for _, r := range list {
			if r.ID > 0 {
				out = append(out, r.view())
			}
		}
		return nil
	})
	return out, err
}

// AssignRunner lets a project runner serve one more project. A locked one can't.
func (m *Management) AssignRunner(ctx context.Context, id, projectID int64) error {
	q := m.call(fmt.Sprintf("let runner %d serve project %d", id, projectID), http.MethodPost, fmt.Sprintf("projects/%d/runners", projectID), nil)
	q.want = http.StatusCreated
	if err := q.setJSON(map[string]any{"runner_id": id}); err != nil {
		return err
	}
	a, err := m.exchange(ctx, q)
	if err != nil {
		return err
	}
	if a.status != http.StatusCreated {
		return m.refused(q, a)
	}
	return nil
}
