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

// Place is a project or a group.
type Place struct {
	ID   int64
	Path string // full, such as group/name
}

// Project finds a project by its full path or its id. A *MovedError comes with the project at its new path. ErrNotFound: it
// does not exist or the token's owner may not see it; GitLab does not tell which.
func (m *Management) Project(ctx context.Context, path string) (Place, error) {
	var got struct {
		ID   int64  `json:"id"`
		Path string `json:"path_with_namespace"`
	}
	err := m.get(ctx, "find the project "+path, "projects/"+url.PathEscape(path), nil, &got)
	return m.place(place{kind: "project", path: path, of: Place{ID: got.ID, Path: got.Path}}, err)
}

// Group finds a group by its full path or its id. See Project.
func (m *Management) Group(ctx context.Context, path string) (Place, error) {
	var got struct {
		ID   int64  `json:"id"`
		Path string `json:"full_path"`
	}
	err := m.get(ctx, "find the group "+path, "groups/"+url.PathEscape(path), url.Values{"with_projects": {"false"}}, &got)
	return m.place(place{kind: "group", path: path, of: Place{ID: got.ID, Path: got.Path}}, err)
}

type place struct {
	kind, path string
	of         Place
}

// place judges what was found under a path. GitLab redirects from an old path to the new one, which net/http follows.
func (m *Management) place(p place, err error) (Place, error) {
	switch {
	case errors.Is(err, tranter.ErrNotFound):
		return Place{}, fmt.Errorf("%w: there is no %s of this path, or the owner of the management token is no member of it: check the path (without the server's address) and the membership", err, p.kind)
	case err != nil:
		return Place{}, err
	case p.of.ID <= 0:
		return Place{}, fmt.Errorf("find the %s %s: the answer brings no id; is the URL that of a GitLab server?", p.kind, p.path)
	case strings.Trim(p.path, "0123456789") != "" && !strings.EqualFold(strings.Trim(p.path, "/"), p.of.Path) && p.of.Path != "":
		return p.of, &MovedError{Kind: p.kind, From: p.path, To: p.of.Path}
	}
	return p.of, nil
}

// GroupProjects lists the projects of a group and of all groups below it, without archived ones and those that are only
// shared with it. The group is given by its path or id.
func (m *Management) GroupProjects(ctx context.Context, path string) ([]Place, error) {
	q := m.call("list the projects of the group "+path, http.MethodGet, "groups/"+url.PathEscape(path)+"/projects", url.Values{
		"include_subgroups": {"true"}, "with_shared": {"false"}, "archived": {"false"}, "simple": {"true"},
		"order_by": {"id"}, "sort": {"asc"}, "per_page": {"100"},
	})
	var out []Place
	err := m.pages(ctx, q, func(a *answer) error {
		var list []struct {
			ID   int64  `json:"id"`
			Path string `json:"path_with_namespace"`
		}
		if err := q.read(a, &list); err != nil {
			return err
		}
		for _, p := range list {
			if p.ID > 0 {
				out = append(out, Place{ID: p.ID, Path: p.Path})
			}
		}
		return nil
	})
	return out, err
}

// PendingJob is a job that waits for a runner.
type PendingJob struct {
	ID         int64
	Name       string
	Project    string // full path; empty: the server does not tell
	ProjectID  int64
	PipelineID int64
	Ref        string
	Tags       []string
	UserName   string // login of who started it; empty: not known
	UserID     int64
	CreatedAt  time.Time
	QueuedAt   time.Time // since when it waits, as near as the server tells
}

// pendingPage is the last answer to one query.
type pendingPage struct {
	etag string
	next string // query of the next page; empty: none
	jobs []PendingJob
}

// Pending lists all jobs of a project that wait for a runner, the newest first (gitlab-server, section 4.2). What has not
// changed since the last time costs the server little: it only says so.
func (m *Management) Pending(ctx context.Context, projectID int64) ([]PendingJob, error) {
	query := url.Values{
		"scope[]": {"pending"}, "pagination": {"keyset"}, "order_by": {"id"}, "sort": {"desc"}, "per_page": {"100"},
	}.Encode()
	m.mu.Lock()
	before := m.pending[projectID]
	m.mu.Unlock()
	var out []PendingJob
	now := map[string]pendingPage{}
	for {
		page, err := m.pendingPage(ctx, projectID, query, before[query])
		if err != nil {
			return nil, err
		}
		now[query] = page
		out = append(out, page.jobs...)
		if page.next == "" {
			break
		}
		query = page.next
		if _, again := now[query]; again || len(now) >= maxPages {
			return nil, fmt.Errorf("list the waiting jobs of project %d: the server's list does not end after %d jobs", projectID, len(out))
		}
	}
	m.mu.Lock()
	m.pending[projectID] = now
	m.mu.Unlock()
	return unique(out), nil
}

// unique drops jobs that stand on two pages, which happens when the list changes while it is read.
func unique(jobs []PendingJob) []PendingJob {
	seen := make(map[int64]bool, len(jobs))
	out := jobs[:0]
	for _, j := range jobs {
		if !seen[j.ID] {
			seen[j.ID] = true
			out = append(out, j)
		}
	}
	return out
}

func (m *Management) pendingPage(ctx context.Context, projectID int64, query string, before pendingPage) (pendingPage, error) {
	q := m.call(fmt.Sprintf("list the waiting jobs of project %d", projectID), http.MethodGet, fmt.Sprintf("projects/%d/jobs", projectID), nil)
	q.url.RawQuery = query
	if before.etag != "" {
		q.header.Set("If-None-Match", before.etag)
	}
	a, err := m.exchange(ctx, q)
	switch {
	case err != nil:
		return pendingPage{}, err
	case a.status == http.StatusNotModified && before.etag != "":
		return before, nil
	case a.status != http.StatusOK:
		return pendingPage{}, m.refused(q, a)
	}
	page := pendingPage{etag: a.header.Get("ETag")}
	page.next, _ = nextPage(a.header)
	if page.jobs, err = decodePending(a.body, projectID, time.Now()); err == nil {
		err = a.bodyErr
	}
	if err != nil {
		return pendingPage{}, fmt.Errorf("%s: %w", q.what, err)
	}
	return page, nil
}

// listedJob is a job as a list of jobs has it.
type listedJob struct {
	ID      int64     `json:"id"`
	Name    string    `json:"name"`
	Status  string    `json:"status"`
	Ref     string    `json:"ref"`
	Tags    []string  `json:"tag_list"`
	Created time.Time `json:"created_at"`
	Queued  float64   `json:"queued_duration"` // seconds
	WebURL  string    `json:"web_url"`
	User    struct {
		ID   int64  `json:"id"`
		Name string `json:"username"`
	} `json:"user"`
	Pipeline struct {
		ID      int64 `json:"id"`
		Project int64 `json:"project_id"`
	} `json:"pipeline"`
}

// decodePending reads a page of jobs. Entries that are no pending jobs are left out.
func decodePending(data []byte, projectID int64, now time.Time) ([]PendingJob, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	var out []PendingJob
	for _, raw := range list {
		var j listedJob
		if err := json.Unmarshal(raw, &j); err != nil {
			return nil, fmt.Errorf("decode the answer: %w", err)
		}
		if j.ID <= 0 || j.Status != "pending" {
			continue
		}
		out = append(out, j.pending(projectID, now))
	}
	return out, nil
}

// longestQueue is more than any job waits, and less than what a Duration can hold.
const longestQueue = 10 * 365 * 24 * time.Hour

func (j *listedJob) pending(projectID int64, now time.Time) PendingJob {
	p := PendingJob{
		ID: j.ID, Name: j.Name, Project: pathOf(j.WebURL), ProjectID: projectID, PipelineID: j.Pipeline.ID, Ref: j.Ref, Tags: j.Tags,
		UserName: j.User.Name, UserID: j.User.ID, CreatedAt: j.Created, QueuedAt: j.Created,
	}
	if j.Queued > 0 && j.Queued < longestQueue.Seconds() {
		p.QueuedAt = now.Add(-time.Duration(j.Queued * float64(time.Second)))
	}
	return p
}

// pathOf takes a project's path out of the address of one of its jobs.
func pathOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	path, _, ok := strings.Cut(u.Path, "/-/jobs/")
	if !ok {
		return ""
	}
	return strings.Trim(path, "/")
}
