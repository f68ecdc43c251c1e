package coordinator

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// journal is the file of one pipeline: a line with the pipeline itself, then one line for each new state of one of its
// jobs. Of several lines about a job the last one holds. A change costs as much as it says, however long the history is.
type journal struct {
	size int64 // of all whole lines; what lies behind was never acknowledged
	torn bool  // there may be something behind
}

func (d *disk) runPath(id int64) string {
	return filepath.Join(d.dir, "pipelines", strconv.FormatInt(id, 10)+".jsonl")
}

// begin writes a pipeline that is not on disk.
func (d *disk) begin(r *run) error {
	first, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("save pipeline: %w", err)
	}
	r.journal.torn = true // a file of that name is a left-over
	return d.append(r, append(first, '\n'), r.Jobs)
}

// append adds lines and the present states of the jobs to the pipeline's journal: all of them, or none.
func (d *disk) append(r *run, lines []byte, jobs []*job) error {
	for _, j := range jobs {
		line, err := json.Marshal(j)
		if err != nil {
			return fmt.Errorf("save job %d: %w", j.ID, err)
		}
		lines = append(append(lines, line...), '\n')
	}
	f, err := os.OpenFile(d.runPath(r.ID), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("save pipeline %d: %w", r.ID, err)
	}
	if r.journal.torn {
		err = f.Truncate(r.journal.size)
		r.journal.torn = err != nil
	}
	if err == nil {
		_, err = f.WriteAt(lines, r.journal.size)
	}
	if err != nil {
		r.journal.torn = f.Truncate(r.journal.size) != nil
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err, r.journal.torn = cerr, true
	}
	if err != nil {
		return fmt.Errorf("save pipeline %d: %w", r.ID, err)
	}
	r.journal.size += int64(len(lines))
	return nil
}

// loadRuns reads all pipelines with their jobs.
func (d *disk) loadRuns(log *slog.Logger) ([]*run, error) {
	dir := filepath.Join(d.dir, "pipelines")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var runs []*run
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".jsonl") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		r, err := readJournal(path)
		if errors.Is(err, errNoPipeline) {
			// It was never acknowledged, or something else has written there. Nobody misses it; somebody may want to look.
			log.Warn("a pipeline's file does not begin with a pipeline and is set aside", slog.String("file", path+".damaged"))
			err = os.Rename(path, path+".damaged")
		}
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", path, err)
		}
		if r != nil {
			runs = append(runs, r)
		}
	}
	return runs, nil
}

var errNoPipeline = errors.New("the first line is not a pipeline")

func readJournal(path string) (*run, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	first, rest, whole := bytes.Cut(data, []byte("\n"))
	r := &run{}
	if !whole || json.Unmarshal(first, r) != nil || r.ID == 0 {
		return nil, errNoPipeline
	}
	r.journal.size = int64(len(first)) + 1
	at := map[int64]int{}
	for len(rest) > 0 {
		line, next, whole := bytes.Cut(rest, []byte("\n"))
		j := &job{}
		if !whole || json.Unmarshal(line, j) != nil || j.Definition < 0 || j.Definition >= len(r.Definitions) {
			r.journal.torn = true
			break
		}
		j.definition, j.run = r.Definitions[j.Definition], r
		if i, again := at[j.ID]; again {
			r.Jobs[i] = j
		} else {
			at[j.ID] = len(r.Jobs)
			r.Jobs = append(r.Jobs, j)
		}
		r.journal.size += int64(len(line)) + 1
		rest = next
	}
	return r, nil
}

// ledger knows what is not on disk yet. The book's lock guards it.
type ledger struct {
	unsaved map[*job]bool
	failing bool // the last attempt to save has failed
}

// flush saves what is not saved.
func (l *ledger) flush(d *disk, log *slog.Logger) error {
	byRun := map[*run][]*job{}
	for j := range l.unsaved {
		byRun[j.run] = append(byRun[j.run], j)
	}
	var errs []error
	for r, jobs := range byRun {
		slices.SortFunc(jobs, func(x, y *job) int { return cmp.Compare(x.ID, y.ID) })
		if err := d.append(r, nil, jobs); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, j := range jobs {
			delete(l.unsaved, j)
		}
	}
	err := errors.Join(errs...)
	if err != nil || len(byRun) > 0 {
		l.complain(log, err)
	}
	return err
}

// complain logs when saving begins to fail, and when it works again.
func (l *ledger) complain(log *slog.Logger, err error) {
	if err != nil && !l.failing {
		log.Error("the state cannot be saved; it is tried again until it can", slog.Any("error", err))
	}
	if err == nil && l.failing {
		log.Info("the state is saved again")
	}
	l.failing = err != nil
}
