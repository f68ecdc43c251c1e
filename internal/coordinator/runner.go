package coordinator

import (
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// ErrNoTags means that a runner would take no job: it has no tags and does not take jobs without tags.
var ErrNoTags = errors.New("tags list can not be empty when runner is not allowed to pick untagged jobs")

// CreateRunner makes a runner as an administrator does. Its token begins with glrt-.
func (c *Coordinator) CreateRunner(spec RunnerSpec) (Runner, error) {
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.createRunner(spec, "glrt-t1_")
}

func (b *book) createRunner(spec RunnerSpec, prefix string) (Runner, error) {
	if len(spec.Tags) == 0 && !spec.RunUntagged {
		return Runner{}, ErrNoTags
	}
	b.settings.NextRunner++
	rn := &runner{
		ID: b.settings.NextRunner, Created: b.now(), Spec: spec, Managers: map[string]*Manager{}, queue: randomHex(16),
	}
	rn.renew(prefix, b.now())
	b.settings.Runners = append(b.settings.Runners, rn)
	b.broadcast() // jobs may no longer be stuck
	return rn.view(), b.saveSettings()
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
		return "glrt-t1_"
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
func (c *Coordinator) Runners() []Runner {
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Runner
	for _, rn := range b.settings.Runners {
		out = append(out, rn.view())
	}
	return out
}

func (b *book) runner(id int64) *runner {
	for _, rn := range b.settings.Runners {
		if rn.ID == id {
			return rn
		}
	}
	return nil
}

func (b *book) runnerByToken(token tranter.Secret) *runner {
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

func (b *book) removeRunner(id int64) error {
	b.settings.Runners = slices.DeleteFunc(b.settings.Runners, func(rn *runner) bool { return rn.ID == id })
	b.broadcast()
	return b.saveSettings()
}

func same(a, b tranter.Secret) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// takes tells whether the runner may run the job (gitlab-server 3.1).
func (rn *runner) takes(j *job) bool {
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

func (b *book) someRunnerTakes(j *job) bool {
	return slices.ContainsFunc(b.settings.Runners, func(rn *runner) bool { return !rn.Spec.Paused && rn.takes(j) })
}

// tick changes the queue value of every runner that could take one of the jobs.
func (b *book) tick() {
	for _, rn := range b.settings.Runners {
		if slices.ContainsFunc(b.dirtyJobs, func(j *job) bool { return j.Status == Pending && rn.takes(j) }) {
			rn.queue = randomHex(16)
		}
	}
}

// legacySystem stands for the system id of runners that have none.
const legacySystem = "<legacy>"

// meet notes that a runner's process was heard of. Only news are saved.
func (b *book) meet(rn *runner, system string, info managerInfo) *Manager {
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
