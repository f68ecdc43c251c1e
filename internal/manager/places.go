package manager

import (
	"context"
	"sync"
)

// places are what Concurrent limits: one is held by each job that runs and by each request that may bring a job. They
// are given in the order in which they were asked for, so that no runner starves.
type places struct {
	mu      sync.Mutex
	total   int
	used    int
	waiting []chan struct{} // closed when the place is given
}

func newPlaces(total int) *places { return &places{total: total} }

// acquire waits for a place. The error is ctx's cause.
func (p *places) acquire(ctx context.Context) error {
	p.mu.Lock()
	if p.used < p.total && len(p.waiting) == 0 {
		p.used++
		p.mu.Unlock()
		return nil
	}
	ticket := make(chan struct{})
	p.waiting = append(p.waiting, ticket)
	p.mu.Unlock()
	select {
	case <-ticket:
		return nil
	case <-ctx.Done():
		p.leave(ticket)
		return context.Cause(ctx)
	}
}

// leave takes a ticket out of the queue, or gives back the place that it got meanwhile.
func (p *places) leave(ticket chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range p.waiting {
		if t == ticket {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return
		}
	}
	p.used--
	p.giveLocked()
}

// force takes a place whether there is one or not: for jobs that run already.
func (p *places) force() {
	p.mu.Lock()
	p.used++
	p.mu.Unlock()
}

func (p *places) release() {
	p.mu.Lock()
	p.used--
	p.giveLocked()
	p.mu.Unlock()
}

// resize changes the number of places. Those that are held stay held.
func (p *places) resize(total int) {
	p.mu.Lock()
	p.total = total
	p.giveLocked()
	p.mu.Unlock()
}

func (p *places) giveLocked() {
	for p.used < p.total && len(p.waiting) > 0 {
		close(p.waiting[0])
		p.waiting = p.waiting[1:]
		p.used++
	}
}

// contended says whether somebody waits for a place, or fewer than spare are left.
func (p *places) contended(spare int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting) > 0 || p.total-p.used < spare
}
