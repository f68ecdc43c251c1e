package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/view"
)

// shownLines is how much of a failed job's log is shown.
const shownLines = 60

// runResult is how a pipeline ended, for programs.
type runResult struct {
	ID        int64       `json:"id"`
	Name      string      `json:"name,omitempty"`
	Status    string      `json:"status"`
	Stopped   bool        `json:"stopped"` // by its user
	Ref       string      `json:"ref"`
	SHA       string      `json:"sha"`
	Head      string      `json:"head,omitempty"` // the commit that the working tree is based on
	Dirty     bool        `json:"dirty"`
	Started   time.Time   `json:"started_at"`
	Duration  float64     `json:"duration"` // seconds
	Directory string      `json:"directory"`
	Artifacts string      `json:"artifacts_directory,omitempty"` // empty: there are none
	Logs      string      `json:"logs_directory"`
	Jobs      []jobResult `json:"jobs"`

	Error    string        `json:"error,omitempty"`    // why there is no result
	Problems []problemJSON `json:"problems,omitempty"` // of a pipeline that could not be made
}

// jobResult is how the last attempt of a job ended.
type jobResult struct {
	ID           int64    `json:"id"`
	Name         string   `json:"name"`
	Stage        string   `json:"stage"`
	Status       string   `json:"status"`
	Reason       string   `json:"failure_reason,omitempty"`
	Problem      string   `json:"problem,omitempty"`
	ExitCode     int      `json:"exit_code"`
	AllowFailure bool     `json:"allow_failure"`
	Attempts     int      `json:"attempts"`
	Queued       float64  `json:"queued_duration"` // seconds
	Duration     float64  `json:"duration"`        // seconds
	Log          string   `json:"log,omitempty"`
	Artifacts    []string `json:"artifacts"` // files
}

// unmade tells programs, too, that there is no result, and why.
func (r *session) unmade(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(err, r.unmadeJSON(err))
}

// unmadeJSON tells programs that there is no result, and why.
func (r *session) unmadeJSON(err error) error {
	if !r.options.json {
		return nil
	}
	out := &runResult{
		ID: r.id, Status: string(coordinator.Failed), Ref: r.commit.Ref, SHA: r.commit.SHA, Head: r.commit.Head, Dirty: r.commit.Dirty,
		Started: r.began, Duration: time.Since(r.began).Seconds(), Jobs: []jobResult{}, Error: err.Error(),
	}
	if r.tree != nil {
		out.Directory = r.tree.dir
	}
	if errors.Is(err, errStoppedEarly) || errors.Is(err, errEndNow) {
		out.Status, out.Stopped = string(coordinator.Canceled), true
	}
	if r.compiled != nil && r.compiled.pipeline == nil {
		out.Problems = problemsJSON(r.compiled.problems)
	}
	return writeJSON(r.data, out)
}

// export writes logs and artifacts to where people look for them, and says how the pipeline ended.
func (r *session) export(ctx context.Context, v coordinator.View) (*runResult, error) {
	dir := filepath.Join(runsDir(r.dir), strconv.FormatInt(v.ID, 10))
	out := &runResult{
		ID: v.ID, Name: v.Name, Status: string(v.Status), Ref: v.Ref, SHA: v.SHA, Head: r.commit.Head, Dirty: r.commit.Dirty,
		Started: r.began, Duration: time.Since(r.began).Seconds(), Directory: r.tree.dir,
		Logs: filepath.Join(dir, "logs"), Jobs: []jobResult{},
	}
	artifacts := filepath.Join(dir, "artifacts")
	if r.options.artifacts != "" {
		var err error
		if artifacts, err = filepath.Abs(r.options.artifacts); err != nil {
			return out, fmt.Errorf("find the directory for artifacts: %w", err)
		}
	}
	if err := os.MkdirAll(out.Logs, 0o700); err != nil {
		return out, fmt.Errorf("make the directory for logs: %w", err)
	}
	var errs []error
	names := fileNames{}
	for _, j := range v.Jobs {
		if j.Retried {
			continue
		}
		row := resultOf(j)
		name := names.of(j.Name, j.ID)
		if j.LogBytes > 0 {
			row.Log = filepath.Join(out.Logs, name+".log")
			errs = append(errs, r.exportLog(j.ID, row.Log))
		}
		for _, a := range j.Artifacts {
			files, err := r.exportArtifact(ctx, j.ID, a, filepath.Join(artifacts, name))
			row.Artifacts = append(row.Artifacts, files...)
			errs = append(errs, err)
			out.Artifacts = artifacts
		}
		out.Jobs = append(out.Jobs, row)
	}
	return out, errors.Join(errs...)
}

// fileNames are the names that files and folders of jobs have so far, in lower case.
type fileNames map[string]bool

// longestFileName leaves room for what is added, within the 255 bytes that file systems allow.
const longestFileName = 200

var notInFile = lazy.Regexp(`[^\p{L}\p{M}\p{N}_.-]+`)

// of makes a name for a job's files that no other job has, also where case makes no difference.
func (f fileNames) of(job string, id int64) string {
	name := strings.Trim(notInFile().ReplaceAllString(job, "-"), "-.")
	if len(name) > longestFileName {
		name = strings.ToValidUTF8(name[:longestFileName], "")
	}
	if name == "" {
		name = "job"
	}
	for f[strings.ToLower(name)] {
		name = fmt.Sprintf("%s-%d", name, id)
	}
	f[strings.ToLower(name)] = true
	return name
}

func resultOf(j coordinator.JobView) jobResult {
	row := jobResult{
		ID: j.ID, Name: j.Name, Stage: j.Stage, Status: string(j.Status), Reason: string(j.Reason), Problem: j.Problem, ExitCode: j.ExitCode,
		AllowFailure: j.AllowFailure, Attempts: j.Attempt + 1, Artifacts: []string{},
	}
	if !j.Times.Started.IsZero() {
		row.Duration = j.Times.Duration(j.Times.Finished).Seconds()
		row.Queued = j.Times.Started.Sub(j.Times.Queued).Seconds()
	}
	return row
}

// exportLog writes a log as people read it.
func (r *session) exportLog(id int64, path string) error {
	lines, err := r.logOf(id, false)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text + "\n")
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	return nil
}

func (r *session) logOf(id int64, color bool) ([]logLine, error) {
	log, err := r.Trace(id)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return readLog(log, color)
}

// exportArtifact unpacks an archive into dir, or puts a report into its folder "reports", and lists the files.
func (r *session) exportArtifact(ctx context.Context, id int64, a coordinator.StoredArtifact, dir string) ([]string, error) {
	f, err := r.OpenArtifact(id, a.Type)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if a.Type == "archive" {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the user's own output
			return nil, fmt.Errorf("make the directory for artifacts: %w", err)
		}
		if err := archive.Extract(ctx, f, dir, quiet{}); err != nil {
			return nil, fmt.Errorf("unpack the artifacts of job %d: %w", id, err)
		}
		return filesBelow(dir), nil
	}
	path := filepath.Join(dir, "reports", a.Type+"-"+strings.TrimSuffix(filepath.Base(a.Filename), ".gz"))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the user's own output
		return nil, fmt.Errorf("make the directory for reports: %w", err)
	}
	return []string{path}, copyReport(f, a.Format, path)
}

func copyReport(f *os.File, format, path string) error {
	var from io.Reader = f
	if format == "gzip" {
		z, err := gzip.NewReader(f)
		if err != nil {
			return fmt.Errorf("unpack the report %s: %w", filepath.Base(path), err)
		}
		from = z
	}
	to, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err = io.Copy(to, from) //nolint:gosec // what the user's own job has made
	if err := errors.Join(err, to.Close()); err != nil {
		return fmt.Errorf("write the report %s: %w", filepath.Base(path), err)
	}
	return nil
}

// quiet is for the unpacking of artifacts whose job has told already what there was to tell.
type quiet struct{}

// Plain implements archive.Reporter.
func (quiet) Plain(string, ...any) {}

// Warning implements archive.Reporter.
func (quiet) Warning(string, ...any) {}

func filesBelow(dir string) []string {
	t := tree{dir: dir}
	files := t.walk()
	for i, f := range files {
		files[i] = filepath.Join(dir, filepath.FromSlash(f))
	}
	slices.Sort(files)
	return files
}

// report tells how the pipeline ended: for programs, or for people with the logs of failed jobs that were not shown yet.
func (r *session) report(result *runResult, shown func(id int64) bool) error {
	if r.options.json {
		return writeJSON(r.data, result)
	}
	if !result.Stopped {
		for _, j := range result.Jobs {
			if j.Status != "failed" || j.AllowFailure || shown(j.ID) {
				continue
			}
			if err := r.showFailure(j); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(r.out, "\n%s\n", result.sentence())
	for _, j := range result.waiting() {
		fmt.Fprintf(r.out, "It waits for the manual job %q: --job %q runs it.\n", j, j)
	}
	fmt.Fprintf(r.out, "logs       %s\n", result.Logs)
	if result.Artifacts != "" {
		fmt.Fprintf(r.out, "artifacts  %s\n", result.Artifacts)
	}
	return nil
}

// showFailure prints the part of a failed job's log that tells why.
func (r *session) showFailure(j jobResult) error {
	lines, err := r.logOf(j.ID, isTerminal(r.out))
	if err != nil {
		return err
	}
	lines, cut := telling(lines, shownLines)
	fmt.Fprintf(r.out, "\n── log of %s %s\n", j.Name, strings.Repeat("─", max(3, 70-len([]rune(j.Name)))))
	if cut > 0 {
		fmt.Fprintf(r.out, "(%s before this: %s)\n", view.Count(cut, "line"), j.Log)
	}
	for _, l := range lines {
		fmt.Fprintln(r.out, l.text)
	}
	if len(lines) == 0 {
		fmt.Fprintf(r.out, "(it has none: %s)\n", cmp.Or(j.Problem, strings.ReplaceAll(j.Reason, "_", " ")))
	}
	return nil
}

// failed says whether the pipeline has not gone as it should: also one that waits for a manual job, if a job has failed.
func (r *runResult) failed() bool {
	return r.Status == string(coordinator.Failed) || r.Status == string(coordinator.Canceled) ||
		slices.ContainsFunc(r.Jobs, func(j jobResult) bool { return j.Status == string(coordinator.Failed) && !j.AllowFailure })
}

// sentence says in one line how the pipeline ended.
func (r *runResult) sentence() string {
	verdict := r.Status + " in"
	switch {
	case r.Stopped:
		verdict = "canceled after"
	case r.failed():
		verdict = "failed in"
	case r.Status == "success":
		verdict = "succeeded in"
	case r.Status == "manual":
		verdict = "waits for a manual job after"
	}
	counts := map[string]int{}
	for _, j := range r.Jobs {
		key := j.Status
		if key == "failed" && j.AllowFailure {
			key = "allowed"
		}
		counts[key]++
	}
	var parts []string
	for _, k := range []struct{ key, word string }{
		{"success", "passed"},
		{"failed", "failed"},
		{"allowed", "failed (allowed)"},
		{"canceled", "canceled"},
		{"skipped", "skipped"},
		{"manual", "manual"},
		{"created", "not reached"},
	} {
		if n := counts[k.key]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k.word))
		}
	}
	return fmt.Sprintf("Pipeline %s %s: %s", verdict, view.Short(time.Duration(r.Duration*float64(time.Second))), strings.Join(parts, ", "))
}

// waiting names the manual jobs that keep others from being run.
func (r *runResult) waiting() []string {
	var out []string
	for _, j := range r.Jobs {
		if j.Status == "manual" && !j.AllowFailure {
			out = append(out, j.Name)
		}
	}
	return out
}
