package worker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"
)

// Requests are answered in any order: an opening that was closed before its turn came must not take the place of a later one.
func TestAnOpeningThatIsLateTakesNoPlace(t *testing.T) {
	t.Parallel()
	w := &worker{jobs: map[string]*job{}, requests: requests{asked: map[string]*asked{}, wanted: map[string]string{}}, wake: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler), shares: newShares(nil, 1)}
	first, second := request{Op: opOpen, Job: "job", Attempt: "1"}, request{Op: opOpen, Job: "job", Attempt: "2"}
	for _, r := range []request{first, {Op: opClose, Job: "job", Attempt: "1"}, second} {
		w.order(r)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	j, err := (&asked{worker: w, request: second}).enter(ctx, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	j.attempt = second.Attempt
	j.done()
	if _, err := (&asked{worker: w, request: first}).enter(ctx, func(error) {}); !errors.Is(err, errDropped) {
		t.Errorf("the opening that was closed: %v", err)
	}
	if w.jobs["job"] != j || j.attempt != "2" {
		t.Error("the later opening has lost its place")
	}
	w.order(request{Op: opClose, Job: "job", Attempt: "2"})
	if len(w.wanted) != 0 {
		t.Errorf("what is closed is remembered: %v", w.wanted)
	}
}
