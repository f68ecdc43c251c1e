package pool_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/scale"
)

func TestAMarkOnWhatCanNotBeOursCountsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10})
		for _, name := range []string{"", "\x00check", "$(reboot)\nrm -rf", "-x", strings.Repeat("a", 300)} {
			s.cloud.machines[name] = &vm{power: tranter.PowerOn, alive: true, mark: mark}
		}
		s.start()
		time.Sleep(10 * time.Minute)
		if got := s.cloud.names(); len(got) != 5 || s.book.kinds(fleet.MachineAdopted) != 0 {
			t.Errorf("left: %q, %d adopted", got, s.book.kinds(fleet.MachineAdopted))
		}
		s.stop()
	})
}

func TestAReasonIsOneLineOfPlainText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1})
		s.start()
		names, err := s.pool.Create(t.Context(), 1, "")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if err := s.pool.Drain(t.Context(), names[0], "kernel\x1b[2J\n\xffupdate"+strings.Repeat(" x", 1<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.stop()
		found := false
		for _, e := range s.book.events {
			found = found || strings.HasPrefix(e.Reason, "kernel[2J ?update x x")
			if len(e.Reason) > 2000 {
				t.Errorf("%s has a reason of %d bytes", e.Kind, len(e.Reason))
			}
		}
		if !found {
			t.Error("it is not in the book")
		}
	})
}

func TestWhatADriverSaysIsPlainTextAndNotForJobsLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1})
		said := errors.New("quota\x1b[2J\x1b]0;title\x07 \xff\r\nexceeded\u202e" + strings.Repeat("x", 10_000))
		s.cloud.fail = func(int) error { return said }
		s.start()
		var out strings.Builder
		ended := make(chan error)
		go func() {
			_, err := s.open("a", &out)
			ended <- err
		}()
		time.Sleep(5 * time.Second)
		s.stop()
		if err := <-ended; err == nil {
			t.Error("the job has got a machine")
		}
		text := out.String()
		if strings.Contains(text, "quota") || strings.Contains(text, "xxx") || !strings.Contains(text, "could not be made: its creation has failed") {
			t.Errorf("the job's log is %.300q", text)
		}
		for _, e := range s.book.events {
			text += e.Reason
		}
		if !strings.Contains(text, "quota[2J]0;title ?") || !strings.Contains(text, "exceededxxx") || len(text) > 4000 {
			t.Errorf("log and book have %d bytes: %.300q", len(text), text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("it is %.300q", text)
		}
	})
}
