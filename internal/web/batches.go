package web

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/view"
)

// batchesData is the page of the batch jobs.
type batchesData struct {
	Text, State string
	States      []choice
	Clusters    []view.Cluster
	Batches     []batchRow
	Total       int
	Hidden      int
}

type batchRow struct {
	view.Batch

	Age, Runner string
	Jobs        []jobRef
}

func (s machinePages) showBatches(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return
	}
	q := r.URL.Query()
	d := &batchesData{Text: strings.TrimSpace(q.Get("q")), State: q.Get("state"), Clusters: now.Clusters, Total: len(now.Batches)}
	count, names := map[string]int{}, labelsOf(now)
	text := strings.ToLower(d.Text)
	for _, b := range now.Batches {
		count[b.State]++
		if d.State != "" && b.State != d.State || text != "" && !strings.Contains(strings.ToLower(strings.Join([]string{b.Name, b.ID, b.Runner, b.Reason, b.Nodes}, "\n")), text) {
			continue
		}
		if len(d.Batches) >= 2*machinesPage {
			d.Hidden++
			continue
		}
		d.Batches = append(d.Batches, batchOf(now, b, names))
	}
	d.States = []choice{{Label: "all", Link: with(r, "state", ""), Current: d.State == "", Count: len(now.Batches)}}
	for _, state := range []string{"planned", "submitting", "queued", "started", "ending", "ended"} {
		if count[state] > 0 || state == d.State {
			d.States = append(d.States, choice{Label: state, Link: with(r, "state", state), Current: state == d.State, Count: count[state]})
		}
	}
	s.page(w, r, "batches", d)
}

func batchOf(now view.Snapshot, b view.Batch, names labels) batchRow {
	return batchRow{Batch: b, Age: view.Since(b.Since, now.At), Runner: runnerName(now, b.Runner), Jobs: jobRefs(names, b.Jobs)}
}

// batchData is the page of one batch job.
type batchData struct {
	Name    string
	Here    *batchRow // nil: it has ended
	Events  []tranter.Event
	Jobs    []jobRow
	Trouble string
}

func (s machinePages) showBatch(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return
	}
	d := &batchData{Name: r.PathValue("name")}
	if i := slices.IndexFunc(now.Batches, func(b view.Batch) bool { return b.Name == d.Name }); i >= 0 {
		row := batchOf(now, now.Batches[i], labelsOf(now))
		d.Here = &row
	}
	for i := range now.Jobs {
		if now.Jobs[i].Place.Batch == d.Name {
			d.Jobs = append(d.Jobs, jobPages(s).liveRow(r.Context(), now, now.Jobs[i]))
		}
	}
	if s.options.Past != nil {
		d.Events, err = s.options.Past.Events(r.Context(), view.EventQuery{Batch: d.Name, Limit: 200})
		if err != nil {
			d.Trouble = "Its events could not be read: " + err.Error()
		}
		s.endedIn(r.Context(), now, d)
	}
	if d.Here == nil && len(d.Events) == 0 && len(d.Jobs) == 0 {
		s.fail(w, r, http.StatusNotFound, "There is no batch job "+strconv.Quote(d.Name)+", and nothing is known of one.")
		return
	}
	s.page(w, r, "batch", d)
}

// endedIn adds the jobs that have ended in a batch job.
func (s machinePages) endedIn(ctx context.Context, now view.Snapshot, d *batchData) {
	ended, err := s.options.Past.Jobs(ctx, view.JobQuery{Batch: d.Name, Limit: 50})
	if err != nil {
		d.Trouble = "Its jobs could not be read: " + err.Error()
	}
	here := labelsOf(now)
	for i := range ended {
		if here[ended[i].Key] == nil { // else it is on its way out, and among them already
			d.Jobs = append(d.Jobs, jobPages(s).endedRow(ctx, now, ended[i]))
		}
	}
}

// machineHours returns the hours and the price of today by pool, idle machines too, as far as the bills tell.
func (s machinePages) machineHours(ctx context.Context, now view.Snapshot) (hours, price map[string]string) {
	hours, price = map[string]string{}, map[string]string{}
	if s.options.Bills == nil || len(now.Pools) == 0 {
		return hours, price
	}
	y, m, day := now.At.Date()
	// Until the end of this minute: the same question is answered with what was found before.
	q := cost.Query{By: cost.ByRunner, From: time.Date(y, m, day, 0, 0, 0, 0, now.At.Location()), To: now.At.Truncate(time.Minute).Add(time.Minute)}
	for _, p := range now.Pools {
		q.Runner = p.Pool
		report, err := s.options.Bills.Report(ctx, q)
		if err != nil {
			return hours, price
		}
		hours[p.Pool] = strconv.FormatFloat(report.Total.MachineHours, 'f', 1, 64)
		price[p.Pool] = view.Money(report.Total.Cost, report.Currency)
	}
	return hours, price
}
