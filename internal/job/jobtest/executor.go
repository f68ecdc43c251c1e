package jobtest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// Work is what an agent does with a phase: its output, piece by piece, and how it ends.
type Work struct {
	Takes  time.Duration // to its end, or to the next Output
	Output []string      // written one after the other, each after Takes
	Result tranter.PhaseResult
	Open   error // of Executor.Open
	Lost   bool  // the agent dies after its output
	Deaf   bool  // it does not mind being cancelled
	// Start is the error of Session.Start, Starts how long that takes.
	Start  error
	Starts time.Duration
	// MachineLost is in how many environments, one after the other, the machine is lost after the output.
	MachineLost int
}

// Executor runs Work in goroutines that stand for agents: they outlive sessions and engines. Close it at the end.
type Executor struct {
	mu     sync.Mutex
	work   map[int64]Work  // by the job's id
	phases map[string]Work // by the name of the agent
	begun  map[int64][]tranter.Phase
	shown  map[int64][]string // phases beside which terminals were opened
	agents map[string]*agent
	tried  map[int64]int
	opened map[int64]int
	closed map[int64]int
	gone   map[int64]int // machines that were lost
	most   int           // agents at the same time
	forget bool
	abort  map[int64]bool
	placed map[int64]bool
	owned  sync.WaitGroup
}

type agent struct {
	mu      sync.Mutex
	journal []byte
	result  *tranter.PhaseResult
	ended   bool
	changed chan struct{}
	cancel  chan tranter.PhaseStatus
	lose    func() // loses the machine; nil: it stays
}

// NewExecutor returns one whose jobs succeed at once, unless told otherwise.
func NewExecutor() *Executor {
	return &Executor{work: map[int64]Work{}, phases: map[string]Work{}, begun: map[int64][]tranter.Phase{}, shown: map[int64][]string{}, agents: map[string]*agent{}, tried: map[int64]int{}, opened: map[int64]int{}, closed: map[int64]int{}, gone: map[int64]int{}, abort: map[int64]bool{}, placed: map[int64]bool{}}
}

// Set says what the agent of a job does.
func (e *Executor) Set(id int64, w Work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.work[id] = w
}

// SetPhase says what the agent of one phase of a job does, in place of what Set says.
func (e *Executor) SetPhase(id int64, phase string, w Work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.phases[name(id, phase)] = w
}

// Begun returns the phases of a job whose agents were started, each once.
func (e *Executor) Begun(id int64) []tranter.Phase {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.begun[id])
}

// Forget lets what agents are told get lost, as when the engine dies on the way.
func (e *Executor) Forget(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forget = on
}

// Aborted says whether a job's agent was told to end at once.
func (e *Executor) Aborted(id int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.abort[id]
}

// Most returns how many agents were at work at the same time at most.
func (e *Executor) Most() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.most
}

// Sessions returns how often a job's environment was opened and closed.
func (e *Executor) Sessions(id int64) (opened, closed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.opened[id], e.closed[id]
}

// Tries returns how often somebody tried to open a job's environment.
func (e *Executor) Tries(id int64) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tried[id]
}

// Place puts a job's environments on machines, "machine-0" and more, one for each that is lost.
func (e *Executor) Place(id int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.placed[id] = true
}

// Close waits for the agents.
func (e *Executor) Close() { e.owned.Wait() }

// Open implements tranter.Executor.
func (e *Executor) Open(_ context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tried[spec.Job.ID]++
	if err := e.work[spec.Job.ID].Open; err != nil {
		return nil, err
	}
	e.opened[spec.Job.ID]++
	_, _ = io.WriteString(spec.Log, "Using the executor in memory...\n")
	return &session{e: e, job: spec.Job.ID, machine: e.gone[spec.Job.ID]}, nil
}

// Reopen implements tranter.Executor.
func (e *Executor) Reopen(_ context.Context, ref json.RawMessage) (tranter.Session, error) {
	s := &session{e: e}
	var err error
	if text := string(ref); strings.HasPrefix(text, "[") {
		err = json.Unmarshal(ref, &[]any{&s.job, &s.machine})
	} else {
		err = json.Unmarshal(ref, &s.job)
	}
	if err == nil && s.lost() {
		err = tranter.ErrMachineLost
	}
	return s, err
}

// Lose says that a job has lost so many machines already.
func (e *Executor) Lose(id int64, machines int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone[id] = machines
}

type session struct {
	e       *Executor
	job     int64
	machine int // number of the one that it is on
}

// lost says whether the session's machine is not there any more.
func (s *session) lost() bool {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return s.machine < s.e.gone[s.job]
}

func name(job int64, phase string) string { return fmt.Sprint(job, "/", phase) }

func (s *session) name(phase string) string {
	if s.machine > 0 {
		return fmt.Sprint(name(s.job, phase), "/", s.machine)
	}
	return name(s.job, phase)
}

func (s *session) find(phase string) *agent {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return s.e.agents[s.name(phase)]
}

// Start implements tranter.Session.
func (s *session) Start(ctx context.Context, p tranter.Phase) error {
	s.e.mu.Lock()
	w, ok := s.e.phases[name(s.job, p.ID)]
	if !ok {
		w = s.e.work[s.job]
	}
	there := s.e.agents[s.name(p.ID)] != nil
	gone := s.machine < s.e.gone[s.job]
	s.e.mu.Unlock()
	if gone {
		return tranter.ErrMachineLost
	}
	if there {
		return nil
	}
	if pause(ctx, w.Starts); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.Start != nil {
		return w.Start
	}
	s.launch(p, w)
	return nil
}

// launch starts the agent.
func (s *session) launch(p tranter.Phase, w Work) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	a := &agent{changed: make(chan struct{}), cancel: make(chan tranter.PhaseStatus, 8)}
	s.e.agents[s.name(p.ID)] = a
	s.e.begun[s.job] = append(s.e.begun[s.job], p)
	running := 0
	for _, other := range s.e.agents {
		other.mu.Lock()
		if !other.ended {
			running++
		}
		other.mu.Unlock()
	}
	s.e.most = max(s.e.most, running)
	if s.machine < w.MachineLost {
		w.Lost, a.lose = true, func() { s.e.Lose(s.job, s.machine+1) }
	}
	s.e.owned.Go(func() { a.run(w, p) })
}

// run does the work, in the time that it takes, or until it is cancelled. It tells of how the job stood before unless the
// work says how it ends.
func (a *agent) run(w Work, p tranter.Phase) {
	prior, result := p.Prior, w.Result
	if result.Status == "" {
		result = prior
		result.Status = cmp.Or(result.Status, tranter.PhaseSucceeded)
	}
	for i := 0; i < max(1, len(w.Output)); i++ {
		timer := time.NewTimer(w.Takes)
		select {
		case <-timer.C:
		case status := <-a.cancel:
			if w.heeds(status, prior) {
				timer.Stop()
				a.end(&tranter.PhaseResult{Status: status, Message: string(status), Over: status == tranter.PhaseAborted || p.ID == "sources", ScriptReached: p.ID != "sources"}, "cancelled\n")
				return
			}
			<-timer.C
		}
		if i < len(w.Output) {
			a.write(w.Output[i])
		}
	}
	if a.lose != nil {
		a.lose()
	}
	if w.Lost {
		a.end(nil, "")
		return
	}
	a.end(&result, "")
}

// heeds says whether an agent ends when it is told to: what is left of a job that is over, or has run its script, is done.
func (w Work) heeds(status tranter.PhaseStatus, prior tranter.PhaseResult) bool {
	return !w.Deaf && !prior.Over && (!prior.ScriptReached || status != tranter.PhaseCanceled)
}

func (a *agent) write(s string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.journal = append(a.journal, s...)
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *agent) end(r *tranter.PhaseResult, last string) {
	a.write(last)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.result, a.ended = r, true
	close(a.changed)
	a.changed = make(chan struct{})
}

// Attach implements tranter.Session.
func (s *session) Attach(ctx context.Context, phase string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	a := s.find(phase)
	if a == nil {
		return tranter.PhaseResult{}, tranter.ErrAgentLost
	}
	for {
		a.mu.Lock()
		piece := strings.Clone(string(a.journal[min(offset, int64(len(a.journal))):]))
		ended, result, changed := a.ended, a.result, a.changed
		a.mu.Unlock()
		n, err := io.WriteString(w, piece)
		if err != nil {
			return tranter.PhaseResult{}, err
		}
		offset += int64(n)
		switch {
		case s.lost():
			return tranter.PhaseResult{}, fmt.Errorf("read what the agent says: %w", tranter.ErrMachineLost)
		case ended && result == nil:
			return tranter.PhaseResult{}, tranter.ErrAgentLost
		case ended:
			return *result, nil
		}
		select {
		case <-ctx.Done():
			return tranter.PhaseResult{}, context.Cause(ctx)
		case <-changed:
		}
	}
}

// Cancel implements tranter.Session.
func (s *session) Cancel(_ context.Context, phase string, abort bool, _ time.Duration) error {
	s.e.mu.Lock()
	forget := s.e.forget
	s.e.abort[s.job] = s.e.abort[s.job] || abort
	s.e.mu.Unlock()
	if forget {
		return nil
	}
	status := tranter.PhaseCanceled
	if abort {
		status = tranter.PhaseAborted
	}
	if a := s.find(phase); a != nil {
		select {
		case a.cancel <- status:
		default:
		}
	}
	return nil
}

// Place implements tranter.Placed.
func (s *session) Place() tranter.JobPlace {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if !s.e.placed[s.job] {
		return tranter.JobPlace{}
	}
	return tranter.JobPlace{Machine: fmt.Sprint("machine-", s.machine), Set: "large"}
}

// Close implements tranter.Session.
func (s *session) Close(context.Context) error {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.e.closed[s.job]++
	return nil
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	if s.machine > 0 {
		data, _ := json.Marshal([]any{s.job, s.machine})
		return data
	}
	data, _ := json.Marshal(s.job)
	return data
}
