package slurm

import (
	"context"
	"slices"

	"github.com/tranter-ci/tranter"
)

// Jobs returns how jobs stand that others have submitted, waiting, running and ended ones: from the list, and of those that it
// does not name, or that have ended, what Final knows.
func (s *Scheduler) Jobs(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	listed, err := s.List(ctx, "")
	if err != nil {
		return nil, err
	}
	var jobs []tranter.BatchJob
	left := slices.Clone(ids)
	for _, j := range listed {
		if i := slices.Index(left, j.ID); i >= 0 && !j.State.Final() {
			jobs = append(jobs, j)
			left = slices.Delete(left, i, i+1)
		}
	}
	if len(left) == 0 {
		return jobs, nil
	}
	ended, err := s.Final(ctx, left)
	if err != nil {
		return nil, err
	}
	return append(jobs, ended...), nil
}
