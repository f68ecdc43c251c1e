package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/view"
)

// jobData is the page of one job.
type jobData struct {
	Job      tranter.JobHistory
	Row      jobRow
	Running  bool
	Terminal bool
	Links    gitlabLinks
	Axis     []stageRow
	Ticks    []tick
	Cost     *cost.JobCost
	Price    string
	Usage    []usageChart
	Events   []tranter.Event
	Log      logData
}

// gitlabLinks are addresses in GitLab; empty: not known.
type gitlabLinks struct{ Job, Pipeline, Project, Commit string }

// stageRow is a bar on the time axis of a job.
type stageRow struct {
	Name     string
	Note     string // how it ended, of a step
	Step     bool
	Bar      bar
	Took     string
	Start    string
	Attempts int
}

// find returns what is known of a job: of one that runs from the snapshot, else from the store.
func (s jobPages) find(ctx context.Context, now view.Snapshot, key string) (view.Job, bool, error) {
	for i := range now.Jobs {
		if now.Jobs[i].Key == key {
			return now.Jobs[i], true, nil
		}
	}
	if s.options.Past == nil {
		return view.Job{}, false, tranter.ErrNotFound
	}
	j, err := s.options.Past.Job(ctx, key)
	return view.Job{JobHistory: j}, false, err
}

// lookUp finds the job of a request, or answers that there is none.
func (s jobPages) lookUp(w http.ResponseWriter, r *http.Request) (view.Snapshot, *jobData, bool) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return now, nil, false
	}
	key := r.PathValue("key")
	j, running, err := s.find(r.Context(), now, key)
	switch {
	case errors.Is(err, tranter.ErrNotFound):
		s.fail(w, r, http.StatusNotFound, "Nothing is known of a job "+strconv.Quote(key)+": it is not one of this manager's, or was forgotten since.")
		return now, nil, false
	case err != nil:
		s.fail(w, r, http.StatusInternalServerError, "What is known of the job could not be read: "+err.Error())
		return now, nil, false
	}
	d := &jobData{Job: j.JobHistory, Running: running, Terminal: j.Terminal, Log: logOf(j.JobHistory, running)}
	if running {
		d.Row = s.liveRow(r.Context(), now, j)
	} else {
		d.Row = s.endedRow(r.Context(), now, j.JobHistory)
	}
	return now, d, true
}

func (s jobPages) showJob(w http.ResponseWriter, r *http.Request) {
	now, d, ok := s.lookUp(w, r)
	if !ok {
		return
	}
	d.Links = linksOf(d.Job)
	d.Axis, d.Ticks = jobAxis(d.Job, now.At)
	d.Usage = usageCharts(d.Job)
	if s.options.Bills != nil {
		if c, err := s.options.Bills.Job(r.Context(), d.Job); err == nil {
			d.Cost = &c
			if c.Priced {
				d.Price = view.Money(c.Cost, now.Recent.Currency)
			}
		}
	}
	if s.options.Past != nil {
		if events, err := s.options.Past.Events(r.Context(), view.EventQuery{Job: d.Job.Key, Limit: 50}); err == nil {
			d.Events = events
		}
	}
	s.page(w, r, "job", d)
}

// linksOf makes addresses of the address of the job's page, so that they are right whatever GitLab's own address is. Only http and https
// are links: what a server says is not to be run.
func linksOf(j tranter.JobHistory) gitlabLinks {
	if !strings.HasPrefix(j.Job.URL, "https://") && !strings.HasPrefix(j.Job.URL, "http://") {
		return gitlabLinks{}
	}
	l := gitlabLinks{Job: j.Job.URL}
	project, _, ok := strings.Cut(j.Job.URL, "/-/jobs/")
	if !ok {
		return l
	}
	l.Project = project
	if j.Job.Pipeline > 0 {
		l.Pipeline = project + "/-/pipelines/" + strconv.FormatInt(j.Job.Pipeline, 10)
	}
	if j.Job.SHA != "" {
		l.Commit = project + "/-/commit/" + j.Job.SHA
	}
	return l
}

// jobAxis puts the stages of a job on a time axis, from its creation in GitLab to its end.
func jobAxis(j tranter.JobHistory, now time.Time) ([]stageRow, []tick) {
	if j.Times.Taken.IsZero() {
		return nil, nil
	}
	axis := scale{from: j.Times.Taken.Add(-j.Times.Queued), to: until(j.Times.Ended, now)}
	for _, stage := range j.Stages {
		if stage.End.After(axis.to) {
			axis.to = stage.End
		}
	}
	if !axis.to.After(axis.from) {
		axis.to = axis.from.Add(time.Second)
	}
	var rows []stageRow
	if j.Times.Queued > 0 {
		rows = append(rows, stageOf(axis, "queued in GitLab", axis.from, j.Times.Taken, "t-wanted"))
	}
	if len(j.Stages) == 0 {
		rows = append(rows, turningPoints(axis, j.Times)...)
	}
	for _, stage := range j.Stages {
		rows = append(rows, stageOf(axis, strings.ReplaceAll(stage.Name, "_", " "), stage.Start, until(stage.End, axis.to), stageTone(stage, j)))
		for _, step := range stage.Steps {
			row := stageOf(axis, strings.ReplaceAll(step.Name, "_", " "), time.UnixMilli(step.Started), stepEnd(step, axis.to), stepTone(step))
			row.Step, row.Attempts = true, step.Attempts
			if step.Status != "" && step.Status != tranter.PhaseSucceeded {
				row.Note = strings.ReplaceAll(string(step.Status), "_", " ")
			}
			rows = append(rows, row)
		}
	}
	return rows, ticks(axis)
}

// turningPoints are the stages of a job of which no stages are known.
func turningPoints(axis scale, t tranter.JobTimes) []stageRow {
	placed, started := until(t.Placed, axis.to), until(t.Started, axis.to)
	rows := []stageRow{stageOf(axis, "waiting for its place", t.Taken, placed, "t-booting")}
	if !t.Placed.IsZero() && started.After(placed) {
		rows = append(rows, stageOf(axis, "preparing", placed, started, "t-idle"))
	}
	if !t.Started.IsZero() {
		rows = append(rows, stageOf(axis, "scripts", started, axis.to, "t-job"))
	}
	return rows
}

func stepEnd(step tranter.StepRecord, last time.Time) time.Time {
	if step.Ended == 0 {
		return last
	}
	return time.UnixMilli(step.Ended)
}

func stageOf(axis scale, name string, from, to time.Time, class string) stageRow {
	took := view.Short(to.Sub(from))
	l := lane{Bars: []bar{{from: axis.at(from), to: axis.at(to), Y: 3, H: 12, Class: class, Text: fmt.Sprintf("%s: %s, from %s", name, took, from.Format(time.TimeOnly))}}}
	l.finish()
	return stageRow{Name: name, Bar: l.Bars[0], Took: took, Start: from.Format(time.TimeOnly)}
}

// stageTone is the colour of a stage: waiting, work for the job, or the job's own scripts.
func stageTone(stage tranter.JobStage, j tranter.JobHistory) string {
	switch {
	case len(stage.Steps) > 0:
		return "t-leased"
	case !j.Times.Placed.IsZero() && !stage.Start.Before(j.Times.Placed):
		return "t-idle"
	default:
		return "t-booting"
	}
}

func stepTone(step tranter.StepRecord) string {
	switch step.Status {
	case tranter.PhaseFailed, tranter.PhaseTimedOut, tranter.PhaseAborted:
		return "t-failed"
	case tranter.PhaseCanceled:
		return "t-draining"
	default:
		return "t-job"
	}
}

// usageChart is what a job has used of something, drawn on the server.
type usageChart struct {
	Name, Most, Total string
	Area, Line        string // points in a box of 600 by 100
	Top               string // value at the top of the axis
	From, To          string
	Rows              [][2]string // time and value
}

func usageCharts(j tranter.JobHistory) []usageChart {
	samples := j.Usage.Samples
	if len(samples) < 2 {
		return nil
	}
	samples = samples[:min(len(samples), 2*tranter.MaxSamples)]
	var out []usageChart
	cpu := drawUsage("Processors", samples, func(u tranter.UsageSample) float64 { return u.CPU }, func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) })
	if j.Usage.CPUTime > 0 {
		cpu.Total = view.Short(j.Usage.CPUTime) + " of processor time"
	}
	memory := drawUsage("Memory", samples, func(u tranter.UsageSample) float64 { return float64(u.Memory) }, func(v float64) string { return view.Bytes(int64(v)) })
	memory.Most = view.Bytes(max(j.Usage.MaxMemory, int64(most(samples, func(u tranter.UsageSample) float64 { return float64(u.Memory) }))))
	disk := drawUsage("Disk", samples, func(u tranter.UsageSample) float64 { return float64(u.Disk) }, func(v float64) string { return view.Bytes(int64(v)) })
	disk.Most = view.Bytes(max(j.Usage.MaxDisk, int64(most(samples, func(u tranter.UsageSample) float64 { return float64(u.Disk) }))))
	return append(out, cpu, memory, disk)
}

func most(samples []tranter.UsageSample, of func(tranter.UsageSample) float64) float64 {
	var top float64
	for _, u := range samples {
		if v := of(u); v > top { // what is no number is not
			top = v
		}
	}
	return top
}

func drawUsage(name string, samples []tranter.UsageSample, of func(tranter.UsageSample) float64, word func(float64) string) usageChart {
	const width, height = 600, 100
	first, last := samples[0].At, slices.MaxFunc(samples, func(a, b tranter.UsageSample) int { return a.At.Compare(b.At) }).At
	axis := scale{from: first, to: last}
	top := most(samples, of)
	c := usageChart{Name: name, Most: word(top), Top: word(top * 1.1), From: first.Format(time.TimeOnly), To: last.Format(time.TimeOnly)}
	scaleTop := cmp.Or(top*1.1, 1)
	var line strings.Builder
	for _, u := range samples {
		v := of(u)
		if math.IsNaN(v) || v < 0 {
			v = 0
		}
		fmt.Fprintf(&line, "%.1f,%.1f ", axis.at(u.At)*width/100, height-v/scaleTop*height)
		c.Rows = append(c.Rows, [2]string{u.At.Format(time.TimeOnly), word(v)})
	}
	c.Line = strings.TrimSpace(line.String())
	c.Area = fmt.Sprintf("0,%d %s %d,%d", height, c.Line, width, height)
	return c
}
