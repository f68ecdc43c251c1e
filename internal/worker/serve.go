package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
)

// worker runs the jobs of one allocation.
type worker struct {
	written
	dir      string // the allocation's
	base     string // of jobs' directories
	folder   folder
	log      *slog.Logger
	executor func() (tranter.Executor, error)
	out      outlet
	started  time.Time
	wake     chan struct{} // something has changed
	tasks    sync.WaitGroup

	mu     sync.Mutex
	sign   sign
	jobs   map[string]*job
	shares *shares
	requests
	uses    int
	idle    time.Time // since when there is no job
	manager time.Time // its last sign of life
	ending  error     // why the worker ends
}

// outlet is the way from a worker to the manager.
type outlet interface {
	// run takes requests until ctx ends.
	run(ctx context.Context) error
	// send sends an answer, or loses it if the manager will ask for it again.
	send(a answer)
	// bulk says that journals go this way: jobs' directories are not shared.
	bulk() bool
	// stream sends a journal and its result. The error is errStreamed once that is done.
	stream(ctx context.Context, session tranter.Session, r request) error
}

// What holds where the assignment says nothing.
const (
	defaultTake = 2 * time.Minute
	defaultLost = 2 * time.Minute
)

// Serve is the worker in the allocation whose directory is dir. It returns when it has ended itself: when it was not given a
// job in time or any more, before its walltime ends, when there is no manager, when it was told to, or by a signal.
func Serve(ctx context.Context, dir string, o ServeOptions) error {
	w, err := newWorker(dir, o)
	if err != nil {
		return err
	}
	defer func() { _ = w.folder.root.Close() }()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := w.begin(); err != nil {
		return err
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	w.tasks.Go(func() { _, _ = w.executor() }) // what it has to make ready is ready when the first job comes
	var taking sync.WaitGroup
	taking.Go(func() {
		if err := w.out.run(work); err != nil {
			w.end(err)
		}
	})
	supervisor{w}.supervise(ctx, signals)
	farewell{w}.windDown(work)
	stop()
	taking.Wait()
	farewell{w}.settle()
	farewell{w}.leave()
	return nil
}

func newWorker(dir string, o ServeOptions) (*worker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the allocation's directory: %w", err)
	}
	now := time.Now()
	w := &worker{
		dir: dir, base: filepath.Join(dir, jobsDir), folder: folder{root: root}, log: o.Log, started: now, wake: make(chan struct{}, 1),
		jobs: map[string]*job{}, requests: requests{asked: map[string]*asked{}, wanted: map[string]string{}}, idle: now, manager: now,
	}
	content, err := w.folder.read(assignmentFile, maxRequest)
	if err == nil {
		err = json.Unmarshal(content, &w.written)
	}
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("read the allocation's assignment: %w", err)
	}
	w.Places = max(1, w.Places)
	if w.Walltime > 0 { // a job may ask for less time than the margin has
		w.Margin = min(w.Margin, w.Walltime/4)
	}
	w.shares = newShares(processors(), w.Places)
	if w.TakeTimeout <= 0 {
		w.TakeTimeout = defaultTake
	}
	if w.LostAfter <= 0 {
		w.LostAfter = defaultLost
	}
	w.executor = sync.OnceValues(func() (tranter.Executor, error) { return o.Executor(w.Executor) })
	w.out = newMailbox(w)
	if w.Connect != "" {
		w.out = newDialer(w)
	}
	return w, nil
}

// begin makes this the one worker of its allocation, and shows that it is there.
func (w *worker) begin() error {
	host, _ := os.Hostname()
	if err := w.claim(host); err != nil {
		return err
	}
	for _, kv := range w.Environment {
		if key, value, ok := strings.Cut(kv, "="); ok {
			if err := os.Setenv(key, value); err != nil {
				return fmt.Errorf("set the environment: %w", err)
			}
		}
	}
	var err error
	if w.out.bulk() {
		w.base, err = os.MkdirTemp(w.LocalDir, "tranter-"+w.Name+"-")
	} else {
		err = os.MkdirAll(w.base, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make a directory for jobs: %w", err)
	}
	w.sign = sign{Host: host, PID: os.Getpid(), Started: w.started}
	if w.IDVariable != "" {
		w.sign.BatchID = os.Getenv(w.IDVariable)
	}
	if w.Walltime > 0 {
		w.sign.Until = w.started.Add(w.Walltime)
	}
	if err := w.show(); err != nil {
		return fmt.Errorf("show that the worker is there: %w", err)
	}
	w.hint()
	return nil
}

// claim makes this the one worker of its allocation.
func (w *worker) claim(host string) error {
	claim, err := w.folder.root.OpenFile(claimFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("allocation %s has, or had, a worker: another one does not take its place", w.Name)
	}
	if err == nil {
		_, err = fmt.Fprintf(claim, "%s %d\n", host, os.Getpid())
		err = errors.Join(err, claim.Close())
	}
	if err != nil {
		return fmt.Errorf("claim the allocation: %w", err)
	}
	return nil
}

// hint has the manager look at the sign at once.
func (w *worker) hint() {
	hint, err := os.OpenFile(filepath.Join(w.Dir, hintsDir, w.Hint), os.O_CREATE|os.O_EXCL|os.O_WRONLY|noTricks, 0o600)
	if err == nil {
		err = hint.Close()
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		w.log.Warn("The manager will see a moment later how the worker is", "error", err)
	}
}

// show puts the worker's sign where the manager sees it.
func (w *worker) show() error {
	w.mu.Lock()
	w.sign.Seq++
	w.sign.Free = max(0, w.Places-len(w.jobs))
	if w.MaxUses > 0 {
		w.sign.Free = min(w.sign.Free, max(0, w.MaxUses-w.uses-w.opening()))
	}
	if w.ending != nil {
		w.sign.Free = 0
		w.sign.Reason = w.ending.Error()
	}
	s := w.sign
	w.mu.Unlock()
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	w.out.send(answer{Sign: &s})
	return w.folder.give(signFile, content, false)
}

// end has the worker end itself.
func (w *worker) end(why error) {
	w.mu.Lock()
	if w.ending == nil {
		w.ending = why
	}
	w.mu.Unlock()
	w.changed()
}

func (w *worker) endingWhy() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ending
}

func (w *worker) changed() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// seen notes that the manager is at work.
func (w *worker) seen() {
	w.mu.Lock()
	w.manager = time.Now()
	w.mu.Unlock()
}

// superviseInterval is how often the worker looks whether it is to end.
const superviseInterval = 200 * time.Millisecond

// supervisor finds out when a worker is to end.
type supervisor struct{ *worker }

// supervise returns when the worker is to end.
func (w supervisor) supervise(ctx context.Context, signals <-chan os.Signal) {
	tick := time.NewTicker(superviseInterval)
	defer tick.Stop()
	renew := min(aliveInterval, w.LostAfter/4)
	var shown, looked time.Time
	heart := ""
	for free := -1; ; {
		select {
		case <-ctx.Done():
			w.end(fmt.Errorf("it was stopped: %w", context.Cause(ctx)))
		case s := <-signals:
			w.end(fmt.Errorf("it got the signal %q", s))
		case <-w.wake:
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(looked) >= renew {
			looked = now
			heart = w.lookRound(heart)
		}
		if w.due(now); w.endingWhy() != nil {
			return
		}
		if n := w.occupied(); now.Sub(shown) >= renew || n != free {
			shown, free = now, n
			if err := w.show(); err != nil {
				w.log.Warn("The manager can't be shown that the worker is there", "error", err)
			}
		}
	}
}

// lookRound looks whether there is a manager, and whether it still wants this worker.
func (w supervisor) lookRound(heart string) string {
	if _, err := os.Lstat(filepath.Join(w.dir, assignmentFile)); errors.Is(err, os.ErrNotExist) {
		w.end(errors.New("its directory is gone: nobody wants it any more"))
	}
	is := w.heartbeat()
	if is != heart {
		w.seen()
	}
	return is
}

// heartbeat returns what changes as long as there is a manager.
func (w supervisor) heartbeat() string {
	content, err := os.ReadFile(filepath.Join(w.Dir, managerFile))
	if err != nil {
		return ""
	}
	return string(content[:min(len(content), maxSign)])
}

func (w *worker) occupied() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.jobs)
}

// due ends the worker if its time has come.
func (w supervisor) due(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ending != nil {
		return
	}
	idle := len(w.jobs) == 0
	switch {
	case !w.sign.Until.IsZero() && now.After(w.sign.Until.Add(-w.Margin/2)):
		w.ending = errors.New("the walltime of its batch job is nearly over")
	case !idle:
	case w.MaxUses > 0 && w.uses >= w.MaxUses:
		w.ending = fmt.Errorf("it has run %d jobs", w.uses)
	case w.uses == 0 && now.Sub(w.idle) >= w.TakeTimeout:
		w.ending = fmt.Errorf("it got no job within %v", w.TakeTimeout)
	case w.uses > 0 && now.Sub(w.idle) >= w.Linger:
		w.ending = errors.New("it has run its jobs")
	case now.Sub(w.manager) >= w.LostAfter:
		w.ending = fmt.Errorf("there was no sign of the manager for %v", w.LostAfter)
	}
}

// settle waits for what is still done, but not for what hangs in the system.
func (w farewell) settle() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.tasks.Wait()
	}()
	limit := time.NewTimer(forceTime)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	}
}

// leave shows that the worker has ended, and removes what nobody needs any more.
func (w farewell) leave() {
	w.mu.Lock()
	w.sign.Ended = true
	w.mu.Unlock()
	if w.out.bulk() {
		if err := os.RemoveAll(w.base); err != nil {
			w.log.Warn("Jobs' files could not be removed", "error", err)
		}
	}
	if err := w.folder.root.RemoveAll(bodiesDir); err != nil {
		w.log.Warn("What the manager has left for the worker could not be removed", "error", err)
	}
	if err := w.show(); err != nil {
		w.log.Warn("The manager can't be shown that the worker has ended", "error", err)
	}
	w.hint()
}
