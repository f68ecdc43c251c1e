package docker

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnEngineThatIsAwayIsLookedAtNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		var h health
		looks := 0
		answer := error(gone)
		look := func(context.Context) error {
			looks++
			return answer
		}
		if err := h.check(look); err != nil || looks != 0 {
			t.Errorf("at first: %v after %d looks", err, looks)
		}
		h.found(errors.New("the engine has something against it"))
		if err := h.check(look); err != nil {
			t.Errorf("an engine that answers counts as away: %v", err)
		}
		h.found(gone)
		if err := h.check(look); err == nil || !strings.Contains(err.Error(), "does not answer") || looks != 0 {
			t.Errorf("away: %v after %d looks", err, looks)
		}
		for range 12 {
			time.Sleep(time.Second)
			if h.check(look) == nil {
				t.Error("it is back")
			}
		}
		if looks != 2 {
			t.Errorf("looked %d times in 12 s", looks)
		}
		answer = nil
		time.Sleep(lookEvery)
		if err := h.check(look); err != nil {
			t.Errorf("it is back: %v", err)
		}
	})
}
