package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/view"
)

// addPageFlag defines the flag that asks for a page on which to watch a local run.
func addPageFlag(flags *pflag.FlagSet, address *string) {
	flags.StringVar(address, "web", "", "address of a web page on which to watch, such as 127.0.0.1:9253; it stays until Ctrl-C")
}

// openOutlook opens what the page of a local run shows, if there is to be one.
func (l *local) openOutlook(ctx context.Context) error {
	if l.page == "" {
		return nil
	}
	seen, err := openOutlook(ctx, places{state: l.dir, config: l.dir, systemID: "s_local"}, config.Default(), l.log)
	if err != nil {
		return err
	}
	l.graph = &pipelineGraph{of: l.Pipelines, keys: map[int64]string{}}
	seen.watch.also = append(seen.watch.also, l.graph.learn)
	l.outlook = seen
	return nil
}

// look serves the page until the run ends.
func (l *local) look(ctx context.Context) error {
	o := l.outlook
	if o == nil {
		return nil
	}
	var machines *machineFleet
	if l.machines != nil {
		machines = &machineFleet{pools: l.machines.list, history: l.store.Machines()}
	}
	o.of(l.manager, machines, nil)
	o.settle(config.Default(), nil, "")
	o.watched.pipelines = l.graph.show
	if err := o.openPages(ctx, config.Default(), l.dir, looked{web: l.page}); err != nil {
		return err
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	end := l.serve
	l.serve = func() {
		stop()
		end()
	}
	l.owned.Go(func() {
		if err := o.serve(watching); err != nil {
			l.log.Error("The web page has failed", "error", err)
		}
	})
	return nil
}

// introducePage says where the page is.
func (l *local) introducePage(w io.Writer) {
	if l.outlook != nil {
		fmt.Fprintf(w, "web page   %s   (the token for actions is in %s)\n\n", l.outlook.url, filepath.Join(l.dir, webTokenFile))
	}
}

// keepPage leaves the page there after the run's end until its user has seen enough.
func (l *local) keepPage(ctx context.Context, w io.Writer, signals <-chan os.Signal) {
	if l.outlook == nil {
		return
	}
	fmt.Fprintf(w, "The page stays at %s until you press Ctrl-C.\n", l.outlook.url)
	select {
	case <-ctx.Done():
	case <-signals:
	}
}

// pipelineGraph shows the pipelines of a local run.
type pipelineGraph struct {
	of func() []coordinator.View

	mu   sync.Mutex
	keys map[int64]string // of the manager's jobs, by their numbers
}

// learn hears of jobs' keys.
func (g *pipelineGraph) learn(e tranter.Event) {
	if e.Past == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keys[e.Past.Job.ID] = e.Past.Key
}

func (g *pipelineGraph) show() []view.Pipeline {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	var out []view.Pipeline
	for _, v := range g.of() {
		p := view.Pipeline{ID: v.ID, Name: v.Name, Status: string(v.Status), Stages: v.Stages}
		for _, j := range v.Jobs {
			if j.Retried {
				continue
			}
			p.Jobs = append(p.Jobs, view.PipelineJob{
				ID: j.ID, Name: j.Name, Stage: j.Stage, Status: string(j.Status), Needs: j.Needs, Key: g.keys[j.ID], Duration: j.Times.Duration(now),
				Allowed: j.AllowFailure,
			})
		}
		out = append(out, p)
	}
	return out
}
