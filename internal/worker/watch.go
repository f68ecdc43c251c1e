package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	hintInterval  = 25 * time.Millisecond // between two looks for workers that have started
	roundInterval = 5 * time.Second       // in which the sign of each allocation is looked at
	beatInterval  = 2 * time.Second       // in which workers are shown that a manager is at work
	aliveInterval = 10 * time.Second      // between two signs of life that are made known
	ticks         = int(roundInterval / hintInterval)
	hintsAtOnce   = 4096
)

// Run watches signs of life and serves connections of workers until ctx ends.
func (o *Office) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return o.watch(ctx) })
	group.Go(func() error { o.aside.sweep(ctx); return nil })
	if o.listen != nil {
		group.Go(func() error { return o.serve(ctx) })
	}
	err := group.Wait()
	if o.listen != nil {
		o.listen.close()
	}
	return err
}

// watch looks for hints, and goes round all allocations' signs.
func (o *Office) watch(ctx context.Context) error {
	tick := time.NewTicker(hintInterval)
	defer tick.Stop()
	next, beaten := 0, time.Time{}
	unseen, unheard := fault{what: "the manager's sign for workers"}, fault{what: "the signs of workers"}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if time.Since(beaten) >= beatInterval {
			unseen.note(o.log, o.beat())
			beaten = time.Now()
		}
		unheard.note(o.log, o.hints(ctx))
		o.mu.Lock()
		order := o.order
		o.mu.Unlock()
		for range (len(order) + ticks - 1) / ticks {
			if next >= len(order) {
				next = 0
			}
			o.look(ctx, order[next])
			next++
		}
	}
}

// fault is something that is tried many times in a second: it is logged when it begins to fail, and when it works again.
type fault struct{ what, said string }

func (f *fault) note(log *slog.Logger, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == f.said {
		return
	}
	f.said = text
	if err == nil {
		log.Info("What workers in batch jobs and the manager need of each other works again", "what", f.what)
		return
	}
	log.Warn("Workers in batch jobs and the manager may not find each other", "what", f.what, "error", err)
}

// beat shows workers that a manager is at work.
func (o *Office) beat() error {
	const temporary = ".new-" + managerFile
	text := time.Now().UTC().Format(time.RFC3339Nano) + "\n"
	if err := o.root.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return err
	}
	return o.root.Rename(temporary, managerFile)
}

// hints looks which workers have left a hint. It says no more than that there is something to look at: everybody who runs jobs
// can leave one, and none is believed. Names end in letters that only the worker knows, so that nobody is in its way.
func (o *Office) hints(ctx context.Context) error {
	dir, err := o.root.Open(hintsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(hintsAtOnce)
	if len(names) == 0 {
		if err != nil && !strings.Contains(err.Error(), "EOF") {
			return err
		}
		return nil
	}
	for _, name := range names {
		if dot := strings.LastIndexByte(name, '.'); dot > 0 && checkName("allocation", name[:dot]) == nil {
			h := o.followed(name[:dot])
			if h == nil && has(o.root, name[:dot]) {
				continue // it will be followed
			}
			if h != nil {
				o.look(ctx, h)
			}
		}
		o.aside.discard(filepath.Join(hintsDir, name))
	}
	return nil
}

func has(root *os.Root, name string) bool {
	_, err := root.Lstat(filepath.Join(allocationsDir, name))
	return err == nil
}

// look looks at the sign of an allocation in its directory.
func (o *Office) look(ctx context.Context, h *holding) {
	if h.loss() != nil {
		return
	}
	f, err := h.in()
	if err != nil {
		return
	}
	content, err := f.read(signFile, maxSign)
	if err != nil || len(content) == 0 {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			o.log.Debug("The sign of an allocation can't be read", "allocation", h.name, "error", err)
		}
		return
	}
	var s sign
	if err := json.Unmarshal(content, &s); err != nil || s.Seq == 0 {
		return
	}
	o.signed(ctx, h, s)
}

// signed makes known what a worker says of itself, if it is news.
func (o *Office) signed(ctx context.Context, h *holding, s sign) {
	s.tidy()
	now := time.Now()
	h.mu.Lock()
	t := &h.told
	out := Sign{Name: h.name, At: now, Kind: SignAlive, Until: s.Until, Host: s.Host, BatchID: s.BatchID, Free: s.Free, Reason: s.Reason}
	news := s.Seq != t.last.Seq && (now.Sub(t.at) >= aliveInterval || s.Free != t.last.Free)
	switch {
	case s.Ended:
		out.Kind, news = SignEnded, !t.ended
	case !t.first:
		out.Kind, news = SignFirst, true
	}
	t.first, t.ended = t.first || !s.Ended, t.ended || s.Ended
	if news {
		t.at, t.last = now, s
	}
	h.mu.Unlock()
	if !news {
		return
	}
	if s.Ended {
		h.lose(fmt.Errorf("it has ended: %s", s.Reason))
	}
	select {
	case o.signs <- out:
	case <-ctx.Done():
	}
}

// calls is how many requests are under way.
func (o *Office) calls() int { return int(o.underWay.Load()) }
