package image

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Limits of what an engine says of a pull.
const (
	longestMessage = 1 << 20 // bytes
	mostLayers     = 1000
)

// worthTelling is how long a pull takes at least for its time and size to be said.
const worthTelling = 2 * time.Second

// message is a line of what an engine says of a pull. Errors come in it too, after the request has succeeded.
type message struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Error  string `json:"error"`
	Detail struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// streamError is an error that an engine reports within the stream of a pull.
type streamError struct{ text string }

func (e *streamError) Error() string { return e.text }

// follow reads what an engine says of a pull until its end. moved is called at each sign of progress.
func follow(stream io.Reader, m *meter, moved func()) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 0, 4096), longestMessage)
	for lines.Scan() {
		if len(strings.TrimSpace(lines.Text())) == 0 {
			continue
		}
		var msg message
		if err := json.Unmarshal(lines.Bytes(), &msg); err != nil {
			return fmt.Errorf("read what the engine says of the pull: %w", err)
		}
		if text := orDefault(msg.Detail.Message, msg.Error); text != "" {
			return &streamError{text: text}
		}
		if m.add(msg, time.Now()) {
			moved()
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return errors.New("read what the engine says of the pull: a message is too long")
	}
	if lines.Err() == nil {
		m.end(time.Now())
	}
	return lines.Err()
}

// meter adds up the progress of a pull's layers, and writes a line about it now and then.
type meter struct {
	name    string
	every   time.Duration
	log     io.Writer
	started time.Time
	told    time.Time
	layers  map[string]*layer
}

type layer struct {
	status         string
	current, total int64 // bytes of the download
	step           int64 // of whatever goes on now
	done           bool
}

func newMeter(name string, every time.Duration, log io.Writer) *meter {
	now := time.Now()
	return &meter{name: name, every: every, log: log, started: now, told: now, layers: map[string]*layer{}}
}

// add reports whether msg is progress.
func (m *meter) add(msg message, now time.Time) bool {
	moved := msg.ID == ""
	if msg.ID != "" {
		l := m.layers[msg.ID]
		if l == nil && len(m.layers) < mostLayers {
			l = &layer{}
			m.layers[msg.ID] = l
		}
		moved = l != nil && l.add(msg)
	}
	if now.Sub(m.told) >= m.every {
		m.told = now
		sum := m.sum()
		fmt.Fprintf(m.log, "Pulling %s: %s of %s fetched, %d of %d layers done, %s so far\n",
			m.name, size(sum.current), size(sum.total), sum.done, sum.layers, now.Sub(m.started).Round(time.Second))
	}
	return moved
}

func (l *layer) add(msg message) bool {
	moved := l.status != msg.Status || l.step != msg.Progress.Current
	l.status, l.step = msg.Status, msg.Progress.Current
	switch msg.Status {
	case "Downloading":
		l.current, l.total = max(0, msg.Progress.Current), max(l.total, msg.Progress.Total)
	case "Download complete", "Verifying Checksum":
		l.current = l.total
	case "Pull complete", "Already exists":
		l.current, l.done = l.total, true
	}
	return moved
}

// sum is the progress of all layers.
type sum struct {
	current, total int64 // bytes; what waits is not in the total, for the engine does not tell its size
	done, layers   int
}

func (m *meter) sum() sum {
	var s sum
	for _, l := range m.layers {
		if strings.HasPrefix(l.status, "Pulling from") {
			continue // not a layer: the tag
		}
		s.current, s.total, s.layers = s.current+l.current, s.total+l.total, s.layers+1
		if l.done {
			s.done++
		}
	}
	return s
}

func (m *meter) end(now time.Time) {
	took := now.Sub(m.started)
	if took < worthTelling {
		return
	}
	sum := m.sum()
	fmt.Fprintf(m.log, "Pulled %s in %s: %s fetched, %d layers\n", m.name, took.Round(100*time.Millisecond), size(sum.current), sum.layers)
}

// size is a number of bytes for people.
func size(bytes int64) string {
	const unit = 1000
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, units := float64(bytes), []string{"kB", "MB", "GB", "TB", "PB", "EB"}
	i := -1
	for value >= unit && i < len(units)-1 {
		value /= unit
		i++
	}
	return fmt.Sprintf("%.1f %s", value, units[i])
}
