package coordinator

import (
	"cmp"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// ErrNoTags means that a runner would take no job: it has no tags and does not take jobs without tags.
var ErrNoTags = errors.New("tags list can not be empty when runner is not allowed to pick untagged jobs")

// specError is what is wrong with a runner's settings: problems by field, as GitLab words them.
type specError map[string][]string

// Error lists all problems.
func (e specError) Error() string {
	var out []string
	for _, field := range slices.Sorted(maps.Keys(e)) {
		out = append(out, field+" "+strings.Join(e[field], ", "))
	}
	return strings.Join(out, "; ")
}

// Is makes a missing list of tags an ErrNoTags.
func (e specError) Is(target error) bool { return target == ErrNoTags && e["tags_list"] != nil }

// The limits of a runner's settings (gitlab-server 1.2).
const (
	maxTags    = 50
	maxText    = 1024
	minTimeout = 10 * time.Minute
)

// check returns a specError, or nil.
func (s *RunnerSpec) check() error {
	e := specError{}
	if len(s.Tags) == 0 && !s.RunUntagged {
		e["tags_list"] = []string{"can not be empty when runner is not allowed to pick untagged jobs"}
	}
	if len(s.Tags) > maxTags {
		e["tags_list"] = []string{fmt.Sprintf("Too many tags specified. Please limit the number of tags to %d", maxTags)}
	}
	if s.MaximumTimeout != 0 && s.MaximumTimeout < minTimeout {
		e["maximum_timeout"] = []string{"needs to be at least 10 minutes"}
	}
	for field, text := range map[string]string{"description": s.Description, "maintenance_note": s.MaintenanceNote} {
		if len(text) > maxText {
			e[field] = []string{fmt.Sprintf("is too long (maximum is %d characters)", maxText)}
		}
	}
	if len(e) == 0 {
		return nil
	}
	return e
}

// prefix begins the tokens of runners that are made by a user.
func (s *RunnerSpec) prefix() string {
	switch s.Type {
	case groupRunner:
		return "glrt-t2_"
	case projectRunner:
		return "glrt-t3_"
	}
	return "glrt-t1_"
}

// CreateRunner makes a runner as an administrator does. Its token begins with glrt-.
func (c *Coordinator) CreateRunner(spec RunnerSpec) (Runner, error) {
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	rn, err := b.createRunner(spec, spec.prefix())
	if err != nil {
		return Runner{}, fmt.Errorf("create runner: %w", err)
	}
	return rn, nil
}

func (b *roster) createRunner(spec RunnerSpec, prefix string) (Runner, error) {
	spec.Type = cmp.Or(spec.Type, instanceRunner)
	if err := spec.check(); err != nil {
		return Runner{}, err
	}
	b.settings.NextRunner++
	rn := &runner{
		ID: b.settings.NextRunner, UUID: newUUID(), Created: b.now(), Spec: spec, Managers: map[string]*Manager{}, queue: randomHex(16),
	}
	rn.renew(prefix, b.now())
	before := b.settings.Runners
	b.settings.Runners = append(slices.Clip(before), rn)
	if err := b.saveSettings(); err != nil {
		b.settings.Runners = before
		return Runner{}, err
	}
	b.runnersChanged() // jobs may no longer be stuck
	return rn.view(), nil
}

// renew gives the runner a token that was never used.
func (rn *runner) renew(prefix string, now time.Time) {
	rn.Token = tranter.Secret(prefix + randomHex(16))
	rn.Expires = time.Time{}
	if rn.Spec.TokenLifetime > 0 {
		rn.Expires = now.Add(rn.Spec.TokenLifetime).UTC().Truncate(time.Second)
	}
}

func (rn *runner) prefix() string {
	if strings.HasPrefix(rn.Token.Reveal(), "glrt-") {
		return rn.Spec.prefix()
	}
	return "glrtr-"
}

func (rn *runner) view() Runner {
	v := Runner{ID: rn.ID, Token: rn.Token, Expires: rn.Expires, RunnerSpec: rn.Spec}
	for _, m := range rn.Managers {
		v.Managers = append(v.Managers, *m)
	}
	slices.SortFunc(v.Managers, func(x, y Manager) int { return strings.Compare(x.SystemID, y.SystemID) })
	return v
}

// Runners returns all runners.
func (v *views) Runners() []Runner {
	b := v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Runner
	for _, rn := range b.settings.Runners {
		out = append(out, rn.view())
	}
	return out
}

func (b *roster) runner(id int64) *runner {
	for _, rn := range b.settings.Runners {
		if rn.ID == id {
			return rn
		}
	}
	return nil
}

func (b *roster) runnerByToken(token tranter.Secret) *runner {
	for _, rn := range b.settings.Runners {
		if !same(rn.Token, token) {
			continue
		}
		if !rn.Expires.IsZero() && !b.now().Before(rn.Expires) {
			return nil
		}
		return rn
	}
	return nil
}

func (b *roster) removeRunner(id int64) error {
	before := b.settings.Runners
	b.settings.Runners = nil
	for _, rn := range before {
		if rn.ID != id {
			b.settings.Runners = append(b.settings.Runners, rn)
			continue
		}
		defer rn.bell.ring()
	}
	if err := b.saveSettings(); err != nil {
		b.settings.Runners = before
		return err
	}
	b.runnersChanged()
	return nil
}

func same(a, b tranter.Secret) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// takes tells whether the runner may run the job (gitlab-server 3.1).
func (b *roster) takes(rn *runner, j *job) bool {
	if rn.Spec.ProtectedOnly && !j.run.Commit.Protected || !rn.Spec.serves(j.run.Project) {
		return false
	}
	if rn.Spec.Type == groupRunner && !b.inGroup(rn.Spec.Owner, j.run.Project) {
		return false
	}
	if len(j.Spec.Tags) == 0 {
		return rn.Spec.RunUntagged
	}
	for _, tag := range j.Spec.Tags {
		if !slices.Contains(rn.Spec.Tags, tag) {
			return false
		}
	}
	return true
}

// inGroup tells whether the project is in the group. A runner whose group is not known is one of all projects.
func (b *roster) inGroup(id, project int64) bool {
	g := b.groupByID(id)
	return g == nil || g.holds(b.project(project).Path)
}

func (b *roster) someRunnerTakes(j *job) bool {
	return slices.ContainsFunc(b.settings.Runners, func(rn *runner) bool { return !rn.Spec.Paused && b.takes(rn, j) })
}

// tick changes the queue value of every runner that could take one of the jobs.
func (b *book) tick() {
	for _, rn := range b.settings.Runners {
		if slices.ContainsFunc(b.dirty, func(j *job) bool { return j.Status == Pending && b.takes(rn, j) }) {
			rn.queue = randomHex(16)
			rn.bell.ring()
		}
	}
}

// A runner's process counts as online for 2 hours after it was heard of, and as stale after 7 days (gitlab-server 3.4).
const (
	onlineFor  = 2 * time.Hour
	staleAfter = 7 * 24 * time.Hour
)

// The kinds of runners.
const (
	instanceRunner = "instance_type"
	groupRunner    = "group_type"
	projectRunner  = "project_type"
)

// legacySystem stands for the system id of runners that have none.
const legacySystem = "<legacy>"

// meet notes that a runner's process was heard of. Only news are saved.
func (b *roster) meet(rn *runner, system string, info managerInfo) *Manager {
	if system == "" {
		system = legacySystem
	}
	m := rn.Managers[system]
	fresh := m == nil
	if fresh {
		m = &Manager{SystemID: system, Created: b.now()}
		if rn.Managers == nil {
			rn.Managers = map[string]*Manager{}
		}
		maps.DeleteFunc(rn.Managers, func(_ string, old *Manager) bool { return b.now().Sub(old.Contact) > staleAfter })
		rn.Managers[system] = m
	}
	news := fresh || m.Info.Version != info.Version || m.Info.Features != info.Features || m.Info.Executor != info.Executor
	if info.Name != "" || info.Version != "" || fresh {
		m.Info = info
	}
	m.Contact = b.now()
	if news {
		_ = b.saveSettings() // logged; the next save has it
	}
	return m
}
