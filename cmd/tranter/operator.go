package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/web"
)

// directed is what people may want of a manager.
type directed interface {
	Drain()
	Pause(runner, by string) error
	Resume(runner string) error
	Cancel(key, by string) error
	Status() manager.Status
}

// operator does what people want done, whether they ask on the page or with a command.
type operator struct {
	manager  directed
	machines *machineFleet
	history  *store.History // nil: a pause is forgotten at a restart
}

// Drain implements web.Control.
func (o *operator) Drain(context.Context) error {
	o.manager.Drain()
	return nil
}

// Pause implements web.Control. A runner is named by its short token, or by its name.
func (o *operator) Pause(ctx context.Context, runner string, paused bool, by string) error {
	short, err := o.runner(runner)
	if err != nil {
		return err
	}
	if !paused {
		err = o.manager.Resume(short)
	} else {
		err = o.manager.Pause(short, store.PausedText(by, time.Now())) // as a later start says it
	}
	if err != nil || o.history == nil {
		return err
	}
	return o.history.SetPaused(ctx, short, by, paused)
}

// runner finds a runner's short token.
func (o *operator) runner(name string) (string, error) {
	var found, known []string
	for _, r := range o.manager.Status().Runners {
		if r.Runner == name {
			return name, nil
		}
		if r.Name == name {
			found = append(found, r.Runner)
		}
		known = append(known, poolLabel(r.Runner, r.Name))
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", missing("there is no runner %q; there is %s", name, cmp.Or(strings.Join(known, ", "), "none"))
	}
	return "", fmt.Errorf("%d runners are called %q: name one by its short token, %s", len(found), name, strings.Join(found, " or "))
}

// RemoveMachine implements web.Control.
func (o *operator) RemoveMachine(ctx context.Context, name string, force bool) error {
	return o.machines.with(ctx, name, func(p machinePool, _ fleet.Machine) error { return p.Remove(ctx, name, force) })
}

// DrainMachine implements web.Control.
func (o *operator) DrainMachine(ctx context.Context, name string) error {
	return o.machines.with(ctx, name, func(p machinePool, _ fleet.Machine) error { return p.Drain(ctx, name, "asked for by hand") })
}

// CancelJob implements web.Control.
func (o *operator) CancelJob(_ context.Context, key, by string) error {
	return o.manager.Cancel(key, by)
}

// fromHost is who asks through the control socket.
const fromHost = "an operator of this host"

// route adds to the control socket what is seen and done of jobs and runners.
func (o *operator) route(mux *http.ServeMux, w *watched, logs web.Logs) {
	mux.HandleFunc("GET /snapshot", answering(func(r *http.Request) (any, error) { return w.Snapshot(r.Context()) }))
	mux.HandleFunc("POST /jobs/{key}/cancel", answering(func(r *http.Request) (any, error) {
		return struct{}{}, o.CancelJob(r.Context(), r.PathValue("key"), fromHost)
	}))
	for verb, paused := range map[string]bool{"pause": true, "resume": false} {
		mux.HandleFunc("POST /runners/{name}/"+verb, answering(func(r *http.Request) (any, error) {
			return struct{}{}, o.Pause(r.Context(), r.PathValue("name"), paused, fromHost)
		}))
	}
	mux.HandleFunc("GET /jobs/{key}/log", func(out http.ResponseWriter, r *http.Request) {
		log, err := logs.Open(r.Context(), r.PathValue("key"))
		if err != nil {
			status := http.StatusConflict
			if errors.Is(err, tranter.ErrNotFound) {
				status = http.StatusNotFound
			}
			http.Error(out, err.Error(), status)
			return
		}
		defer log.Close()
		offset, err := strconv.ParseInt(cmp.Or(r.FormValue("offset"), "0"), 10, 64)
		if err != nil || offset < 0 {
			http.Error(out, "offset: a number from 0 is needed", http.StatusBadRequest)
			return
		}
		out.Header().Set("Content-Type", "application/octet-stream")
		copyLog(r.Context(), out, log, offset, r.FormValue("follow") != "")
	})
	if w.watch != nil {
		mux.HandleFunc("GET /events", w.watch.stream)
	}
}

// logPace is how often a log that grows is looked at for somebody who follows it.
const logPace = 250 * time.Millisecond

// copyLog sends a log from a byte on, and what comes meanwhile.
func copyLog(ctx context.Context, out http.ResponseWriter, log web.Log, offset int64, follow bool) {
	flush := http.NewResponseController(out)
	tick := time.NewTicker(logPace)
	defer tick.Stop()
	for {
		live := log.Live() // before its size: what comes after the end is seen
		size, err := log.Size()
		if err != nil {
			return
		}
		if size > offset {
			n, err := io.Copy(out, io.NewSectionReader(log, offset, size-offset))
			offset += n
			if err != nil {
				return
			}
			_ = flush.Flush()
		}
		if !follow || !live {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// jobLogs are the logs of the jobs that a manager has, and of those that have ended whose logs are kept.
type jobLogs struct {
	path func(key string) (path string, live bool, err error)
	kept *store.Logs // nil: none are kept
}

// Open implements web.Logs.
func (l jobLogs) Open(_ context.Context, key string) (web.Log, error) {
	path, _, err := l.path(key)
	if err == nil {
		if f, err := openLog(path); err == nil {
			return &openedLog{File: f, live: func() bool {
				_, live, err := l.path(key)
				return err == nil && live
			}}, nil
		}
	}
	if l.kept == nil {
		return nil, fmt.Errorf("the log of job %s: %w: logs of ended jobs are not kept", key, tranter.ErrNotFound)
	}
	f, err := l.kept.Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the log of job %s: %w: it is kept for some time only ([history] keep_logs)", key, tranter.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return &openedLog{File: f, live: func() bool { return false }}, nil
}

// stream passes on what happens, a line of JSON each, until whoever asks has gone.
func (o *observatory) stream(w http.ResponseWriter, r *http.Request) {
	sub := o.hub.Subscribe(1000)
	defer sub.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	for {
		_ = flush.Flush()
		select {
		case <-r.Context().Done():
			return
		case e := <-sub.Events():
			if lines.Encode(e) != nil {
				return
			}
		}
	}
}
