package web

import (
	"net/http"

	"github.com/tranter-ci/tranter/internal/view"
)

// Runners are the runners as they stand, with their configuration.
type Runners struct {
	Loads    []RunnerRow
	Config   ConfigView
	Manager  view.Manager
	Batches  []view.Batch
	Problems int
}

// RunnerRow is a runner with what belongs to it.
type RunnerRow struct {
	Load

	Pool    *view.Pool
	Cluster *view.Cluster
	Config  *RunnerConfig
	GitLab  string
}

func (s *Server) config() ConfigView {
	if s.options.Config == nil {
		return ConfigView{}
	}
	return s.options.Config()
}

// runnerPages is the page of the runners.
type runnerPages struct{ *Server }

func (s runnerPages) routes(mux *http.ServeMux) {
	mux.Handle("GET /runners", s.cached(func(w http.ResponseWriter, r *http.Request) {
		now, err := s.snapshot(r.Context())
		if err != nil {
			s.fail(w, r, http.StatusServiceUnavailable, "It is not known what is there: "+err.Error())
			return
		}
		s.page(w, r, "runners", newRunners(now, s.config(), s.options.Links))
	}))
}

func newRunners(now view.Snapshot, config ConfigView, links Links) Runners {
	all := Runners{Config: config, Manager: now.Manager, Batches: now.Batches, Problems: len(config.Problems)}
	for _, l := range loads(now) {
		row := RunnerRow{Load: l, GitLab: links.GitLab[l.Runner.Runner]}
		if row.GitLab == "" {
			row.GitLab = l.URL
		}
		for i := range now.Pools {
			if now.Pools[i].Pool == l.Runner.Runner {
				row.Pool = &now.Pools[i]
			}
		}
		for i := range now.Clusters {
			if now.Clusters[i].Runner == l.Runner.Runner || now.Clusters[i].Class == l.Runner.Runner {
				row.Cluster = &now.Clusters[i]
			}
		}
		for i := range config.Runners {
			if config.Runners[i].Runner == l.Runner.Runner {
				row.Config = &config.Runners[i]
				all.Problems += len(row.Config.Problems)
			}
		}
		all.Loads = append(all.Loads, row)
	}
	return all
}
