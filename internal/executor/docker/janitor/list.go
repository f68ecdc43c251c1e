package janitor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// Made is a container, network or volume of ours as it is on an engine, for people to look at.
type Made struct {
	What    string    `json:"what"` // container, network or volume
	Name    string    `json:"name"`
	Type    string    `json:"type,omitempty"` // build, predefined, service, cache, agent or mirror
	State   string    `json:"state,omitempty"`
	Owner   string    `json:"owner"` // the manager
	Job     string    `json:"job,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
}

// List returns what of all managers is on an engine: containers first, then networks, then volumes, each by name.
func List(ctx context.Context, e *engine.Engine) ([]Made, error) {
	found, err := list(ctx, e.API())
	if err != nil {
		return nil, fmt.Errorf("list what is ours on the engine: %w", engine.Explain(err))
	}
	out := []Made{}
	for _, c := range found.containers {
		m := labelled("container", nameOf(c), c.Labels)
		m.State, m.Created = string(c.State), time.Unix(c.Created, 0)
		out = append(out, m)
	}
	for _, n := range found.networks {
		m := labelled("network", n.Name, n.Labels)
		m.Created = n.Created
		out = append(out, m)
	}
	for _, v := range found.volumes {
		m := labelled("volume", v.Name, v.Labels)
		m.Created = made(v)
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Made) int { return cmp.Or(cmp.Compare(a.What, b.What), cmp.Compare(a.Name, b.Name)) })
	return out, nil
}

func labelled(what, name string, labels map[string]string) Made {
	m := Made{What: what, Name: name, Type: cmp.Or(labels[labelType], labels[labelStockType]), Owner: labels[labelOwner], Job: labels[labelJob]}
	m.Expires, _ = expiry(labels)
	return m
}
