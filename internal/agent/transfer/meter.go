package transfer

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter/internal/agent/env"
)

// meter tells in the job log how far a transfer is, as often as TRANSFER_METER_FREQUENCY says (runner contract, section
// 5.6). Progress lines begin with a carriage return, so that a terminal shows one line that changes; the last one ends
// with a line feed. A nil meter is one that is off: all its methods may be called. They are safe for concurrent use.
type meter struct {
	label string
	total int64 // bytes; less than 1: not known
	done  atomic.Int64
	began time.Time
	out   io.WriteCloser
	stop  chan struct{}
	ended sync.WaitGroup
}

// meterFloor is the shortest time between two lines.
const meterFloor = time.Second

// newMeter starts a meter for a transfer of total bytes, less than 1 if that is not known. The result is nil if the job
// wants none. Its end method must be called.
func newMeter(e *env.Env, label string, total int64) *meter {
	every := meterFrequency(e)
	if every <= 0 {
		return nil
	}
	m := &meter{label: label, total: total, began: time.Now(), out: e.Log.Stdout(), stop: make(chan struct{})}
	m.ended.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
				m.print("")
			}
		}
	})
	return m
}

func meterFrequency(e *env.Env) time.Duration {
	const key = "TRANSFER_METER_FREQUENCY"
	text := e.Get(key)
	if text == "" || text == "0" {
		return 0
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		e.Log.Warning("%s: expected a time such as 5s, got %q; progress is not shown", key, text)
		return 0
	case d <= 0:
		return 0
	}
	return max(d, meterFloor)
}

// add counts n bytes; a negative n takes back what was counted in vain.
func (m *meter) add(n int64) {
	if m != nil {
		m.done.Add(n)
	}
}

// restart begins at 0 bytes: the transfer is tried again.
func (m *meter) restart() {
	if m != nil {
		m.done.Store(0)
	}
}

// reader returns r with all that is read counted.
func (m *meter) reader(r io.Reader) io.Reader {
	if m == nil {
		return r
	}
	return metered{m, r, nil}
}

// writer returns w with all that is written counted.
func (m *meter) writer(w io.Writer) io.Writer {
	if m == nil {
		return w
	}
	return metered{m, nil, w}
}

type metered struct {
	m *meter
	r io.Reader
	w io.Writer
}

// Read counts what is read.
func (c metered) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.add(int64(n))
	return n, err
}

// Write counts what is written.
func (c metered) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.m.add(int64(n))
	return n, err
}

// end stops the meter and prints its last line.
func (m *meter) end() {
	if m == nil {
		return
	}
	close(m.stop)
	m.ended.Wait()
	m.print("\n")
	_ = m.out.Close()
}

func (m *meter) print(end string) {
	done, seconds := m.done.Load(), time.Since(m.began).Seconds()
	of := ""
	if m.total > 0 {
		of = "/" + readable(m.total)
	}
	rate := int64(0)
	if seconds > 0 {
		rate = int64(float64(done) / seconds)
	}
	// The spaces cover what a longer line before has left on the terminal.
	_, _ = fmt.Fprintf(m.out, "\r%s %s%s (%s/s)                %s", m.label, readable(done), of, readable(rate), end)
}

// readable is a number of bytes for people, in powers of 1000.
func readable(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for ; f >= 999.95 && i < len(units)-1; i++ {
		f /= 1000
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}
