//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
)

// firstLine is what a job's script begins with.
const firstLine = "/bin/date +%s.%N"

// latencies measures the way from a batch job's start to its job's first line.
func (b *bench) latencies(ctx context.Context) error {
	for _, c := range []struct{ name, order, batch string }{
		{"allocate-first, over the shared directory", allocateFirst, ""},
		{"allocate-first, with listen", allocateFirst, "listen = \"127.0.0.1:0\"\n"},
		{"take-first, over the shared directory", takeFirst, ""},
		{"take-first, with listen", takeFirst, "listen = \"127.0.0.1:0\"\n"},
	} {
		sec := section{executor: "shell", order: c.order, batch: c.batch}
		if err := b.latency(ctx, c.name, sec); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// containers measures the same with jobs in containers.
func (b *bench) containers(ctx context.Context) error {
	image, err := b.image(ctx)
	if err != nil {
		return fmt.Errorf("make an image: %w", err)
	}
	for _, c := range []struct{ name, batch string }{
		{"container, allocate-first, over the shared directory", ""},
		{"container, allocate-first, with listen", "listen = \"127.0.0.1:0\"\n"},
	} {
		sec := section{executor: "apptainer", order: allocateFirst, batch: c.batch}
		sec.tables = fmt.Sprintf("[runners.apptainer]\nruntime = \"bubblewrap\"\nimage = %q\nimage_dir = %q\npull_policy = [\"if-not-present\"]\n", "oci:"+image+":bench", filepath.Join(b.dir, "images"))
		if err := b.latency(ctx, c.name, sec); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// way is when a job came where, from the first command of its batch job on.
type way struct {
	began, sign, taken, place, agent, line time.Time
}

// legs are the parts of a way, with names.
func (w way) legs() []time.Duration {
	return []time.Duration{w.sign.Sub(w.began), w.taken.Sub(w.sign), w.place.Sub(w.taken), w.agent.Sub(w.place), w.line.Sub(w.agent)}
}

var legNames = [...]string{"sign seen", "job taken", "place had", "first phase's log", "script's first line"} //nolint:gochecknoglobals // a constant

func (b *bench) latency(ctx context.Context, name string, sec section) (err error) {
	began := filepath.Join(b.dir, "began")
	sec.concurrent, sec.pending = 4, "interval = \"1s\""
	sec.batch += fmt.Sprintf("before = %q\n", firstLine+" >>"+began)
	s, err := b.open(ctx, sec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	const before = 2 // jobs that are not counted: an image is made ready, caches are filled
	var ways []way
	var cpu time.Duration
	for i := range before + b.starts {
		if i == before {
			cpu = s.manager.Busy()
		}
		w, err := s.walk(ctx, began, i, sec.order)
		if err != nil {
			return err
		}
		if i >= before {
			ways = append(ways, w)
		}
	}
	cpu = (s.manager.Busy() - cpu) / time.Duration(b.starts)
	if err := s.manager.Stop(); err != nil {
		return err
	}
	var all []time.Duration
	legs := make([][]time.Duration, len(legNames))
	for _, w := range ways {
		all = append(all, w.line.Sub(w.began))
		for i, leg := range w.legs() {
			legs[i] = append(legs[i], leg)
		}
	}
	var split []string
	for i, leg := range legs {
		if sec.order == takeFirst && i == 1 {
			continue // it was taken before
		}
		split = append(split, fmt.Sprintf("%s %s", legNames[i], measure.Millis(measure.Percentile(leg, 0.5))))
	}
	b.row(name+": batch job's start to the script's first line, p50 / p95 / most", "300 ms", measure.Quantiles(all)+" / "+measure.Millis(slices.Max(all)),
		fmt.Sprintf("%d jobs, one after the other; p50 of the legs: %s; manager %s CPU per job", b.starts, strings.Join(split, ", "), measure.Millis(cpu)))
	return nil
}

// walk runs one job and returns its way.
func (s *site) walk(ctx context.Context, began string, i int, order string) (w way, err error) {
	if err := os.Remove(began); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	views, err := s.work(ctx, 1, firstLine)
	if err != nil {
		return w, err
	}
	data, err := os.ReadFile(began)
	if err != nil {
		return w, err
	}
	if w.began, err = stamp(strings.TrimSpace(string(data))); err != nil {
		return w, fmt.Errorf("not one batch job was made for the job: %w", err)
	}
	runs, err := s.manager.Await(ctx, saidRuns, i+1)
	if err != nil {
		return w, err
	}
	taken, err := s.manager.Await(ctx, saidTaken, i+1)
	if err != nil {
		return w, err
	}
	w.sign, w.taken = runs[i].At, taken[i].At
	if order == takeFirst {
		w.taken = w.sign
	}
	return w, s.read(views[0].ID, &w)
}

// stamp is a time as date +%s.%N prints it.
func stamp(text string) (time.Time, error) {
	seconds, nanos, ok := strings.Cut(text, ".")
	s, err := strconv.ParseInt(seconds, 10, 64)
	n, also := strconv.ParseInt(nanos, 10, 64)
	if !ok || err != nil || also != nil || n > math.MaxInt32 {
		return time.Time{}, fmt.Errorf("no time: %.100q", text)
	}
	return time.Unix(s, n), nil
}

var stamped = regexp.MustCompile(`\b[0-9]{10}\.[0-9]{9}\b`)

// read takes from a job's log what it says of the way.
func (s *site) read(id int64, w *way) error {
	trace, err := s.c.Trace(id)
	if err != nil {
		return err
	}
	defer trace.Close()
	var seen strings.Builder
	lines := bufio.NewScanner(io.TeeReader(trace, &seen))
	for lines.Scan() {
		at, _, _ := strings.Cut(lines.Text(), " ")
		when, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			continue
		}
		if strings.Contains(lines.Text(), "Using batch job ") {
			w.place = when
		}
		if strings.Contains(lines.Text(), "Running on ") {
			w.agent = when
		}
		if found := stamped.FindString(lines.Text()); found != "" {
			w.line, err = stamp(found)
			return err
		}
	}
	return errors.Join(fmt.Errorf("the log of job %d does not have the script's first line:\n%s", id, &seen), lines.Err())
}

// image makes an image with a shell and date in an OCI layout.
func (b *bench) image(ctx context.Context) (string, error) {
	root, layout := filepath.Join(b.dir, "rootfs"), filepath.Join(b.dir, "layout")
	for _, dir := range []string{"bin", "etc", "tmp", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil { //nolint:gosec // an image's
			return "", err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	date, err := exec.LookPath("date")
	if err != nil {
		return "", err
	}
	// Its own date does not know %N, and its shell takes that one where no path is given.
	script := `set -e
cp "$2" "$1/bin/busybox"
for name in sh cat echo ls env id uname sleep mkdir rm printf; do ln -s busybox "$1/bin/$name"; done
cp "$3" "$1/bin/date"
for library in $(ldd "$3" | grep -o '/[^ ]*'); do mkdir -p "$1$(dirname "$library")"; cp -L "$library" "$1$library"; done
umoci init --layout "$4"
umoci new --image "$4:bench"
umoci insert --rootless --image "$4:bench" "$1" /`
	_, err = b.run(ctx, "sh", "-c", script, "sh", root, busybox, date, layout)
	return layout, err
}
