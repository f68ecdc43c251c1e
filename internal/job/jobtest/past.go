package jobtest

import (
	"context"
	"maps"
	"os"
	"sync"

	"github.com/tranter-ci/tranter"
)

// Past keeps histories in memory.
type Past struct {
	Fail error // of Keep
	Hang bool  // Keep waits for the end of its context

	mu    sync.Mutex
	all   map[string]tranter.JobHistory
	times int
}

// Keep implements what keeps the histories of jobs.
func (p *Past) Keep(ctx context.Context, h tranter.JobHistory) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times++
	if p.Hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if p.Fail != nil {
		return p.Fail
	}
	if p.all == nil {
		p.all = map[string]tranter.JobHistory{}
	}
	p.all[h.Key] = h
	return nil
}

// All returns what was kept, by the jobs' keys, and how often something was to be.
func (p *Past) All() (all map[string]tranter.JobHistory, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.all), p.times
}

// Logs keeps the logs of jobs in memory.
type Logs struct {
	Fail error

	mu  sync.Mutex
	all map[string]string
}

// Keep implements what takes the logs of jobs over.
func (l *Logs) Keep(key, path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Fail != nil {
		return l.Fail
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if l.all == nil {
		l.all = map[string]string{}
	}
	l.all[key] = string(data)
	return os.Remove(path)
}

// All returns what was kept, by the jobs' keys.
func (l *Logs) All() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.all)
}
