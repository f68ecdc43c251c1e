package pool

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// Where a provider can't be listed for long, nothing comes that would compare what was removed with what there is.
func TestWhatWasRemovedIsForgottenAlsoWhenNothingCanBeListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Log: slog.New(slog.DiscardHandler)}, Settings{})
		l := newLoop(p)
		close(p.done) // the lists that are begun end for nobody
		for i := range 1000 {
			l.told(fleet.Event{At: time.Now(), Kind: fleet.MachineGone, Machine: fmt.Sprint("m-", i)})
			time.Sleep(time.Minute)
			l.end()
			listing{l}.dueList(time.Now())
			delete(l.ops, "")
		}
		l.owned.Wait()
		if n := len(l.looks.left); n > 20 {
			t.Errorf("%d machines are remembered", n)
		}
	})
}
