package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/scale"
)

// campaign is a manager that is killed again and again while a bad provider makes machines for its jobs.
type campaign struct {
	*site
	random *rand.Rand
	bad    *badCloud
	jobs   []*campaignJob
	over   sync.WaitGroup // of the jobs of one life of the manager
}

// badCloud is a cloud with faults.
type badCloud struct {
	*cloud
	mu       sync.Mutex
	random   *rand.Rand
	quiet    bool      // no more faults
	throttle time.Time // requests are refused until then
	old      [][]tranter.Machine
	failed   map[string]int // removals
}

func (b *badCloud) chance(percent int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.quiet && b.random.IntN(100) < percent
}

func (b *badCloud) refused() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Now().Before(b.throttle) {
		return &tranter.ThrottledError{Err: errors.New("too many requests")}
	}
	return nil
}

// Create fails, hangs, or makes a machine and says that it has not.
func (b *badCloud) Create(ctx context.Context, spec tranter.MachineSpec, note func(json.RawMessage)) (tranter.Machine, error) {
	if err := b.refused(); err != nil {
		return tranter.Machine{}, err
	}
	if b.chance(5) {
		<-ctx.Done()
		return tranter.Machine{}, context.Cause(ctx)
	}
	if b.chance(15) {
		return tranter.Machine{}, errors.New("internal error")
	}
	m, err := b.cloud.Create(ctx, spec, note)
	if err == nil && b.chance(15) {
		return tranter.Machine{}, errors.New("the operation has timed out")
	}
	return m, err
}

func (b *badCloud) Destroy(ctx context.Context, m tranter.MachineRef) error {
	if err := b.refused(); err != nil {
		return err
	}
	b.mu.Lock()
	failed := b.failed[m.Name]
	b.mu.Unlock()
	if failed < 2 && b.chance(10) { // not so often that it counts as a leak, which the limit does not
		b.mu.Lock()
		b.failed[m.Name]++
		b.mu.Unlock()
		return errors.New("internal error")
	}
	return b.cloud.Destroy(ctx, m)
}

// List is late: it shows what there was at one of the last times.
func (b *badCloud) List(ctx context.Context, mark tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	if err := b.refused(); err != nil {
		return nil, err
	}
	now, err := b.cloud.List(ctx, mark, known)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.old = append(b.old, now)
	if len(b.old) > 3 {
		b.old = b.old[1:]
	}
	if b.quiet {
		return now, err
	}
	return b.old[b.random.IntN(len(b.old))], err
}

// mortal is a book that is lost with the manager's life: what it does afterwards is not kept.
type mortal struct {
	*memory
	mu   sync.Mutex
	dead bool
}

func (m *mortal) Append(ctx context.Context, name string, events []fleet.Event, changed []fleet.Machine, gone []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errors.New("the manager is dead")
	}
	return m.memory.Append(ctx, name, events, changed, gone)
}

// campaignJob is a job that outlives managers. Its work is done by an agent on its machine, whoever looks on.
type campaignJob struct {
	name  string
	takes time.Duration
	at    time.Time

	ref     json.RawMessage // as the manager's store has it
	started map[string]bool // machines on which it has begun
	begun   time.Time
	ended   int
	lost    int
}

// live runs the manager until ctx ends.
func (c *campaign) live(ctx context.Context) {
	book := &mortal{memory: c.book}
	log := slogDiscard()
	if os.Getenv("POOL_LOG") != "" {
		log = slogText()
	}
	c.pool = pool.New(pool.Options{Name: "pool", Mark: mark, Book: book, Log: log}, c.settings)
	c.executor = c.pool.Executor()
	var pools sync.WaitGroup
	pools.Go(func() { _ = c.pool.Run(ctx) })
	for _, j := range c.jobs {
		if j.ended == 0 && !j.at.After(time.Now()) {
			c.over.Go(func() { c.job(ctx, j) })
		}
	}
	for {
		next := c.next()
		if next == nil {
			<-ctx.Done()
			break
		}
		if !sleep(ctx, time.Until(next.at)) {
			break
		}
		c.over.Go(func() { c.job(ctx, next) })
	}
	book.mu.Lock()
	book.dead = true
	book.mu.Unlock()
	c.over.Wait()
	pools.Wait()
}

// next is the job that comes next.
func (c *campaign) next() *campaignJob {
	for _, j := range c.jobs {
		if j.at.After(time.Now()) {
			return j
		}
	}
	return nil
}

// job does for a job what the manager does, from where its record leaves off.
func (c *campaign) job(ctx context.Context, j *campaignJob) {
	for j.ended == 0 && ctx.Err() == nil {
		var session tranter.Session
		var err error
		if j.ref != nil {
			session, err = c.executor.Reopen(ctx, j.ref)
		} else {
			session, err = c.executor.Open(ctx, tranter.SessionSpec{Name: j.name, Job: &tranter.Job{}, Log: io.Discard})
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, tranter.ErrMachineLost):
			j.again()
			continue
		case err != nil:
			continue
		}
		if j.ref == nil {
			j.ref, j.begun = session.Ref(), time.Now()
			var r struct{ Machine string }
			_ = json.Unmarshal(j.ref, &r)
			j.started[r.Machine] = true
		}
		_, err = session.Attach(ctx, max(0, time.Until(j.begun.Add(j.takes))).String(), 0, io.Discard)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, tranter.ErrMachineLost):
			_ = session.Close(ctx)
			j.again()
			continue
		case err != nil:
			c.t.Errorf("job %s: %v", j.name, err)
		}
		j.ended++
		_ = session.Close(ctx)
	}
}

// again has the job begin anew: its machine was lost.
func (j *campaignJob) again() {
	j.ref = nil
	j.lost++
}

func TestFaultCampaign(t *testing.T) {
	kills, jobs := 60, 120
	if os.Getenv("CAMPAIGN") == "full" {
		kills, jobs = 200, 1000
	}
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runCampaign(t, seed, kills, jobs) })
		})
	}
}

func runCampaign(t *testing.T, seed uint64, kills, jobs int) {
	const limit = 8
	random := rand.New(rand.NewPCG(seed, 1))
	c := &campaign{random: random, site: newSite(t, 20*time.Second, scale.Policy{
		Limit: limit, Growth: 4, MaxUses: 3, Idle: scale.Idle{Count: 2, Time: time.Minute}, Times: scale.Times{Create: 2 * time.Minute, Boot: 2 * time.Minute},
	})}
	c.cloud.removal = 5 * time.Second
	c.bad = &badCloud{cloud: c.cloud, random: rand.New(rand.NewPCG(seed, 2)), failed: map[string]int{}}
	c.settings.Provider = pool.Limited(c.bad, pool.NewBudget(0, 0))
	span := time.Duration(kills) * time.Minute
	for i := range jobs {
		c.jobs = append(c.jobs, &campaignJob{
			name: "job-" + strconv.Itoa(i), takes: time.Duration(1+random.IntN(120)) * time.Second,
			at: time.Now().Add(time.Duration(random.Int64N(int64(span)))), started: map[string]bool{},
		})
	}
	slices.SortFunc(c.jobs, func(a, b *campaignJob) int { return a.at.Compare(b.at) })
	for k := range kills {
		if k == kills/3 {
			c.bad.throttle = time.Now().Add(30 * time.Minute)
		}
		life, kill := context.WithTimeout(context.Background(), time.Duration(random.Int64N(int64(2*time.Minute))))
		c.live(life)
		kill()
		if k%10 == 9 { // the provider forgets a machine
			if names := c.cloud.names(); len(names) > 0 {
				c.cloud.with(func() { delete(c.cloud.machines, names[random.IntN(len(names))]) })
			}
		}
	}
	c.bad.quiet = true
	c.settings.Policy.Idle = scale.Idle{}
	life, kill := context.WithTimeout(context.Background(), 3*time.Hour)
	defer kill()
	c.live(life)
	c.verdict(limit)
}

func (c *campaign) verdict(limit int) {
	lost := 0
	for _, j := range c.jobs {
		if j.ended != 1 {
			c.t.Errorf("job %s has ended %d times", j.name, j.ended)
		}
		if len(j.started) > j.lost+1 {
			c.t.Errorf("job %s has begun on %d machines, and lost %d", j.name, len(j.started), j.lost)
		}
		lost += j.lost
	}
	synctest.Wait()
	if got := c.cloud.names(); len(got) != 0 {
		c.t.Errorf("machines are left: %v", got)
	}
	if len(c.book.machines) != 0 {
		c.t.Errorf("the book still has %d machines", len(c.book.machines))
	}
	if c.cloud.most > limit {
		c.t.Errorf("%d machines at once, and the limit is %d", c.cloud.most, limit)
	}
	c.t.Logf("%d machines were made for %d jobs, %d times one was lost", len(c.cloud.created), len(c.jobs), lost)
}
