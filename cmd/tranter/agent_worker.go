package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/worker"
)

// workerSettings are what the worker of a batch job has to know of its runner's section to run jobs: worker.Assignment.Executor.
type workerSettings struct {
	Executor  string           `json:"executor"`
	Shell     string           `json:"shell,omitempty"`
	Custom    config.Custom    `json:"custom"`
	Apptainer config.Apptainer `json:"apptainer"`
}

// newWorkerSettings returns what of a section goes to its workers: neither its token nor what only the manager needs. Images
// without a directory of their own are in shared, which the nodes have, but for jobs of other users, who can't write there.
func newWorkerSettings(r config.Runner, shared string) (json.RawMessage, error) {
	w := workerSettings{Executor: r.Executor, Shell: r.Shell, Custom: r.Custom, Apptainer: r.Apptainer}
	if w.Apptainer.ImageDir == "" && accounts(r.Batch.Users) == nil {
		w.Apptainer.ImageDir = filepath.Join(cmp.Or(r.CacheDir, filepath.Join(shared, "cache")), "images")
	}
	data, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("write the settings of workers: %w", err)
	}
	return data, nil
}

// open makes the executor of the worker in an allocation's directory.
func (w workerSettings) open(s surroundings, dir string) (tranter.Executor, error) {
	driver, ok := executors()[w.Executor]
	if !ok {
		return nil, &tranter.ConfigError{Err: fmt.Errorf("the executor %q can't be used in batch jobs", w.Executor)}
	}
	s.state = dir
	if w.Apptainer.ImageDir == "" {
		home, err := s.home()
		if err != nil {
			return nil, err
		}
		w.Apptainer.ImageDir = filepath.Join(home, ".cache", "tranter", "images")
	}
	return driver.open(s, config.Config{}, config.Runner{Executor: w.Executor, Shell: w.Shell, Custom: w.Custom, Apptainer: w.Apptainer})
}

func newAgentWorker(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "worker DIR",
		Short: "Run the jobs of the batch job whose directory is DIR",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log := slog.New(slog.NewTextHandler(s.err, nil))
			around, err := newSurroundings("", "", "", log)
			if err != nil {
				return err
			}
			return worker.Serve(cmd.Context(), args[0], worker.ServeOptions{Log: log, Executor: func(settings json.RawMessage) (tranter.Executor, error) {
				var w workerSettings
				if err := json.Unmarshal(settings, &w); err != nil {
					return nil, fmt.Errorf("malformed settings of the executor: %w", err)
				}
				return w.open(around, args[0])
			}})
		},
	}
}
