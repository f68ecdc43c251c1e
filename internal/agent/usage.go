package agent

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	// sampleEvery is the time between two looks at what a phase uses, at first: it doubles each time that there are as many samples
	// as there may be.
	sampleEvery = time.Second
	// sampleShare is how much longer the time between two looks is than what one has cost: a phase with very many processes is looked
	// at less often.
	sampleShare = 4000
	// sampleLimit is how long the end of a phase waits for the last look: a disk that does not answer must not keep it.
	sampleLimit = time.Second
)

// meter measures what a phase uses: the processors and the memory of the agent and of all below it, and what there is less on the disk
// of the builds directory than at the start, whoever has taken it.
type meter struct {
	dir   string
	gauge gauge
	stop  context.CancelFunc
	ended chan struct{} // closed after the last look

	mu      sync.Mutex
	samples tranter.UsageSamples
	every   time.Duration
	busy    time.Duration // processor time up to the last sample
	free    int64         // of the disk at the start; -1: nobody knows
	memory  int64         // the most
	disk    int64         // the most
}

// gauge reads what the processes of a phase use.
type gauge interface {
	// read returns the processor time of all of them until now, and their memory in bytes; it is false where the system does not
	// tell.
	read() (cpu time.Duration, memory int64, ok bool)
}

// measure begins to measure a phase that builds in dir. The spared processes are not the phase's.
func measure(ctx context.Context, dir string, spared processes) *meter {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	m := &meter{dir: dir, gauge: newGauge(spared), stop: stop, ended: make(chan struct{}), every: sampleEvery, free: -1}
	m.busy, _ = used()
	m.samples = tranter.UsageSamples{{At: time.Now()}}
	go m.run(ctx) // it outlives the phase only if the disk does not answer
	return m
}

// run looks again and again.
func (m *meter) run(ctx context.Context) {
	defer close(m.ended)
	free := freeIn(m.dir)
	m.mu.Lock()
	m.free = free
	m.mu.Unlock()
	timer := time.NewTimer(sampleEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			m.last()
			return
		case <-timer.C:
		}
		began, before := time.Now(), own()
		cpu, memory, ok := m.gauge.read()
		if !ok {
			continue // the end is all that can be told
		}
		free := freeIn(m.dir)
		// On a busy machine a look lasts longer than it costs; while the agent does other work, it costs less than that.
		cost := min(time.Since(began), own()-before)
		timer.Reset(max(m.take(cpu, memory, free), sampleShare*cost))
	}
}

// last looks once more, at the end.
func (m *meter) last() {
	cpu, memory := used()
	m.mu.Lock()
	first := len(m.samples) == 1
	m.mu.Unlock()
	if !first {
		if _, now, ok := m.gauge.read(); ok {
			memory = now
		}
	}
	m.take(cpu, memory, freeIn(m.dir))
}

// take takes in what was seen, and returns when to look again.
func (m *meter) take(cpu time.Duration, memory, free int64) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	s := tranter.UsageSample{At: now, Memory: memory}
	if m.free >= 0 && free >= 0 {
		s.Disk = max(0, m.free-free)
	}
	if since := now.Sub(m.samples[len(m.samples)-1].At); since > 0 {
		s.CPU = max(0, (cpu-m.busy).Seconds()/since.Seconds())
	}
	m.busy = max(m.busy, cpu)
	m.memory, m.disk = max(m.memory, s.Memory), max(m.disk, s.Disk)
	m.samples = append(m.samples, s)
	if len(m.samples) >= tranter.MaxSamples {
		m.samples = tranter.ThinSamples(m.samples, tranter.MaxSamples-1)
		m.every *= 2
	}
	return m.every
}

// end ends the measuring and puts what was found into the phase's result.
func (m *meter) end(r *tranter.PhaseResult) {
	m.stop()
	limit := time.NewTimer(sampleLimit)
	defer limit.Stop()
	select {
	case <-m.ended:
	case <-limit.C:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.CPUTime, r.MaxMemory = used()
	r.MaxMemory, r.MaxDisk, r.Samples = max(r.MaxMemory, m.memory), m.disk, slices.Clone(m.samples)
}

// freeIn returns how many bytes are free where dir is, or will be made; -1: nobody knows.
func freeIn(dir string) int64 {
	for range 100 {
		if free, ok := freeAt(dir); ok || !filepath.IsAbs(dir) || filepath.Dir(dir) == dir {
			return free
		}
		dir = filepath.Dir(dir)
	}
	return -1
}
