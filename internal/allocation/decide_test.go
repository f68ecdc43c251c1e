package allocation

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

// scene is a book with a clock, driven by hand.
type scene struct {
	testing.TB
	*Book
	now time.Time
}

func sceneOf(tb testing.TB, p Policy) *scene {
	p.Prefix = "t"
	return &scene{TB: tb, Book: NewBook(p), now: start()}
}

func (s *scene) apply(e Event) {
	s.Helper()
	if e.At = s.now; s.Apply(e) != nil {
		s.Fatal(s.Apply(e))
	}
}

// brings puts an allocation into a state.
func (s *scene) brings(a Allocation, to State) {
	s.Helper()
	if a.Order == "" {
		a.Order = s.Policy().Order
	}
	if a.Attempt == 0 {
		a.Attempt = 1
	}
	if a.Shape.Walltime == 0 {
		a.Shape = want(0).Shape
	}
	a.Domain = "p1"
	s.apply(Event{Kind: Plan, New: &a})
	s.apply(Event{Kind: Ask, Allocation: a.Name})
	if to == Submitting {
		return
	}
	s.apply(Event{Kind: Accept, Allocation: a.Name, BatchID: "id-" + a.Name})
	if to == Started {
		s.saw(a.Name, tranter.BatchJob{State: tranter.BatchRunning, Nodes: "n1"})
		s.apply(Event{Kind: Sign, Allocation: a.Name, Until: s.now.Add(a.Shape.Walltime)})
	}
}

func (s *scene) saw(name string, j tranter.BatchJob) {
	s.Helper()
	j.ID, j.Name = "id-"+name, name
	s.apply(Event{Kind: Saw, Allocation: name, Batch: &j})
}

// says compares what is decided, as words.
func (s *scene) says(wants []Want, want ...string) []Action {
	s.Helper()
	do, _ := Decide(s.Book, wants, s.now)
	var got []string
	for _, a := range do {
		text := strings.TrimSpace(string(a.Kind) + " " + a.Allocation)
		if a.Job != "" {
			text += " " + a.Job
		}
		if a.New != nil {
			text += fmt.Sprintf("%v x%d", a.New.For, a.New.Places)
		}
		if a.Kind == Reserve {
			text += fmt.Sprint(a.Jobs)
		}
		if a.Class != "" {
			text += " " + string(a.Class)
		}
		if a.Hard {
			text += " hard"
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		s.Errorf("decided %q, want %q", got, want)
	}
	return do
}

func taken(id int64) Want {
	w := want(id)
	w.Key = fmt.Sprint("job-", id)
	return w
}

func TestAJobThatTakesThePlaceOfAnotherLeavesItsOwnToIt(t *testing.T) {
	s := sceneOf(t, Policy{Order: AllocateFirst})
	s.brings(Allocation{Name: "a", Places: 1, For: []int64{1}}, Started)
	s.brings(Allocation{Name: "b", Places: 1, For: []int64{2}}, Queued)
	s.says([]Want{want(1), taken(2)}, "place a job-2", "reserve a[]", "reserve b[1]")
}

// What runs in an allocation without linger ends with its job: who would go there would come too late, and lose what was
// made for it.
func TestAJobDoesNotLeaveItsPlaceForOneThatIsAboutToEnd(t *testing.T) {
	for _, linger := range []time.Duration{0, 3 * time.Second, time.Minute} {
		s := sceneOf(t, Policy{Order: TakeFirst, Linger: linger})
		long := want(0).Shape
		long.Walltime *= 3
		s.brings(Allocation{Name: "a", Places: 1, For: []int64{1}, Shape: long}, Started)
		s.brings(Allocation{Name: "b", Places: 1, For: []int64{2}}, Queued)
		s.apply(Event{Kind: Grant, Allocation: "a", Lease: &Lease{Job: "job-1", ID: 1, Domain: "p1"}})
		s.apply(Event{Kind: Release, Allocation: "a", Job: "job-1"})
		s.now = s.now.Add(linger - min(lingerSlack, linger/2))
		if v := Admit(s.Book, 1, s.now); v.Free != 0 {
			t.Errorf("linger %v: %d places are said to be free", linger, v.Free)
		}
		do, _ := Decide(s.Book, []Want{taken(2)}, s.now)
		for _, a := range do {
			if a.Allocation == "b" || a.Kind == Place {
				t.Errorf("linger %v: %+v", linger, a)
			}
		}
		if linger == 0 {
			continue
		}
		s.now = s.now.Add(-time.Second)
		s.says([]Want{taken(2)}, "place a job-2", "reserve b[]", "cancel b")
	}
}

func TestATakenJobPrefersWhatNobodyElseHasInProspect(t *testing.T) {
	s := sceneOf(t, Policy{Order: AllocateFirst})
	s.brings(Allocation{Name: "a", Places: 1, For: []int64{1}}, Started)
	s.brings(Allocation{Name: "b", Places: 1}, Started)
	s.says([]Want{want(1), taken(2)}, "place b job-2")
}

func TestJobsSharePlacesOnlyWithinADomainAndUser(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst, Places: 2, Linger: time.Hour})
	s.brings(Allocation{Name: "a", Places: 2, Shape: tranter.Shape{CPUs: 2, Memory: 2 << 30, Walltime: 3 * time.Hour}}, Started)
	one, two, three := taken(1), taken(2), taken(3)
	two.Domain, three.User = "p2", "alice"
	do := s.says([]Want{one, two, three}, "place a job-1", "create[2] x1", "create[3] x1")
	s.apply(Event{Kind: Grant, Allocation: "a", Lease: do[0].Lease})
	s.says([]Want{taken(4)}, "place a job-4")
}

func TestPackingWaitsForOthers(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst, Places: 3, PackWindow: 2 * time.Second})
	wants := make([]Want, 5)
	for i := range wants {
		wants[i] = taken(int64(i + 1))
		wants[i].Since = s.now
	}
	do := s.says(wants, "create[1 2 3] x3")
	if got := do[0].New.Shape; got.CPUs != 3 || got.Memory != 3<<30 || got.Walltime != time.Hour {
		t.Errorf("shape %+v", got)
	}
	if _, wake := Decide(s.Book, wants, s.now); !wake.Equal(s.now.Add(2 * time.Second)) {
		t.Errorf("wake %s", wake)
	}
	s.now = s.now.Add(2 * time.Second)
	s.says(wants, "create[1 2 3] x3", "create[4 5] x2")
}

func TestAFreedPlaceIsRefilledOnlyWhileTimeIsLeft(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst, Places: 1, Linger: 2 * time.Hour, Margin: time.Minute})
	s.brings(Allocation{Name: "a", Places: 1}, Started)
	s.apply(Event{Kind: Grant, Allocation: "a", Lease: &Lease{Job: "job-1", ID: 1, Domain: "p1"}})
	s.apply(Event{Kind: Release, Allocation: "a", Job: "job-1"})
	short := taken(2)
	short.Lasts = 30 * time.Minute
	s.now = s.now.Add(20 * time.Minute)
	s.apply(Event{Kind: Sign, Allocation: "a"})
	s.says([]Want{short}, "place a job-2")
	s.now = s.now.Add(10 * time.Minute)
	s.apply(Event{Kind: Sign, Allocation: "a"})
	s.says([]Want{short}, "create[2] x1")
}

func TestWhatNobodyNeedsGoesTheYoungestFirst(t *testing.T) {
	s := sceneOf(t, Policy{Order: AllocateFirst})
	for i, name := range []string{"a", "b", "c"} {
		s.brings(Allocation{Name: name, Places: 1, For: []int64{int64(i + 1)}}, Queued)
		s.now = s.now.Add(time.Second)
	}
	left := []Want{want(2), want(3)}
	for _, a := range s.says(left, "reserve a[3]", "reserve c[]") {
		s.apply(Event{Kind: Assign, Allocation: a.Allocation, Jobs: a.Jobs})
	}
	s.says(left)
	s.apply(Event{Kind: Fresh})
	s.says(left, "cancel c")
}

func TestATakenJobThatLeavesTakesItsBatchJobWithIt(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst})
	s.brings(Allocation{Name: "a", Places: 1, For: []int64{1}}, Queued)
	s.says([]Want{taken(1)})
	s.says(nil, "reserve a[]", "cancel a")
}

func TestALostAnswerIsLookedForThenAskedAgainUnderTheSameName(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst})
	s.brings(Allocation{Name: "a", Places: 1, For: []int64{1}}, Submitting)
	wants := []Want{taken(1)}
	for range 5 {
		s.apply(Event{Kind: Missed, Allocation: "a"}) // lists that were begun too early
	}
	s.says(wants)
	s.now = s.now.Add(2 * time.Minute)
	s.apply(Event{Kind: Missed, Allocation: "a"})
	s.says(wants)
	s.apply(Event{Kind: Missed, Allocation: "a"})
	s.says(wants, "look a")
	s.apply(Event{Kind: Ask, Allocation: "a"})
	s.says(wants)
	s.saw("a", tranter.BatchJob{State: tranter.BatchQueued})
	if a := s.Get("a"); a.State != Queued || a.BatchID != "id-a" {
		t.Errorf("%+v", a)
	}
}

func TestWhatTheSchedulerDoesNotNameIsAskedForThenLost(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst})
	s.brings(Allocation{Name: "a", Places: 1}, Started)
	s.apply(Event{Kind: Grant, Allocation: "a", Lease: &Lease{Job: "job-1", ID: 1, Domain: "p1"}})
	s.apply(Event{Kind: Began, Allocation: "a", Job: "job-1"})
	s.now = s.now.Add(5 * time.Second)
	s.apply(Event{Kind: Missed, Allocation: "a"})
	s.says(nil)
	s.apply(Event{Kind: Missed, Allocation: "a"})
	s.says(nil, "account a")
	s.apply(Event{Kind: Inquire, Allocation: "a"})
	s.says(nil)
	s.apply(Event{Kind: Silent, Allocation: "a"})
	s.apply(Event{Kind: Inquire, Allocation: "a"})
	s.apply(Event{Kind: Silent, Allocation: "a"})
	s.says(nil, "fail a job-1 lost")
	s.apply(Event{Kind: Release, Allocation: "a", Job: "job-1"})
	s.says(nil, "drop a")
}

func TestAReasonThatNeverPassesEndsIt(t *testing.T) {
	for _, order := range []Order{TakeFirst, AllocateFirst} {
		s := sceneOf(t, Policy{Order: order})
		s.brings(Allocation{Name: "a", Places: 1, For: []int64{1}}, Queued)
		w := want(1)
		if order == TakeFirst {
			w = taken(1)
		}
		never := tranter.BatchJob{State: tranter.BatchQueued, Never: true, Reason: "PartitionTimeLimit"}
		s.saw("a", never)
		s.says([]Want{w})
		s.now = s.now.Add(30 * time.Second)
		for _, a := range s.says([]Want{w}, "cancel a") {
			s.apply(Event{Kind: Tell, Allocation: a.Allocation, Reason: a.Reason})
		}
		s.saw("a", tranter.BatchJob{State: tranter.BatchCancelled})
		if order == TakeFirst {
			if do := s.says([]Want{w}, "fail job-1 impossible"); !strings.Contains(do[0].Reason, "PartitionTimeLimit") {
				t.Errorf("reason %q", do[0].Reason)
			}
			continue
		}
		s.now = s.now.Add(9 * time.Minute)
		s.apply(Event{Kind: Fresh})
		other := want(2)
		s.says([]Want{w, other})
		other.Shape.CPUs = 8
		s.says([]Want{w, other}, "create[2] x1")
		s.now = s.now.Add(time.Minute)
		if do := s.says([]Want{w}, "create[1] x1"); do[0].New.Past.Refusals != 1 {
			t.Errorf("%+v", do[0].New)
		}
	}
}

func TestSilenceIsDeathButNotAfterARestart(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst})
	s.brings(Allocation{Name: "a", Places: 1}, Started)
	s.apply(Event{Kind: Grant, Allocation: "a", Lease: &Lease{Job: "job-1", ID: 1, Domain: "p1"}})
	s.apply(Event{Kind: Began, Allocation: "a", Job: "job-1"})
	rows := s.Changed()
	s.now = s.now.Add(2 * time.Minute)
	s.says(nil, "cancel a hard")
	s.apply(Event{Kind: Tell, Allocation: "a", Reason: "it is silent"})
	s.says(nil, "fail a job-1 lost")

	s.Restore(rows)
	s.says(nil)
	s.saw("a", tranter.BatchJob{State: tranter.BatchRunning})
	s.says(nil)
	s.now = s.now.Add(2 * time.Minute)
	s.says(nil, "cancel a hard")
}

func TestAnotherAttemptAvoidsTheNode(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst, Attempts: 2})
	s.brings(Allocation{Name: "a", Places: 1}, Started)
	s.apply(Event{Kind: Grant, Allocation: "a", Lease: &Lease{Job: "job-1", ID: 1, Domain: "p1"}})
	s.saw("a", tranter.BatchJob{State: tranter.BatchNodeLost, Nodes: "n1"})
	wants := []Want{taken(1)}
	s.says(wants, "account a")
	s.apply(Event{Kind: Inquire, Allocation: "a"})
	s.now = s.now.Add(5 * time.Second)
	again := s.says(wants, "create[1] x1")[0].New
	if again.Attempt != 2 || !slices.Equal(again.Past.Avoid, []string{"n1"}) {
		t.Errorf("%+v", again)
	}
	s.apply(Event{Kind: Plan, New: again})
	s.apply(Event{Kind: Ask, Allocation: again.Name})
	s.saw(again.Name, tranter.BatchJob{State: tranter.BatchPreempted})
	s.apply(Event{Kind: Silent, Allocation: "a"})
	if do := s.says(wants, "fail job-1 lost", "drop a"); !strings.Contains(do[0].Reason, "preempted") || !strings.Contains(do[0].Reason, "2 batch jobs") {
		t.Errorf("reason %q", do[0].Reason)
	}
}

func TestABackOffDoublesAndALimitIsLearned(t *testing.T) {
	s := sceneOf(t, Policy{Order: TakeFirst})
	for _, name := range []string{"a", "b", "c", "d"} {
		s.brings(Allocation{Name: name, Places: 1, For: []int64{int64(name[0])}}, Queued)
	}
	s.brings(Allocation{Name: "e", Places: 1, For: []int64{'e'}}, Submitting)
	wants := []Want{taken('a'), taken('b'), taken('c'), taken('d'), taken('e')}
	for _, pause := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		s.apply(Event{Kind: Defer, Allocation: "e", Reason: "QOSMaxSubmitJob"})
		if v := Admit(s.Book, 5, s.now); v.OK || !v.Retry.Equal(s.now.Add(pause)) {
			t.Errorf("after %s: %+v", pause, v)
		}
		s.now = s.now.Add(pause - time.Millisecond)
		s.says(wants)
		s.now = s.now.Add(time.Millisecond)
		s.says(wants) // four wait, and two may
		s.apply(Event{Kind: Ask, Allocation: "e"})
	}
	s.apply(Event{Kind: Defer, Allocation: "e", Until: s.now.Add(time.Second)})
	s.saw("a", tranter.BatchJob{State: tranter.BatchCompleted})
	s.saw("b", tranter.BatchJob{State: tranter.BatchCompleted})
	s.saw("c", tranter.BatchJob{State: tranter.BatchCompleted})
	s.now = s.now.Add(80 * time.Second)
	do, _ := Decide(s.Book, wants[3:], s.now)
	if !slices.ContainsFunc(do, func(a Action) bool { return a.Kind == Submit && a.Allocation == "e" }) {
		t.Errorf("%+v", plain(do))
	}
}

func TestWhatAnEndMeansForAJob(t *testing.T) {
	for _, c := range []struct {
		state tranter.BatchState
		kind  OutcomeKind
		says  string
	}{
		{tranter.BatchNodeLost, tranter.RunnerSystemFailure, "node failed, on n1 (NodeDown)"},
		{tranter.BatchPreempted, tranter.RunnerSystemFailure, "preempted"},
		{tranter.BatchOutOfMemory, tranter.ScriptFailure, "it had 1024 MiB. Ask for more"},
		{tranter.BatchTimedOut, tranter.JobExecutionTimeout, "it had 1h0m0s"},
		{tranter.BatchCancelled, tranter.RunnerSystemFailure, "by somebody else"},
		{tranter.BatchFailed, tranter.RunnerSystemFailure, "exit code 3"},
		{tranter.BatchCompleted, tranter.RunnerSystemFailure, "has ended"},
		{tranter.BatchRunning, tranter.RunnerSystemFailure, "was lost: no sign"},
	} {
		a := Allocation{Shape: want(1).Shape, Reason: "no sign", Batch: tranter.BatchJob{State: c.state, Nodes: "n1", Reason: "NodeDown", ExitCode: 3}}
		if text, kind := Outcome(a, true); kind != c.kind || !strings.Contains(text, c.says) {
			t.Errorf("%s: %q, %s", c.state, text, kind)
		}
		if text, kind := Outcome(a, false); kind != tranter.RunnerSystemFailure || !strings.HasSuffix(text, "before the job had begun") {
			t.Errorf("%s, not begun: %q, %s", c.state, text, kind)
		}
	}
	killed := Allocation{Batch: tranter.BatchJob{State: tranter.BatchFailed, Signal: 9}}
	if f := FateOf(killed, "the walltime is over"); !f.Site || f.Text != "the batch job was killed by signal 9 (the walltime is over)" {
		t.Errorf("%+v", f)
	}
	ours := Allocation{Reason: "no job needs it", Times: Times{Told: start()}, Batch: tranter.BatchJob{State: tranter.BatchCancelled}}
	if f := FateOf(ours, ""); f.Text != "the batch job was ended: no job needs it" {
		t.Errorf("%+v", f)
	}
}

func TestAnyEventsInAnyOrderLeaveABookThatIsRight(t *testing.T) {
	kinds := []EventKind{Plan, Ask, Accept, Reject, Defer, Saw, Missed, Inquire, Silent, Sign, Leave, Grant, Began, Release, Assign, Drain, Tell, End, Fresh, "other"}
	states := []tranter.BatchState{tranter.BatchQueued, tranter.BatchRunning, tranter.BatchCompleted, tranter.BatchUnknown}
	rapid.Check(t, func(t *rapid.T) {
		b, now := NewBook(Policy{Order: TakeFirst, Limits: Limits{Rate: 1}}), start()
		for range rapid.IntRange(0, 100).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "pause")) * time.Second)
			job := rapid.IntRange(0, 3).Draw(t, "job")
			name := fmt.Sprint("a", rapid.IntRange(0, 3).Draw(t, "allocation"))
			e := Event{
				Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), At: now, Allocation: name, Job: fmt.Sprint("job-", job), BatchID: "1", Jobs: []int64{int64(job)},
				New: &Allocation{Name: name, Places: 2, Order: TakeFirst}, Lease: &Lease{Job: fmt.Sprint("job-", job), ID: int64(job)},
				Batch: &tranter.BatchJob{ID: "1", State: rapid.SampledFrom(states).Draw(t, "state"), Never: rapid.Bool().Draw(t, "never")},
			}
			switch rapid.IntRange(0, 20).Draw(t, "lack") {
			case 0:
				e.At = time.Time{}
			case 1:
				e.New, e.Lease, e.Batch, e.Job = nil, nil, nil, ""
			}
			before := copyOf(b)
			if err := b.Apply(e); err != nil && (!errors.Is(err, ErrUnfit) || !reflect.DeepEqual(before, copyOf(b))) {
				t.Fatalf("%v, and yet something has changed", err)
			}
			if err := check(b); err != nil {
				t.Fatalf("after %+v: %v", e, err)
			}
			Decide(b, []Want{taken(1), want(2)}, now)
		}
	})
}

func copyOf(b *Book) []Allocation {
	var all []Allocation
	for _, a := range b.All() {
		all = append(all, a.copy())
	}
	return all
}

// That its jobs do not wait any more may mean that it has taken them since the scheduler was last asked.
func TestWhatTakesItsJobsItselfIsCancelledOnlyIfItIsSaidToWaitWithoutThem(t *testing.T) {
	for _, runs := range []bool{false, true} {
		s := sceneOf(t, Policy{Order: SelfTaking})
		s.brings(Allocation{Name: "a", Places: 1, For: []int64{1}}, Queued)
		s.saw("a", tranter.BatchJob{State: tranter.BatchQueued})
		s.says(nil, "reserve a[]")
		s.apply(Event{Kind: Assign, Allocation: "a"})
		for range 3 {
			s.apply(Event{Kind: Fresh})
			s.says(nil)
		}
		if runs {
			s.saw("a", tranter.BatchJob{State: tranter.BatchQueued})
			s.says(nil)
			s.saw("a", tranter.BatchJob{State: tranter.BatchRunning, Nodes: "n1"})
			s.apply(Event{Kind: Fresh})
			s.says(nil)
			continue
		}
		s.saw("a", tranter.BatchJob{State: tranter.BatchQueued})
		s.saw("a", tranter.BatchJob{State: tranter.BatchQueued})
		s.says(nil, "cancel a")
	}
}
