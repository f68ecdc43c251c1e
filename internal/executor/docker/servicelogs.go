package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// followed is a service whose output goes into the job's log (CI_DEBUG_SERVICES).
type followed struct {
	Container string `json:"container"`
	Name      string `json:"name"` // as the log calls it
}

const (
	longestLine = 64 << 10
	// serviceLogs is how much of a service's output is shown when it does not come up (runner contract, section 9.11).
	serviceLogs = 64 << 10
)

// followAll has the output of services written into the job's journal, once there is one, from since on.
func (s *session) followAll(since time.Time) {
	for _, f := range s.ref.Follow {
		s.owned.Go(func() {
			from := since // each has its own
			for s.life.Err() == nil {
				last, ended := s.followOnce(s.life, f, from)
				if from = last; ended || !pause(s.life, lastWait) {
					return
				}
			}
		})
	}
}

// followOnce copies until the service or the connection has ended, and returns the time of the last line.
func (s *session) followOnce(ctx context.Context, f followed, since time.Time) (last time.Time, ended bool) {
	last = since
	logs, err := s.host.engine.API().ContainerLogs(ctx, f.Container, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Follow: true, Timestamps: true, Since: engineTime(since),
	})
	if err != nil {
		return last, engine.Missing(err)
	}
	defer logs.Close()
	in, out := io.Pipe()
	s.owned.Go(func() {
		_ = out.CloseWithError(engine.CopyLogs(out, logs))
	})
	defer in.Close() //nolint:errcheck // it has no error
	failed := eachLine(in, func(line string) {
		stamp, text, _ := strings.Cut(line, " ")
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			last = at.Add(time.Nanosecond)
		}
		s.note(ctx, fmt.Sprintf("\x1b[0;37m[service:%s] %s %s\x1b[0;m", f.Name, stamp, text))
	})
	found, err := s.host.engine.API().ContainerInspect(ctx, f.Container, client.ContainerInspectOptions{})
	return last, err == nil && found.Container.State != nil && !found.Container.State.Running && failed == nil
}

// eachLine calls use with the lines of r, until its end. Of a line that is too long the beginning is used: a service may
// print what it likes, and what follows is wanted all the same.
func eachLine(r io.Reader, use func(line string)) error {
	lines := bufio.NewReaderSize(r, longestLine)
	within := false // a line that is too long
	for {
		part, more, err := lines.ReadLine()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !within:
			use(string(part))
		}
		within = more
	}
}

// note writes a line into the journal of the phase that runs, and waits while none does.
func (s *session) note(ctx context.Context, line string) {
	for {
		s.mu.Lock()
		place, running := s.places[s.running], s.running != ""
		s.mu.Unlock()
		if b := s.box(place); running && b != nil {
			if c := b.connection(); c != nil && c.Note(ctx, line) == nil {
				return
			}
		}
		if !pause(ctx, firstWait) {
			return
		}
	}
}

// lastLines returns the end of what a service has printed.
func (h *host) lastLines(ctx context.Context, container string) string {
	logs, err := h.engine.API().ContainerLogs(ctx, container, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Tail: "1000"})
	if err != nil {
		return fmt.Sprintf("(its output can't be read: %v)\n", engine.Explain(err))
	}
	defer logs.Close()
	var text strings.Builder
	_ = engine.CopyLogs(&text, io.LimitReader(logs, serviceLogs)) // what there is
	return text.String()
}

func engineTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
