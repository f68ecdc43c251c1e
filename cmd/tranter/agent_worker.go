package main

import (
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/worker"
)

// workerSettings are what the worker of a batch job has to know of its runner's section to run jobs: worker.Assignment.Executor.
type workerSettings struct {
	Executor  string           `json:"executor"`
	Shell     string           `json:"shell,omitempty"`
	State     string           `json:"state,omitempty"` // directory of the runner on the nodes, for images and the like
	Custom    config.Custom    `json:"custom"`
	Apptainer config.Apptainer `json:"apptainer"`
}

// newWorkerSettings returns what of a section goes to its workers: neither its token nor what only the manager needs.
func newWorkerSettings(r config.Runner, state string) (json.RawMessage, error) {
	data, err := json.Marshal(workerSettings{Executor: r.Executor, Shell: r.Shell, State: state, Custom: r.Custom, Apptainer: r.Apptainer})
	if err != nil {
		return nil, fmt.Errorf("write the settings of workers: %w", err)
	}
	return data, nil
}

// open makes the executor of a worker.
func (w workerSettings) open(s surroundings) (tranter.Executor, error) {
	driver, ok := executors()[w.Executor]
	if !ok {
		return nil, &tranter.ConfigError{Err: fmt.Errorf("the executor %q can't be used in batch jobs", w.Executor)}
	}
	s.state = w.State
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
				return w.open(around)
			}})
		},
	}
}
