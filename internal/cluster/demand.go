package cluster

import (
	"cmp"
	"context"
	"strconv"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

// Pending is a job that waits in GitLab.
type Pending struct {
	ID       int64
	Name     string
	Number   int64 // of the project
	Pipeline int64
	User     User
	Tags     []string
	Priority int
	Since    time.Time
	Lasts    time.Duration // at most, as far as that is known; 0: it is not
}

// Demand says which jobs wait in GitLab for this runner: all of them, as of now. Without it no job does.
func (c *Cluster) Demand(ctx context.Context, jobs []Pending) error {
	wants := make([]allocation.Want, 0, len(jobs))
	tags := make(map[int64][]string, len(jobs))
	for _, p := range jobs {
		tags[p.ID] = p.Tags
		// One that asks for what it may not have is made no place: it gets its answer when it is taken.
		want, err := c.settings.Load().want(ctx, p)
		if err != nil {
			c.options.Log.Warn("No batch job is made for a job that waits", "job", p.ID, "project", p.User.Project, "error", err)
			continue
		}
		wants = append(wants, want)
	}
	return c.do(ctx, func(l *loop) {
		for id, t := range l.tags { // a job may be taken after it was listed for the last time
			if _, listed := tags[id]; !listed && l.waits(id) {
				tags[id] = t
			}
		}
		l.pending, l.tags, l.due = wants, tags, true
		if !time.Now().Before(l.before.until) || l.settings.Policy.Order == allocation.SelfTaking {
			l.before.wants = nil
		}
		l.record(allocation.Event{Kind: allocation.Fresh})
	})
}

// waits says whether a job that waited in GitLab is known to have been taken, or may be at this moment.
func (l *loop) waits(id int64) bool {
	for _, want := range l.pending {
		if want.ID == id {
			return true
		}
	}
	return false
}

// want says what a job needs of which only the tags are known.
func (s *Settings) want(ctx context.Context, p Pending) (allocation.Want, error) {
	shape, _, err := s.Size(Need{Tags: p.Tags, Waiting: true})
	if err != nil {
		return allocation.Want{}, err
	}
	want := allocation.Want{
		ID: p.ID, Name: p.Name, Project: p.User.Project, Pipeline: p.Pipeline, Priority: p.Priority, Since: p.Since, Shape: shape,
		Domain: domain(p.Number, p.User.Name), Lasts: p.Lasts,
	}
	want.User, err = s.account(ctx, p.User)
	return want, err
}

// account returns the name of the account as whom a user's jobs run; empty: ours.
func (s *Settings) account(ctx context.Context, u User) (string, error) {
	if s.Accounts == nil {
		return "", nil
	}
	account, err := s.Accounts(ctx, u)
	if err != nil {
		return "", err
	}
	return account.Name, nil
}

// taken says what a job needs that was taken, and what of that its user should know.
func (s *Settings) taken(ctx context.Context, spec tranter.SessionSpec, tags []string) (allocation.Want, []string, error) {
	job := spec.Job
	need := Need{Tags: tags, Variables: spec.Variables, Timeout: job.Timeout()}
	if s.Policy.Order == allocation.AllocateFirst { // there may be an allocation already, which is as long as it is
		need.Timeout = 0
	}
	shape, notes, err := s.Size(need)
	if err != nil {
		return allocation.Want{}, notes, &tranter.ConfigError{Err: err}
	}
	user := jobUser(job)
	want := allocation.Want{
		ID: job.ID, Key: spec.Name, Name: job.Info.Name, Project: user.Project, Pipeline: job.Info.PipelineID, Since: time.Now(), Shape: shape,
		Domain: domain(job.Info.ProjectID, user.Name), Lasts: s.lasts(job.Timeout(), shape.Walltime),
	}
	if want.User, err = s.account(ctx, user); err != nil {
		return want, notes, &tranter.ConfigError{Err: err}
	}
	return want, notes, nil
}

// lasts is how much time a job must find in an allocation: its timeout, or if that is longer than the allocations are, what a
// new one has.
func (s *Settings) lasts(timeout, walltime time.Duration) time.Duration {
	if walltime <= 0 {
		return timeout
	}
	return max(0, min(timeout, walltime-s.Policy.Margin-cmp.Or(s.Policy.TakeTimeout, defaultTake)))
}

const defaultTake = 2 * time.Minute

// jobUser is for whom a job runs. Variables of the pipeline come after the server's own of the same name, and may say
// anything: the first one counts (gitlab-server 2.3).
func jobUser(job *tranter.Job) User {
	u := User{ID: job.Info.UserID, Project: job.Info.ProjectFullPath}
	first := map[string]string{}
	for _, v := range job.Variables {
		if _, seen := first[v.Key]; !seen {
			first[v.Key] = v.Value
		}
	}
	u.Name = first["GITLAB_USER_LOGIN"]
	if u.ID == 0 {
		u.ID, _ = strconv.ParseInt(first["GITLAB_USER_ID"], 10, 64)
	}
	if u.Project == "" {
		u.Project = first["CI_PROJECT_PATH"]
	}
	return u
}

// domain is within what jobs may follow each other in one allocation: what one leaves in it another one may find.
func domain(project int64, user string) string {
	return "p" + strconv.FormatInt(project, 10) + "/" + user
}
