package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/provider/container"
	"github.com/tranter-ci/tranter/internal/store"
)

// The machines of a local pipeline.
const (
	localMachines   = 3 // at once
	localIdleTime   = 3 * time.Second
	localMachineEnd = time.Minute // for machines to be removed at the end
)

// settleMachines finds an address of this host that machines reach, on a local engine, and makes their image.
func (e *localExecutor) settleMachines(ctx context.Context, dir string, log *slog.Logger) error {
	p, err := container.New(container.Options{Dir: filepath.Join(dir, "machines"), Log: log})
	if err != nil {
		return err
	}
	defer p.Close() //nolint:errcheck // nothing is under way on it
	fmt.Fprintln(e.say, "machines   containers with an engine of their own; their image is made from this host's programs if it is not there")
	if err := p.Prepare(ctx); err != nil {
		return fmt.Errorf("machines for the jobs: %w", err)
	}
	gateway, err := p.Gateway(ctx)
	if err != nil {
		return err
	}
	e.address, e.network = net.JoinHostPort(gateway, "0"), "host"
	local, err := engine.Open(ctx, engine.Options{Log: log})
	if err != nil {
		return err
	}
	defer local.Close() //nolint:errcheck // the same
	for _, name := range []string{e.image, docker.OwnHelper} {
		if _, err := local.API().ImageInspect(ctx, name); err == nil {
			e.preload = append(e.preload, name)
		}
	}
	return nil
}

// configureMachines makes a runner's section say it.
func (e *localExecutor) configureMachines(r *config.Runner) {
	r.Limit = localMachines
	m := &r.Machine
	m.Provider, m.IdleTime, m.Engine.PreloadImages = "container", localIdleTime, e.preload
}

// openMachines opens the machines of this state directory, also those that a process before this one has left.
func (l *local) openMachines(ctx context.Context) (*machinePools, error) {
	st, err := store.Open(ctx, filepath.Join(l.dir, "runner.db"))
	if err != nil {
		return nil, err
	}
	l.store = st
	dir, err := filepath.Abs(l.dir)
	if err != nil {
		return nil, fmt.Errorf("find the state directory: %w", err)
	}
	log := slog.New(machineNews{Handler: l.log.Handler(), say: l.executor.say})
	pools := newMachinePools(dir, engineOwner("s_local", dir), st.Machines(), log)
	if l.outlook != nil {
		pools.toldTo(l.outlook.watch)
	}
	return pools, nil
}

// closeMachines removes all machines.
func (l *local) closeMachines() error {
	if l.machines == nil {
		return nil
	}
	err := l.machines.removeAll(context.Background(), localMachineEnd)
	l.machines.close()
	return errors.Join(err, l.store.Close())
}

// machineNews says to people what a pool logs of its machines.
type machineNews struct {
	slog.Handler
	say  io.Writer
	name string
}

// Enabled implements slog.Handler: news are not for the log alone.
func (n machineNews) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || n.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (n machineNews) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "machine" {
			n.name = a.Value.String()
		}
	}
	n.Handler = n.Handler.WithAttrs(attrs)
	return n
}

// Handle implements slog.Handler.
func (n machineNews) Handle(ctx context.Context, r slog.Record) error {
	if n.say != nil && n.name != "" && r.Level >= slog.LevelInfo {
		var detail []string
		r.Attrs(func(a slog.Attr) bool {
			if (a.Key == "reason" || a.Key == "steps" || a.Key == "error") && a.Value.String() != "" {
				detail = append(detail, a.Value.String())
			}
			return true
		})
		text := r.Message
		if len(detail) > 0 {
			text += ": " + strings.Join(detail, ", ")
		}
		fmt.Fprintf(n.say, "machine    %s  %s\n", shortMachine(n.name), text)
	}
	if !n.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return n.Handler.Handle(ctx, r)
}

// shortMachine is the part of a name that tells machines of a pool apart.
func shortMachine(name string) string { return name[strings.LastIndexByte(name, '-')+1:] }
