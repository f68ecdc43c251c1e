package coordinator

import (
	"sync"
	"time"
)

// bell wakes all who wait for the next time that it rings. The book's lock guards it; the channel is for all.
type bell struct{ next chan struct{} }

func (b *bell) wait() <-chan struct{} {
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Event tells that a pipeline or one of its jobs has changed.
type Event struct {
	Time     time.Time
	Pipeline int64
	Status   Status  // of the pipeline
	Job      JobView // the zero value when the event is about the pipeline alone
}

// feed hands events to one subscriber without ever making the book wait: what is not read yet is kept.
type feed struct {
	pipeline int64
	mu       sync.Mutex
	queue    []Event
	ready    chan struct{} // has one element when queue is not empty
	stop     chan struct{}
	done     chan struct{}
	status   Status // as told last; guarded by the book
}

func newFeed(pipeline int64) (*feed, <-chan Event) {
	f := &feed{
		pipeline: pipeline,
		ready:    make(chan struct{}, 1),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
	out := make(chan Event)
	go f.pump(out)
	return f, out
}

func (f *feed) push(e Event) {
	f.mu.Lock()
	f.queue = append(f.queue, e)
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

func (f *feed) take() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.queue
	f.queue = nil
	return all
}

func (f *feed) pump(out chan<- Event) {
	defer close(f.done)
	defer close(out)
	for {
		select {
		case <-f.stop:
			return
		case <-f.ready:
		}
		for _, e := range f.take() {
			select {
			case <-f.stop:
				return
			case out <- e:
			}
		}
	}
}

// Subscribe reports the changes of a pipeline, beginning with the present state of each of its jobs. The channel is
// closed after cancel, which must be called and may be repeated. An unknown pipeline has no events.
func (v *views) Subscribe(pipeline int64) (<-chan Event, func()) {
	f, out := newFeed(pipeline)
	b := v.book
	b.mu.Lock()
	b.feeds[f] = true
	if r := b.runs[pipeline]; r != nil {
		for _, j := range r.latest() {
			f.push(b.event(r, j))
		}
		f.status = r.Status
		f.push(Event{Time: b.now(), Pipeline: r.ID, Status: r.Status})
	}
	b.mu.Unlock()
	var once sync.Once
	return out, func() {
		once.Do(func() {
			b.mu.Lock()
			delete(b.feeds, f)
			b.mu.Unlock()
			close(f.stop)
		})
		<-f.done
	}
}

func (b *roster) event(r *run, j *job) Event {
	return Event{Time: b.now(), Pipeline: r.ID, Status: r.Status, Job: b.viewJob(j)}
}

// tell gives the changes since the last settle to the subscribers.
func (b *book) tell() {
	for f := range b.feeds {
		r := b.runs[f.pipeline]
		if r == nil {
			continue
		}
		changed := false
		for _, j := range b.dirty {
			if j.run == r {
				f.push(b.event(r, j))
				changed = true
			}
		}
		if r.Status != f.status || changed && r.Status.Finished() {
			f.status = r.Status
			f.push(Event{Time: b.now(), Pipeline: r.ID, Status: r.Status})
		}
	}
}
