package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/web"
)

// TestTracesThatCannotBeSentAreAMistakeOfTheConfiguration needs what was opened before to be closed in order.
func TestTracesThatCannotBeSentAreAMistakeOfTheConfiguration(t *testing.T) {
	c := config.Default()
	c.Tracing.Endpoint, c.Tracing.CAFile = "https://127.0.0.1:1", "missing.pem"
	dir := t.TempDir()
	_, err := openOutlook(t.Context(), places{state: dir, config: dir, systemID: "s_test"}, c, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "tracing.ca_file") || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("it said %v", err)
	}
}

// slowBills takes its time for a report.
type slowBills struct {
	web.Bills

	asked int
}

// Report implements web.Bills.
func (b *slowBills) Report(ctx context.Context, _ cost.Query) (cost.Report, error) {
	b.asked++
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Second):
	}
	return cost.Report{}, ctx.Err()
}

// TestCostsThatTakeLongToWorkOutAreWorkedOutSeldom holds for a manager of many jobs, which would be busy with that otherwise.
func TestCostsThatTakeLongToWorkOutAreWorkedOutSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObservatory(&store.History{}, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		var bills slowBills
		o.reckon(ctx, &bills)
		if bills.asked < 2 || bills.asked > 12 {
			t.Errorf("in an hour %d reports were made of 2 s each", bills.asked)
		}
	})
}

// totalBills is a report whose total has idle machines in it, as all have.
type totalBills struct{ web.Bills }

// Report implements web.Bills.
func (totalBills) Report(context.Context, cost.Query) (cost.Report, error) {
	return cost.Report{Currency: "EUR", Total: cost.Line{Cost: 5}, Idle: cost.Line{Cost: 2}}, nil
}

func TestIdleMachinesCountOnceInWhatTodayHasCost(t *testing.T) {
	o := newObservatory(&store.History{}, slog.New(slog.DiscardHandler))
	o.addUp(t.Context(), totalBills{}, time.Now())
	if o.bill.Today != 5 || o.bill.Month != 5 || !o.bill.Priced {
		t.Errorf("%+v", o.bill)
	}
}

func TestAQueueIsEmptyOnceGitLabHasNoJob(t *testing.T) {
	o := newObservatory(nil, slog.New(slog.DiscardHandler))
	o.emptied("t1") // of which nothing was told
	if q := o.queue("t1"); q != nil {
		t.Errorf("a queue is told: %+v", q)
	}
	past := &tranter.JobHistory{Runner: "t1", Job: tranter.JobLabel{Queue: tranter.JobQueue{Size: 4, Depth: 1}}}
	o.publish(tranter.Event{Kind: tranter.JobTaken, Past: past})
	if q := o.queue("t1"); q == nil || q.Jobs != 3 {
		t.Errorf("the job that was taken waits too: %+v", q)
	}
	o.emptied("t1")
	if q := o.queue("t1"); q == nil || q.Jobs != 0 {
		t.Errorf("%+v", q)
	}
}

// pausedBy is a manager that notes by whom a runner was paused.
type pausedBy struct {
	directed

	by string
}

// Status implements directed.
func (p *pausedBy) Status() manager.Status {
	return manager.Status{Runners: []manager.RunnerStatus{{Runner: "t1", Name: "one"}}}
}

// Pause implements directed.
func (p *pausedBy) Pause(_, by string) error {
	p.by = by
	return nil
}

func TestAPauseIsToldInTheSameWordsAfterARestart(t *testing.T) {
	history, err := store.OpenHistory(t.Context(), filepath.Join(t.TempDir(), historyFile))
	if err != nil {
		t.Fatal(err)
	}
	defer history.Close()
	var m pausedBy
	o := &operator{manager: &m, history: history}
	if err := o.Pause(t.Context(), "one", true, "ada"); err != nil {
		t.Fatal(err)
	}
	kept, err := history.Paused(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{m.by, kept["t1"]} { // a minute may begin meanwhile
		if words := regexp.MustCompile(`\d+`).ReplaceAllString(text, "N"); words != "since N-N-N N:N UTC by ada" {
			t.Errorf("it is paused %q", text)
		}
	}
}
