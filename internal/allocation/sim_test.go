package allocation

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

// world plays GitLab, the engine, a cluster and the workers with a clock of its own: a few lines where package cluster and
// a scheduler are the real things.
type world struct {
	book   *Book
	policy Policy
	now    time.Time
	fault  func(form string, args ...any)
	chance func(what string) bool          // whether something goes wrong
	lasts  func(what string) time.Duration // how long something takes

	later   timers
	rows    map[string]string // what is stored of the book
	jobs    map[int64]*ciJob
	listed  []int64 // that waited when GitLab was looked at last
	batch   map[string]*batchJob
	submits int
	wake    time.Time
	told    []string
}

type ciJob struct {
	want  Want
	taken bool
	over  string
	lease time.Time
}

type batchJob struct {
	tranter.BatchJob
	spec   Allocation
	worker bool // runs, and can be heard
	used   time.Time
	gone   bool // the scheduler does not name it any more
}

type timer struct {
	at  time.Time
	seq int
	do  func()
}

type timers struct {
	all []timer
	seq int
}

func (t *timers) Len() int { return len(t.all) }
func (t *timers) Less(i, j int) bool {
	if t.all[i].at.Equal(t.all[j].at) {
		return t.all[i].seq < t.all[j].seq
	}
	return t.all[i].at.Before(t.all[j].at)
}
func (t *timers) Swap(i, j int) { t.all[i], t.all[j] = t.all[j], t.all[i] }
func (t *timers) Push(x any)    { t.all = append(t.all, x.(timer)) }
func (t *timers) Pop() any {
	last := t.all[len(t.all)-1]
	t.all = t.all[:len(t.all)-1]
	return last
}

func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func newWorld(p Policy, fault func(string, ...any)) *world {
	p.Prefix = "t"
	return &world{
		book: NewBook(p), policy: p, now: start(), fault: fault, chance: func(string) bool { return false }, lasts: func(string) time.Duration { return 10 * time.Second },
		rows: map[string]string{}, jobs: map[int64]*ciJob{}, batch: map[string]*batchJob{},
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.later.seq++
	heap.Push(&w.later, timer{at: w.now.Add(d), seq: w.later.seq, do: do})
}

func (w *world) apply(e Event) {
	e.At = w.now
	if err := w.book.Apply(e); err != nil {
		w.fault("%v", err)
	}
	w.store()
}

func (w *world) store() {
	for _, a := range w.book.Changed() {
		data, err := json.Marshal(a)
		if err != nil {
			w.fault("%v", err)
		}
		w.rows[a.Name] = string(data)
	}
}

// restart has the book made anew of what is stored.
func (w *world) restart() {
	names := make([]string, 0, len(w.rows))
	for name := range w.rows {
		names = append(names, name)
	}
	slices.Sort(names)
	var all []Allocation
	for _, name := range names {
		var a Allocation
		if err := json.Unmarshal([]byte(w.rows[name]), &a); err != nil {
			w.fault("%v", err)
		}
		all = append(all, a)
	}
	before := w.book
	w.book = NewBook(w.policy)
	w.book.Restore(all)
	if err := check(w.book); err != nil {
		w.fault("restored: %v", err)
	}
	for job, a := range before.homes {
		if again := w.book.Find(job); again == nil || again.Name != a.Name {
			w.fault("after a restart the lease of %s is lost", job)
		}
	}
}

// job adds one that waits.
func (w *world) job(want Want) {
	want.Since = w.now
	w.jobs[want.ID] = &ciJob{want: want}
}

func (w *world) ids() []int64 {
	ids := make([]int64, 0, len(w.jobs))
	for id := range w.jobs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) wants() []Want {
	var out []Want
	for _, id := range w.listed {
		if j := w.jobs[id]; !j.taken {
			out = append(out, j.want) // also one that has left since: nobody has looked
		}
	}
	for _, id := range w.ids() {
		if j := w.jobs[id]; j.taken && j.over == "" && w.book.Find(j.want.Key) == nil {
			out = append(out, j.want)
		}
	}
	return out
}

// look looks up which jobs wait.
func (w *world) look() {
	w.listed = nil
	for _, id := range w.ids() {
		if j := w.jobs[id]; !j.taken && j.over == "" {
			w.listed = append(w.listed, id)
		}
	}
	w.apply(Event{Kind: Fresh})
	w.after(10*time.Second, w.look)
}

// take takes jobs while the book says that it may.
func (w *world) take() {
	for {
		waiting := 0
		var free []int64
		for _, id := range w.ids() {
			switch j := w.jobs[id]; {
			case j.over != "":
			case !j.taken:
				free = append(free, id)
			case w.book.Find(j.want.Key) == nil:
				waiting++
			}
		}
		v := Admit(w.book, waiting, w.now)
		if v.OK && !v.Retry.IsZero() || !v.OK && v.Reason == "" || !v.Retry.IsZero() && !v.Retry.After(w.now) {
			w.fault("verdict %+v", v)
		}
		if !v.OK || len(free) == 0 {
			return
		}
		id := free[0]
		if w.chance("another job comes") {
			id = free[len(free)-1]
		}
		j := w.jobs[id]
		j.taken, j.want.Key = true, fmt.Sprint("job-", id)
		w.settle()
	}
}

// settle decides and acts until there is nothing to do.
func (w *world) settle() {
	for round := 0; ; round++ {
		actions, wake := Decide(w.book, w.wants(), w.now)
		if len(actions) > 0 {
			again, wakeAgain := Decide(w.book, shuffled(w.wants()), w.now)
			if a, b := fmt.Sprintf("%+v", plain(actions)), fmt.Sprintf("%+v", plain(again)); a != b || !wake.Equal(wakeAgain) {
				w.fault("the order of the wants decides:\n%s\n%s", a, b)
			}
		}
		if !wake.IsZero() && !wake.After(w.now) {
			w.fault("wake-up at %s, it is %s", wake, w.now)
		}
		if w.wake = wake; len(actions) == 0 {
			return
		}
		if round > 5 {
			w.fault("it does not come to rest: %+v", plain(actions))
			return
		}
		for _, a := range actions {
			w.act(a)
			if err := check(w.book); err != nil {
				w.fault("after %s of %s: %v", a.Kind, a.Allocation, err)
			}
		}
	}
}

func plain(do []Action) []string {
	out := make([]string, 0, len(do))
	for _, a := range do {
		text := fmt.Sprintf("%s %s %s %d %v %s %s %v", a.Kind, a.Allocation, a.Job, a.ID, a.Jobs, a.Reason, a.Class, a.Hard)
		if a.New != nil {
			text += fmt.Sprintf(" %+v", *a.New)
		}
		out = append(out, text)
	}
	return out
}

func shuffled(wants []Want) []Want {
	r := rand.New(rand.NewPCG(1, uint64(len(wants))))
	r.Shuffle(len(wants), func(i, j int) { wants[i], wants[j] = wants[j], wants[i] })
	return wants
}

func (w *world) act(a Action) {
	w.told = append(w.told, plain([]Action{a})...)
	switch a.Kind {
	case Create:
		w.apply(Event{Kind: Plan, New: a.New, Reason: a.Reason})
	case Submit, Look:
		w.apply(Event{Kind: Ask, Allocation: a.Allocation})
		w.submit(a.Allocation)
	case Place:
		w.place(a)
	case Fail:
		j := w.jobs[a.ID]
		if a.Reason == "" || a.Class == "" {
			w.fault("a job fails without a reason: %+v", a)
		}
		j.over = "failed: " + a.Reason
		if w.book.Find(a.Job) != nil {
			w.apply(Event{Kind: Release, Allocation: a.Allocation, Job: a.Job})
		}
	case Cancel:
		w.apply(Event{Kind: Tell, Allocation: a.Allocation, Reason: a.Reason})
		w.cancel(a.Allocation)
	case Account:
		w.account(a.Allocation)
	case Reserve:
		w.apply(Event{Kind: Assign, Allocation: a.Allocation, Jobs: a.Jobs})
	case Drop:
		w.store()
		w.book.Forget(a.Allocation)
		delete(w.rows, a.Allocation)
	}
}

func (w *world) place(a Action) {
	w.apply(Event{Kind: Grant, Allocation: a.Allocation, Lease: a.Lease})
	j, granted := w.jobs[a.ID], w.now
	j.lease = granted
	mine := func() bool {
		home := w.book.Find(a.Job)
		return home != nil && home.Name == a.Allocation && j.lease.Equal(granted)
	}
	w.after(time.Second, func() {
		if !mine() || w.book.Find(a.Job).State == Ended {
			return
		}
		w.apply(Event{Kind: Began, Allocation: a.Allocation, Job: a.Job})
		w.after(w.lasts("job"), func() {
			b := w.batch[a.Allocation]
			if !mine() || b == nil || !b.worker {
				return
			}
			j.over = "done"
			b.used = w.now
			w.apply(Event{Kind: Release, Allocation: a.Allocation, Job: a.Job})
		})
	})
}

func (w *world) submit(name string) {
	w.submits++
	if b := w.batch[name]; b != nil {
		w.fault("%s is submitted twice: it is %s", name, b.State)
	}
	switch {
	case w.chance("the request is lost"):
		return
	case w.chance("it is full"):
		w.apply(Event{Kind: Defer, Allocation: name, Reason: "it is full"})
		return
	case w.chance("it is refused"):
		w.apply(Event{Kind: Reject, Allocation: name, Reason: "it is refused"})
		return
	}
	b := &batchJob{BatchJob: tranter.BatchJob{ID: fmt.Sprint(1000 + w.submits), Name: name, State: tranter.BatchQueued, Submitted: w.now}, spec: w.book.Get(name).copy()}
	w.batch[name] = b
	w.after(w.lasts("queue"), func() { w.run(b) })
	if w.chance("it can never start") {
		b.Never, b.Reason = true, "BadConstraints"
	}
	if !w.chance("the answer is lost") {
		w.apply(Event{Kind: Accept, Allocation: name, BatchID: b.ID})
	}
}

func (w *world) run(b *batchJob) {
	if b.State != tranter.BatchQueued || b.Never {
		return
	}
	b.State, b.Started, b.Nodes = tranter.BatchRunning, w.now, "n1"
	if b.spec.Order == SelfTaking {
		w.selfTake(b)
		return
	}
	if w.chance("the worker does not come up") {
		return
	}
	b.used = w.now
	b.worker = true
	w.after(time.Second, func() { w.alive(b) })
	if w.chance("the node dies") {
		w.after(w.lasts("death"), func() { w.finish(b, tranter.BatchNodeLost) })
	}
	if w.chance("the worker falls silent") {
		w.after(w.lasts("death"), func() { b.worker = false })
	}
	if w.chance("somebody cancels it") {
		w.after(w.lasts("death"), func() { w.finish(b, tranter.BatchCancelled) })
	}
	w.after(b.spec.Shape.Walltime, func() { w.finish(b, tranter.BatchTimedOut) })
}

// selfTake plays a launched runner, which takes as many jobs as it was launched for, whichever wait.
func (w *world) selfTake(b *batchJob) {
	left := b.spec.Places
	for _, id := range w.ids() {
		if j := w.jobs[id]; left > 0 && !j.taken && j.over == "" {
			left--
			j.over = "done"
		}
	}
	w.after(w.lasts("job"), func() { w.finish(b, tranter.BatchCompleted) })
}

// alive gives signs of life until the batch job ends.
func (w *world) alive(b *batchJob) {
	a := w.book.Get(b.Name)
	if !b.worker || a == nil || a.State == Ended {
		return
	}
	w.apply(Event{Kind: Sign, Allocation: b.Name, Until: b.Started.Add(b.spec.Shape.Walltime)})
	w.after(30*time.Second, func() { w.alive(b) })
}

func (w *world) finish(b *batchJob, s tranter.BatchState) {
	if b.State.Final() {
		return
	}
	b.State, b.Ended, b.worker = s, w.now, false
	w.after(time.Minute, func() { b.gone = true })
}

func (w *world) cancel(name string) {
	b := w.batch[name]
	if b == nil || w.book.Get(name) == nil || w.book.Get(name).BatchID == "" || w.chance("the cancellation is lost") {
		return
	}
	w.after(2*time.Second, func() { w.finish(b, tranter.BatchCancelled) })
}

func (w *world) account(name string) {
	w.apply(Event{Kind: Inquire, Allocation: name})
	if w.chance("the accounting does not answer") {
		return
	}
	b := w.batch[name]
	if b == nil || w.chance("the accounting knows nothing") {
		if b != nil && !b.State.Final() {
			return
		}
		w.apply(Event{Kind: Silent, Allocation: name})
		return
	}
	seen := b.BatchJob
	seen.Usage.CPUs = 1
	w.apply(Event{Kind: Saw, Allocation: name, Batch: &seen})
}

// list compares the book with the scheduler's list.
func (w *world) list() {
	w.after(11*time.Second, w.list)
	if w.chance("the list fails") {
		return
	}
	for _, a := range w.book.All() {
		b := w.batch[a.Name]
		switch {
		case a.State == Ended || a.State == Planned:
		case b == nil || b.gone:
			w.apply(Event{Kind: Missed, Allocation: a.Name})
		default:
			seen := b.BatchJob
			w.apply(Event{Kind: Saw, Allocation: a.Name, Batch: &seen})
		}
	}
}

// run goes on until done says so.
func (w *world) until(done func() bool) {
	w.look()
	w.list()
	for steps := 0; ; steps++ {
		if steps > 200_000 {
			w.fault("it does not come to rest; book %s", w.text())
			return
		}
		w.settle()
		w.take()
		if done() {
			return
		}
		next := w.wake
		if at := w.later.all[0].at; next.IsZero() || at.Before(next) {
			next = at
		}
		w.now = next
		for len(w.later.all) > 0 && !w.later.all[0].at.After(w.now) {
			heap.Pop(&w.later).(timer).do()
			if w.chance("a restart") {
				w.restart()
			}
		}
	}
}

func (w *world) text() string {
	var s strings.Builder
	for _, a := range w.book.All() {
		fmt.Fprintf(&s, "\n%+v", *a)
	}
	return s.String()
}

// check returns an error if the book contradicts itself, or gives something twice.
func check(b *Book) error {
	counts, leases := map[State]int{}, 0
	for _, a := range b.sorted {
		counts[a.State]++
		leases += len(a.Leases)
		if b.all[a.Name] != a {
			return fmt.Errorf("%s is not known by its name", a.Name)
		}
		if len(a.Leases) > a.Places {
			return fmt.Errorf("%s has %d jobs in %d places", a.Name, len(a.Leases), a.Places)
		}
		if b.policy.MaxUses > 0 && a.Uses > b.policy.MaxUses {
			return fmt.Errorf("%s has had %d jobs", a.Name, a.Uses)
		}
		for _, l := range a.Leases {
			if b.homes[l.Job] != a {
				return fmt.Errorf("the lease of %s is not known", l.Job)
			}
			if a.State != Ended && a.Domain != l.Domain {
				return fmt.Errorf("%s is of %q and has a job of %q", a.Name, a.Domain, l.Domain)
			}
		}
	}
	for s, n := range b.counts {
		if n != counts[s] {
			return fmt.Errorf("%d are counted as %s, and %d are", n, s, counts[s])
		}
	}
	if leases != len(b.homes) {
		return fmt.Errorf("%d leases are known, %d are there", len(b.homes), leases)
	}
	return checkLimits(b)
}

func checkLimits(b *Book) error {
	if most := b.policy.Limits.Total; most > 0 && b.Live() > most {
		return fmt.Errorf("%d allocations", b.Live())
	}
	users := map[string]int{}
	for _, a := range b.sorted {
		if a.State != Ended && a.User != "" {
			users[a.User]++
		}
	}
	for user, n := range users {
		if most := b.policy.Limits.PerUser; most > 0 && n > most {
			return fmt.Errorf("%d allocations of %s", n, user)
		}
	}
	return nil
}

// once returns an error if a job has two places, or one in prospect besides.
func (w *world) once() error {
	places := map[int64]string{}
	for _, a := range w.book.sorted {
		if a.State == Ended || a.State == Ending {
			continue
		}
		ids := slices.Clone(a.For)
		for _, l := range a.Leases {
			ids = append(ids, l.ID)
		}
		if free := a.Places - len(ids); free < 0 {
			return fmt.Errorf("%s is for %v and has %d places", a.Name, ids, a.Places)
		}
		for _, id := range ids {
			if other := places[id]; other != "" {
				return fmt.Errorf("job %d has %s and %s", id, other, a.Name)
			}
			places[id] = a.Name
		}
	}
	return nil
}

func (w *world) served() bool {
	for _, j := range w.jobs {
		if j.over == "" {
			return false
		}
	}
	return true
}

func want(id int64) Want {
	return Want{ID: id, Domain: "p1", Shape: tranter.Shape{CPUs: 1, Memory: 1 << 30, Walltime: time.Hour}}
}

func TestSoManyBatchJobsAsJobs(t *testing.T) {
	for _, order := range []Order{AllocateFirst, TakeFirst, SelfTaking} {
		for _, n := range []int{1, 7, 60} {
			w := newWorld(Policy{Order: order, Limits: Limits{Rate: 5, Burst: 20}}, t.Fatalf)
			for id := range n {
				w.job(want(int64(id + 1)))
			}
			w.until(func() bool {
				if err := w.once(); err != nil {
					t.Fatal(err)
				}
				return w.served() && len(w.book.All()) == 0
			})
			if w.submits != n {
				t.Errorf("%s: %d submissions for %d jobs", order, w.submits, n)
			}
			for id, j := range w.jobs {
				if j.over != "done" {
					t.Errorf("%s: job %d: %s", order, id, j.over)
				}
			}
		}
	}
}

func TestWhateverGoesWrongEachJobIsServedOnceAndNothingIsLeft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.SampledFrom([]Order{AllocateFirst, TakeFirst, SelfTaking}).Draw(t, "order")
		p := Policy{
			Order: order, Places: rapid.IntRange(1, 4).Draw(t, "places"), PackWindow: 2 * time.Second, Linger: rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "linger"),
			MaxUses: rapid.SampledFrom([]int{0, 1, 3}).Draw(t, "uses"), Margin: time.Minute, Attempts: rapid.IntRange(1, 4).Draw(t, "attempts"),
			Limits: Limits{
				Queued: rapid.SampledFrom([]int{0, 1, 3}).Draw(t, "queued"), Total: rapid.SampledFrom([]int{0, 1, 4}).Draw(t, "total"),
				PerUser: rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "per user"), Rate: 5, Burst: 3,
			},
		}
		w := newWorld(p, t.Fatalf)
		// One source for what goes wrong: it happens too often for drawing each.
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		bad, calm := [...]float64{0, 0.01, 0.05, 0.2}[r.IntN(4)], start().Add(2*time.Hour)
		w.chance = func(what string) bool {
			if what == "another job comes" {
				return r.IntN(3) == 0
			}
			return w.now.Before(calm) && r.Float64() < bad
		}
		w.lasts = func(string) time.Duration { return time.Duration(1+r.IntN(200)) * time.Second }
		n := rapid.IntRange(1, 12).Draw(t, "jobs")
		for id := range n {
			w.after(time.Duration(r.IntN(100))*time.Second, func() {
				one := want(int64(id + 1))
				one.User, one.Domain, one.Priority = fmt.Sprint("u", r.IntN(2)), fmt.Sprint("p", r.IntN(2)), r.IntN(2)
				if order == TakeFirst {
					one.Shape.CPUs, one.Shape.Walltime = 1+r.IntN(2), time.Duration(1+r.IntN(3))*time.Hour
				}
				w.job(one)
				if r.IntN(5) == 0 {
					w.after(w.lasts("theft"), func() {
						if j := w.jobs[one.ID]; j.over == "" && (!j.taken || w.book.Find(j.want.Key) == nil) {
							j.over = "another runner's, or cancelled"
						}
					})
				}
			})
		}
		limit := start().Add(5 * 24 * time.Hour)
		w.until(func() bool {
			if err := w.once(); err != nil {
				t.Fatal(err)
			}
			if w.now.After(limit) {
				t.Fatalf("it is not over after days; %d jobs %v; book%s\n%s", len(w.jobs), w.served(), w.text(), strings.Join(w.told[max(0, len(w.told)-40):], "\n"))
			}
			return len(w.jobs) == n && w.served() && len(w.book.All()) == 0
		})
		for name, b := range w.batch {
			if !b.State.Final() {
				t.Fatalf("%s is left, %s", name, b.State)
			}
		}
	})
}
