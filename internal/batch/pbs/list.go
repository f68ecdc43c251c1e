package pbs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// List asks for the jobs that wait or run, ours only where that is possible; of those that have ended, which PBS may keep for
// weeks, Final tells.
func (s *Scheduler) List(ctx context.Context, prefix string) ([]tranter.BatchJob, error) {
	d, err := s.speaks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list batch jobs: %w", err)
	}
	var ids []string
	if owner := s.owner(); owner != "" && d != wrapper {
		out, err := s.client.Run(ctx, batch.Call{Name: "qselect", Args: []string{"-u", owner}})
		if err != nil {
			return nil, fmt.Errorf("list batch jobs: %w", err)
		}
		if ids = selected(out); len(ids) == 0 {
			return nil, nil
		}
	}
	jobs, err := s.qstat(ctx, d, append([]string{"-f"}, ids...))
	if err != nil {
		return nil, fmt.Errorf("list batch jobs: %w", err)
	}
	return slices.DeleteFunc(jobs, func(j tranter.BatchJob) bool { return !strings.HasPrefix(j.Name, prefix) }), nil
}

// selected reads the ids that qselect prints.
func selected(out string) []string {
	var ids []string
	for line := range strings.Lines(out) {
		if id := strings.TrimSpace(line); jobID().MatchString(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Final asks for jobs that may have ended. OpenPBS keeps them if its server has job_history_enable, Torque for
// keep_completed seconds, Slurm for MinJobAge, and says there that a job has ended but not how.
func (s *Scheduler) Final(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	for _, id := range ids {
		if !jobID().MatchString(id) {
			return nil, fmt.Errorf("ask about batch jobs: %.100q is no id of a job", id)
		}
	}
	d, err := s.speaks(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask about batch jobs: %w", err)
	}
	args := []string{"-f"}
	if d == openPBS {
		args = []string{"-x", "-f"}
	}
	jobs, err := s.qstat(ctx, d, append(args, ids...))
	if err != nil {
		return nil, fmt.Errorf("ask about batch jobs: %w", err)
	}
	return asAsked(jobs, ids), nil
}

// Jobs returns how jobs stand, those that have ended too, as far as the server knows them.
func (s *Scheduler) Jobs(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	return s.Final(ctx, ids)
}

// asAsked gives jobs the ids with which they were asked for: the name of the server may be written in more ways than one.
func asAsked(jobs []tranter.BatchJob, ids []string) []tranter.BatchJob {
	byNumber := map[string]string{}
	for _, id := range ids {
		number, _, _ := strings.Cut(id, ".")
		byNumber[number] = id
	}
	var found []tranter.BatchJob
	for _, j := range jobs {
		number, _, _ := strings.Cut(j.ID, ".")
		if id, ok := byNumber[number]; ok {
			j.ID = id
			found = append(found, j)
		}
	}
	return found
}

// qstat runs qstat. That some of the jobs are not there is no error.
func (s *Scheduler) qstat(ctx context.Context, d dialect, args []string) ([]tranter.BatchJob, error) {
	out, err := s.client.Run(ctx, batch.Call{Name: "qstat", Args: args})
	nothing := d == wrapper && empty(err)
	if err != nil && !saysOf(err, gonePhrases()) && !nothing {
		return nil, err
	}
	return d.parse(out), nil
}
