package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
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

// beginLimit is how long Demand waits for submissions to begin.
const beginLimit = 2 * time.Second

// Demand says which jobs wait in GitLab for this runner: all of them, as of now. Without it no job does. It returns once what is
// wanted for them has begun to be submitted, as far as it may be at once.
func (c *Cluster) Demand(ctx context.Context, jobs []Pending) error {
	wants := make([]allocation.Want, 0, len(jobs))
	tags := make(map[int64][]string, len(jobs))
	var refused []WaitingJob
	c.demanding.Lock()
	defer c.demanding.Unlock()
	told := map[int64]string{}
	s, known := c.settings.Load().remembering(c.users)
	defer func() { c.told, c.users = told, known }()
	for _, p := range jobs {
		tags[p.ID] = p.Tags
		// One that asks for what it may not have is made no place: it gets its answer when it is taken.
		want, err := s.want(ctx, p)
		if err != nil {
			if text := err.Error(); c.told[p.ID] != text {
				c.options.Log.Warn("No batch job is made for a job that waits", "job", p.ID, "project", p.User.Project, "error", err)
			}
			told[p.ID] = err.Error()
			if _, mistake := errors.AsType[*tranter.ConfigError](err); !mistake {
				continue // it may pass
			}
			refused = append(refused, WaitingJob{
				ID: p.ID, Name: p.Name, Project: p.User.Project, Domain: domain(p.Number, p.User.Name), Since: p.Since, Refused: oneLine(err.Error()),
			})
			continue
		}
		wants = append(wants, want)
	}
	begun := make(chan struct{})
	if err := c.do(ctx, func(l *loop) {
		l.then(func() { close(begun) })
		l.renew(wants, refused, tags)
	}); err != nil {
		return err
	}
	return c.afterwards(ctx, begun)
}

// renew replaces what is known of the jobs that wait.
func (l *loop) renew(wants []allocation.Want, refused []WaitingJob, tags map[int64][]string) {
	for id, t := range l.tags { // a job may be taken after it was listed for the last time
		if _, listed := tags[id]; !listed && l.waits(id) {
			tags[id] = t
		}
	}
	l.pending, l.refused, l.tags, l.due = wants, refused, tags, true
	maps.DeleteFunc(l.taken, func(_ int64, at time.Time) bool { return time.Since(at) > takenFor })
	if !time.Now().Before(l.before.until) || l.settings.Policy.Order == allocation.SelfTaking {
		l.before.wants = nil
	}
	l.record(allocation.Event{Kind: allocation.Fresh})
}

// afterwards waits until what was to be begun is, but not for long where it can't be now.
func (c *Cluster) afterwards(ctx context.Context, begun <-chan struct{}) error {
	limit := time.NewTimer(beginLimit)
	defer limit.Stop()
	select {
	case <-begun:
		return c.do(ctx, func(*loop) {}) // the whole of it
	case <-limit.C:
		return nil
	case <-c.done:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takenFor is how long a job that was taken is remembered at least: no list of jobs that wait takes longer to make.
const takenFor = 5 * time.Minute

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
		return allocation.Want{}, &tranter.ConfigError{Err: err}
	}
	want := allocation.Want{
		ID: p.ID, Name: p.Name, Project: p.User.Project, Pipeline: p.Pipeline, Priority: p.Priority, Since: p.Since, Shape: shape,
		Domain: domain(p.Number, p.User.Name), Lasts: s.lasts(cmp.Or(p.Lasts, shape.Walltime), shape.Walltime),
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
	if tags == nil {
		tags = jobTags(job)
	}
	need := Need{Tags: tags, Variables: spec.Variables, Timeout: job.Timeout()}
	if s.Policy.Order == allocation.AllocateFirst { // there may be an allocation already, which is as long as it is
		need.Timeout = 0
	}
	shape, notes, err := s.Size(need)
	if err != nil {
		return allocation.Want{}, notes, &tranter.ConfigError{Err: err}
	}
	user, unclear := jobUser(job)
	if unclear != nil && s.Accounts != nil {
		return allocation.Want{}, notes, &tranter.ConfigError{Err: unclear}
	}
	want := allocation.Want{
		ID: job.ID, Key: spec.Name, Name: job.Info.Name, Project: user.Project, Pipeline: job.Info.PipelineID, Since: time.Now(), Shape: shape,
		Domain: domain(job.Info.ProjectID, user.Name), Lasts: s.lasts(job.Timeout(), shape.Walltime),
	}
	want.User, err = s.account(ctx, user)
	return want, notes, err
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

// jobTags are the tags of a job that was not seen waiting, from what the server says of them, if it does (gitlab-server,
// section 2.3).
func jobTags(job *tranter.Job) []string {
	text, _ := job.Variable("CI_JOB_TAGS")
	var tags []string
	if json.Unmarshal([]byte(text), &tags) != nil {
		return nil
	}
	return tags
}

// jobUser is for whom a job runs. The error says that this can't be told.
//
// The server's own GITLAB_USER_LOGIN is always among the variables, but those that the pipeline's file sets come before it, and
// those of projects, triggers and earlier jobs after it (gitlab-server 2.3): no place in the list is safe. So a job in which
// there are several of different values is nobody's.
func jobUser(job *tranter.Job) (User, error) {
	u := User{ID: job.Info.UserID, Project: job.Info.ProjectFullPath}
	logins, ids := valuesOf(job.Variables, "GITLAB_USER_LOGIN"), valuesOf(job.Variables, "GITLAB_USER_ID")
	u.Name = strings.Join(logins, "/")
	if u.ID == 0 && len(ids) > 0 {
		u.ID, _ = strconv.ParseInt(ids[0], 10, 64)
	}
	if project := valuesOf(job.Variables, "CI_PROJECT_PATH"); u.Project == "" && len(project) > 0 {
		u.Project = project[0] // what is set elsewhere comes later
	}
	const remedy = "as whom it runs would be its own choice: rename the variable that is set in the pipeline's file, the project, the group or the trigger"
	switch {
	case len(logins) > 1:
		return u, fmt.Errorf("the job's variables set GITLAB_USER_LOGIN to another value than GitLab does, and %s", remedy)
	case len(ids) > 1, job.Info.UserID != 0 && len(ids) == 1 && ids[0] != strconv.FormatInt(job.Info.UserID, 10):
		return u, fmt.Errorf("the job's variables set GITLAB_USER_ID to another value than GitLab does, and %s", remedy)
	}
	return u, nil
}

// valuesOf returns the values that variables of one name have, each once.
func valuesOf(vars []tranter.Variable, key string) (values []string) {
	for _, v := range vars {
		if v.Key == key && !slices.Contains(values, v.Value) {
			values = append(values, v.Value)
		}
	}
	return values
}

// domain is within what jobs may follow each other in one allocation: what one leaves in it another one may find.
func domain(project int64, user string) string {
	return "p" + strconv.FormatInt(project, 10) + "/" + user
}
