package janitor

import (
	"context"
	"errors"
	"fmt"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// RemoveOwned removes everything that bears the label of owner: containers with their anonymous volumes, networks, and all
// volumes, caches, programs and mirrors among them. It is for the end of a manager that leaves nothing behind; jobs of that
// owner must not run any more. Images stay. What was removed is returned, and the errors are joined.
func RemoveOwned(ctx context.Context, e *engine.Engine, owner string) (Swept, error) {
	if owner == "" {
		return Swept{}, errors.New("whose things are to be removed is not known")
	}
	found, err := list(ctx, e.API())
	if err != nil {
		return Swept{}, fmt.Errorf("look for what jobs have left on the engine: %w", engine.Explain(err))
	}
	var doomed stock
	for _, c := range found.containers {
		if c.Labels[labelOwner] == owner {
			doomed.containers = append(doomed.containers, c)
		}
	}
	for _, n := range found.networks {
		if n.Labels[labelOwner] == owner {
			doomed.networks = append(doomed.networks, n)
		}
	}
	for _, v := range found.volumes {
		if v.Labels[labelOwner] == owner {
			doomed.volumes = append(doomed.volumes, v)
		}
	}
	return doomed.remove(ctx, e.API())
}
