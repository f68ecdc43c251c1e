package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/batch/flux"
	"github.com/tranter-ci/tranter/internal/batch/launch"
	"github.com/tranter-ci/tranter/internal/batch/lsf"
	"github.com/tranter-ci/tranter/internal/batch/pbs"
	"github.com/tranter-ci/tranter/internal/batch/slurm"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/site"
)

// Limits of launches, where the site file has none.
const (
	launchEvery = 5 * time.Second
	launchRate  = 5 // commands in a second
	launchBurst = 20
)

// openLaunches has commands run for the jobs of those of a site's runners that have one.
func (s surroundings) openLaunches() error {
	if s.site == nil {
		return nil
	}
	ls, err := s.site.launches()
	if err != nil {
		return err
	}
	for _, l := range ls {
		if err := s.openLaunch(l); err != nil {
			return fmt.Errorf("runner %s: %w", l.runner.Name, err)
		}
	}
	return nil
}

func (s surroundings) openLaunch(l launched) error {
	class := l.token.Token.Short()
	launcher := launch.New(launch.Options{Dir: filepath.Join(s.state, "launches"), Agent: []string{s.self}, Recognise: trackers(s.log), Log: s.log})
	group := l.runner.Launch.GroupSize
	prefix := s.clusters.classPrefix("launch", class)
	lists := cluster.NewLists(launcher, prefix+"-", launchEvery/2)
	settings := cluster.Settings{
		Runner: l.runner.Name, System: "launch command", Scheduler: launcher, List: lists.List, Every: launchEvery, Dir: "/",
		Policy: allocation.Policy{
			Order: allocation.SelfTaking, Prefix: prefix, Places: group, Limits: allocation.Limits{Rate: launchRate, Burst: launchBurst},
		},
		Size:   func(cluster.Need) (tranter.Shape, []string, error) { return tranter.Shape{}, nil, nil },
		Output: func(string) string { return "" },
		Hands: cluster.Hands{
			Prepare: func(a allocation.Allocation, _ *tranter.Account) (string, error) {
				c, err := l.runner.Launch.Command(max(1, len(a.For)), l.config)
				if err != nil {
					return "", err
				}
				return c.Stdin, launcher.Prepare(a.Name, launch.Command{
					Executable: c.Executable, Args: c.Args, Workdir: c.Workdir, Stdin: c.Stdin, Timeout: c.Timeout,
				})
			},
			Follow: func(string) {},
			Executor: func(string) (tranter.Executor, error) {
				return nil, errors.New("what was launched takes its jobs itself")
			},
			Lost:   func(string, error) {},
			Remove: launcher.Forget,
		},
	}
	client, err := newClient(config.Config{}, config.Runner{Name: l.runner.Section.Name, URL: l.site.URL, Token: l.token.Token, TLSCAFile: l.site.TLSCAFile}, s.systemID, s.log)
	if err != nil {
		return err
	}
	_, err = s.clusters.open(class, settings, demanded{
		name: l.runner.Name, url: l.site.URL, ca: l.site.TLSCAFile, id: l.token.ID, priority: launchPriority(l.runner),
		verify:  func(ctx context.Context) (gitlab.Registered, error) { return client.Verify(ctx) },
		pending: pendingOf(l.site, l.runner),
	})
	return err
}

// pendingOf says where the jobs of a site's runner wait.
func pendingOf(s *site.Site, r site.Runner) config.BatchPending {
	p := config.BatchPending{Token: s.Token, Interval: s.Poll}
	for _, scope := range r.Pending {
		switch scope.Kind {
		case site.ScopeProject:
			p.Projects = append(p.Projects, scope.Path)
		case site.ScopeGroup:
			p.Groups = append(p.Groups, scope.Path)
		}
	}
	return p
}

// trackers returns the batch systems to which launch commands hand jobs, by the command.
func trackers(log *slog.Logger) func(executable string) launch.Tracker {
	return func(executable string) launch.Tracker {
		name := filepath.Base(executable)
		list, known := map[string]string{"sbatch": "squeue", "qsub": "qstat", "bsub": "bjobs", "flux": "flux"}[name]
		if !known {
			return nil
		}
		client := batch.Client{Bin: binOf(executable, list)}
		if _, err := exec.LookPath(filepath.Join(client.Bin, list)); err != nil { // such as with ssh and sbatch of another host
			log.Debug("What a launch command has submitted can't be followed from here", "command", executable, "error", err)
			return nil
		}
		t, err := trackerOf(name, client, log)
		if err != nil {
			log.Warn("The batch system of a launch command can't be asked", "command", executable, "error", err)
			return nil
		}
		return t
	}
}

// trackerOf returns the batch system of a submit command.
func trackerOf(submit string, client batch.Client, log *slog.Logger) (launch.Tracker, error) {
	switch submit {
	case "sbatch":
		return slurm.New(slurm.Options{Client: client, Log: log})
	case "qsub":
		return pbs.New(pbs.Options{Client: client, Log: log})
	case "bsub":
		return lsf.New(lsf.Options{Client: client, Log: log})
	}
	return flux.New(flux.Options{Client: client, Log: log})
}

// binOf is the directory of the command that lists jobs, if it is beside the one that was run; else empty: PATH, as for a
// wrapper of the site's in a place of its own.
func binOf(executable, list string) string {
	if !filepath.IsAbs(executable) {
		return ""
	}
	dir := filepath.Dir(executable)
	if _, err := os.Stat(filepath.Join(dir, list)); err != nil {
		return ""
	}
	return dir
}
