package cluster

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

// listing is the loop, comparing its book with what the scheduler has.
type listing struct{ *loop }

// looks are the questions to the scheduler.
type looks struct {
	busy      bool
	next      time.Time
	fails     int
	problem   string         // why it does not answer
	strangers map[string]int // by id: lists in a row in which a batch job was named that looks like ours and is not in the book
}

// soon has the scheduler asked soon, because what it has to say is waited for.
func (k *looks) soon(now time.Time) {
	if k.fails > 0 {
		return // it does not answer: that is not for want of questions
	}
	if at := now.Add(time.Second); k.next.IsZero() || at.Before(k.next) {
		k.next = at
	}
}

// defaultEvery is the time between two questions to a scheduler that answers, slowest that to one that does not.
const (
	defaultEvery = 5 * time.Second
	slowest      = time.Minute
)

func (s *Settings) every() time.Duration {
	if s.Every <= 0 {
		return defaultEvery
	}
	return s.Every
}

func (s *Settings) log(log *slog.Logger) *slog.Logger { return log.With("system", s.System) }

// due asks the scheduler when it is time to, and returns when that will be. It is not asked while there is nothing to ask for.
func (l listing) due(now time.Time) time.Time {
	if l.looks.busy {
		return time.Time{}
	}
	if l.book.Live() == 0 && len(l.looks.strangers) == 0 && !l.looks.next.IsZero() && l.looks.fails == 0 {
		return time.Time{}
	}
	if now.Before(l.looks.next) {
		return l.looks.next
	}
	l.looks.busy = true
	s, c := l.settings, l.cluster
	l.owned.Go(func() {
		ctx, stop := context.WithTimeout(l.life, submitting)
		defer stop()
		jobs, asked, err := s.List(ctx, now)
		_ = c.do(context.WithoutCancel(ctx), func(l *loop) { listing{l}.listed(jobs, asked, err) })
	})
	return time.Time{}
}

// listed compares a list with the book. An error says nothing about any job.
func (l listing) listed(jobs []tranter.BatchJob, asked time.Time, err error) {
	now := time.Now()
	l.looks.busy = false
	if err != nil {
		l.looks.fails++
		l.looks.problem = oneLine(err.Error())
		pause := min(l.settings.every()<<min(l.looks.fails, 10), slowest)
		l.looks.next = now.Add(pause)
		l.settings.log(l.log).Warn("The scheduler does not answer; jobs and batch jobs go on, and it will be asked again", "in", pause, "error", err)
		queue(l).tellAll("The batch system does not answer at the moment; it is asked again")
		return
	}
	if l.looks.fails > 0 {
		l.settings.log(l.log).Info("The scheduler answers again")
	}
	l.looks.fails, l.looks.problem, l.looks.next = 0, "", now.Add(l.settings.every())
	named := map[string]bool{}
	for _, j := range jobs {
		if a := l.book.Get(j.Name); !l.ours(j.Name) || (a != nil && a.BatchID != "" && a.BatchID != j.ID) {
			continue // anybody may give a batch job any name
		}
		named[j.Name] = true
		l.saw(j.Name, j)
	}
	l.missed(named, asked)
	l.drive(jobs)
	l.loop.due = true
}

// missed records which allocations a list does not name. Of one with which something is being done that says nothing.
func (l listing) missed(named map[string]bool, asked time.Time) {
	for _, a := range l.book.All() {
		if named[a.Name] || l.busy[a.Name] || a.State == allocation.Planned || a.State == allocation.Ended {
			continue
		}
		if asked.After(a.Times.Asked) && asked.After(a.Times.Queued) {
			l.record(allocation.Event{Kind: allocation.Missed, At: asked, Allocation: a.Name})
		}
	}
}

// ours says whether a batch job has a name of this cluster's.
func (l listing) ours(name string) bool { return strings.HasPrefix(name, l.settings.Policy.Prefix+"-") }

// saw records what the scheduler says of a batch job.
func (l listing) saw(name string, j tranter.BatchJob) {
	a := l.book.Get(name)
	if a == nil || a.State == allocation.Ended || a.State == allocation.Planned {
		return
	}
	before := a.Batch
	if before == j && a.State != allocation.Submitting && a.Absent == 0 && a.Order != allocation.SelfTaking {
		return // nothing new
	}
	if !l.record(allocation.Event{Kind: allocation.Saw, Allocation: name, Batch: &j}) {
		return
	}
	queue(l).progress(name, before, j)
	if a = l.book.Get(name); a != nil && a.State == allocation.Ended {
		l.ended(name)
	}
}

// ended ends what waits for something of an allocation that has ended.
func (l listing) ended(name string) {
	a := l.book.Get(name)
	if a == nil {
		return
	}
	level := slog.LevelInfo
	if a.Order == allocation.SelfTaking && a.Batch.State == tranter.BatchFailed {
		level = slog.LevelWarn // no job's log has it
	}
	l.log.Log(l.life, level, "The batch job has ended", "allocation", name, "batch_job", a.BatchID, "state", a.Batch.Native, "reason", a.Reason, "ran", ran(a.Batch))
	if t := l.tenders[name]; t != nil {
		t.ended(*a)
	}
}

// drive cancels batch jobs that have a name of ours and are in no book, such as those of one that was lost: nothing would
// ever use them.
func (l listing) drive(jobs []tranter.BatchJob) {
	strangers := map[string]int{}
	var ids []string
	for _, j := range jobs {
		if !l.ours(j.Name) || j.State.Final() {
			continue
		}
		if a := l.book.Get(j.Name); a != nil && (a.BatchID == "" || a.BatchID == j.ID) {
			continue // one that was submitted twice, as its first answer came too late, is there under two ids
		}
		strangers[j.ID] = l.looks.strangers[j.ID] + 1
		if strangers[j.ID] >= strangerLists {
			ids = append(ids, j.ID)
			l.log.Warn("A batch job has a name of ours and is not in the book: it is ended", "allocation", j.Name, "batch_job", j.ID)
		}
	}
	l.looks.strangers = strangers
	if len(ids) > 0 {
		operations(l).scheduler("end unknown batch jobs", func(ctx context.Context, s Settings) error { return s.Scheduler.Cancel(ctx, ids) })
	}
}

// strangerLists is in how many lists in a row an unknown batch job is named before it is ended.
const strangerLists = 2

// ran is how long a batch job has run; 0: it did not, or that is not known.
func ran(j tranter.BatchJob) time.Duration {
	if j.Started.IsZero() || j.Ended.IsZero() {
		return 0
	}
	return j.Ended.Sub(j.Started)
}
