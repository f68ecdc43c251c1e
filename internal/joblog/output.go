package joblog

import (
	"cmp"
	"fmt"
	"io"
)

// enough is the number of bytes that are gathered before they are written although more follow at once.
const enough = 64 << 10

// output gathers what the streams make of one write and writes it to the destination, within the limit. The first failed
// write is kept: what comes later is dropped.
type output struct {
	dst     io.Writer
	limit   int64 // 0: none
	whole   int64 // the limit that the notice names; 0: limit
	buf     []byte
	written int64
	full    bool // the limit has been reached and its notice written
	final   bool // the limit no longer holds
	err     error
}

// add takes in two pieces, one after the other, and makes place if there is much.
func (o *output) add(a, b []byte) {
	o.buf = append(append(o.buf, a...), b...)
	if len(o.buf) >= enough {
		o.flush()
	}
}

// flush writes what was gathered.
func (o *output) flush() {
	o.emit(o.buf)
	o.buf = o.buf[:0]
}

// closed says whether nothing more is taken.
func (o *output) closed() bool { return o.err != nil || o.full && !o.final }

// emit writes p to the destination, within the limit.
func (o *output) emit(p []byte) {
	if o.closed() {
		return
	}
	if o.limit > 0 && !o.final && o.written+int64(len(p)) >= o.limit {
		p = append(trimRune(p[:o.limit-o.written]), limitNotice(cmp.Or(o.whole, o.limit))...)
		o.full = true
	}
	o.put(p)
}

// put writes to the destination and remembers its first error.
func (o *output) put(p []byte) {
	if len(p) == 0 || o.err != nil {
		return
	}
	n, err := o.dst.Write(p)
	o.written += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		o.err = fmt.Errorf("write the job log: %w", err)
	}
}

// limitNotice is what a log ends with that has reached its limit (runner contract, section 4.1).
func limitNotice(limit int64) string {
	return fmt.Sprintf("\n\x1b[33;1mJob's log exceeded limit of %d bytes.\nJob execution will continue but no more output will be collected.%s\n", limit, reset)
}
