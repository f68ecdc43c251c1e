package worker

import (
	"context"
	"slices"
	"time"
)

// usedLimit is how long phases are waited for that have not ended: nothing is known of what those have used.
const usedLimit = time.Second

// used returns what the phases of a job have used that have ended. Their agents have seen it, and told it with the result.
func (w *worker) used(ctx context.Context, r request) (answer, error) {
	j, session, err := w.find(ctx, r)
	if err != nil {
		return answer{}, err
	}
	w.mu.Lock()
	phases := slices.Clone(j.phases)
	w.mu.Unlock()
	ctx, stop := context.WithTimeout(ctx, usedLimit)
	defer stop()
	var u used
	for _, id := range phases {
		result, err := session.Attach(ctx, id, noJournal, discard{})
		if err != nil {
			continue
		}
		u.CPUTime += max(0, result.CPUTime)
		u.MaxMemory = max(u.MaxMemory, result.MaxMemory)
	}
	return answer{Used: &u}, nil
}
