//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
)

// kind is a page with what it follows.
type kind struct{ path, topic string }

func kinds() []kind {
	return []kind{
		{"/?fragment=1", "overview"}, {"/jobs?fragment=1", "jobs"}, {"/machines?fragment=1", "machines"}, {"/events?fragment=1", "events"}, {"/runners?fragment=1", "runners"},
	}
}

// page is an open page.
type page struct {
	of    *watched
	kind  kind
	wake  chan struct{} // room for one: what comes while it loads is one more load
	loads atomic.Int64
}

// told takes in that a topic has changed.
func (p *page) told(topic string) {
	if topic != p.kind.topic {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run loads the page whenever it has changed.
func (p *page) run(ctx context.Context) {
	tag := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		got, err := p.of.get(ctx, p.kind.path, tag)
		if err != nil {
			if ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "a page:", err)
			}
			return
		}
		tag = got.tag
		p.loads.Add(1)
	}
}
