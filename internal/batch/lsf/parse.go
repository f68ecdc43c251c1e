package lsf

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// saysOf says whether a command has failed with words that match.
func saysOf(err error, words *regexp.Regexp) bool {
	failed, ok := errors.AsType[*batch.CommandError](err)
	if !ok || failed.ExitCode <= 0 || failed.ExitCode == commandMissing || failed.ExitCode == notRunnable {
		return false
	}
	return words.MatchString(strings.ToLower(failed.Said))
}

// refusal tells why a job was not accepted. Whoever does not answer has not refused: then the error is as it was.
func refusal(err error) error {
	switch {
	case saysOf(err, awayWords()):
		return err
	case saysOf(err, fullWords()):
		return fmt.Errorf("%w: %w", tranter.ErrNoCapacity, err)
	case saysOf(err, wrongWords()):
		return fmt.Errorf("%w: %w", tranter.ErrRejected, err)
	default:
		return err
	}
}

// The columns that bjobs prints. Those in which people may have written come last.
const (
	columnID = iota
	columnState
	columnQueue
	columnExit
	columnSlots
	columnHosts
	columnSubmitted
	columnStarted
	columnFinished
	columnRun
	columnMemory
	columnNodes
	columnName
	columnWhy
	columnPending
	columns
)

// format has room for all that matters: bjobs cuts off what is longer.
func format() string {
	return "jobid:20 stat:8 queue:100 exit_code:8 slots:10 nexec_host:10 submit_time:30 start_time:30 finish_time:30 run_time:30 max_mem:30 " +
		"exec_host:2000 job_name:300 exit_reason:300 pend_reason:500 delimiter='|'"
}

// parse reads what bjobs prints. Lines that are none of jobs are passed over; of a job of which two are told nothing is
// believed.
func parse(out string, now time.Time) []tranter.BatchJob {
	var found []tranter.BatchJob
	index := map[string]int{}
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), "|")
		for i := range fields {
			if fields[i] = strings.TrimSpace(fields[i]); fields[i] == "-" {
				fields[i] = ""
			}
		}
		if len(fields) < columns || !jobID().MatchString(fields[columnID]) {
			continue
		}
		j := job(fields, now)
		if i, twice := index[j.ID]; twice {
			found[i].State, found[i].Reason = tranter.BatchUnknown, "two jobs of this id are told of"
			continue
		}
		index[j.ID] = len(found)
		found = append(found, j)
	}
	return found
}

func job(fields []string, now time.Time) tranter.BatchJob {
	j := tranter.BatchJob{
		ID: fields[columnID], Name: fields[columnName], Native: fields[columnState], Queue: fields[columnQueue], Nodes: fields[columnNodes],
		Submitted: instant(fields[columnSubmitted], now),
	}
	start := instant(fields[columnStarted], now)
	switch j.Native {
	case "PEND", "PSUSP", "WAIT":
		j.State, j.Reason, j.Expected = tranter.BatchQueued, fields[columnPending], start
		if j.Native == "PSUSP" {
			j.Never, j.Reason = true, strings.TrimSpace("held "+j.Reason)
		}
	case "RUN", "PROV", "USUSP", "SSUSP":
		j.State, j.Started = tranter.BatchRunning, start
	case "DONE", "EXIT":
		j.Started, j.Ended = start, instant(fields[columnFinished], now)
		end(&j, fields)
	case "ZOMBI":
		j.State, j.Reason = tranter.BatchNodeLost, "its host can't be reached, and it was killed"
	default: // UNKWN: its host can't be reached
		j.State = tranter.BatchUnknown
	}
	j.Usage = usage(fields)
	return j
}

// end says how a job has ended. An exit code above 128 is what LSF makes of a signal.
func end(j *tranter.BatchJob, fields []string) {
	j.Reason = fields[columnWhy]
	if j.Native == "DONE" {
		j.State = tranter.BatchCompleted
		return
	}
	j.ExitCode, _ = strconv.Atoi(fields[columnExit])
	j.State = tranter.BatchFailed
	for _, r := range []struct {
		words func() *regexp.Regexp
		state tranter.BatchState
	}{
		{lateWords, tranter.BatchTimedOut}, {memoryWords, tranter.BatchOutOfMemory}, {preemptedWords, tranter.BatchPreempted}, {lostWords, tranter.BatchNodeLost}, {cancelWords, tranter.BatchCancelled},
	} {
		if r.words().MatchString(j.Reason) {
			j.State = r.state
			return
		}
	}
	if j.Started.IsZero() {
		j.State = tranter.BatchCancelled // by a release that does not say so
	}
}

// Reasons for which LSF has ended a job.
var (
	lateWords      = lazy.Regexp(`TERM_(RUNLIMIT|CPULIMIT|DEADLINE|WINDOW)`)
	memoryWords    = lazy.Regexp(`TERM_(MEMLIMIT|SWAP)`)
	preemptedWords = lazy.Regexp(`TERM_(PREEMPT|REQUEUE_OWNER|REQUEUE_ADMIN|LOAD|RC_RECLAIM)`)
	lostWords      = lazy.Regexp(`TERM_(ZOMBIE|RMS|EXECUTION_HOST|RC_)`)
	cancelWords    = lazy.Regexp(`TERM_(OWNER|ADMIN|FORCE_OWNER|FORCE_ADMIN|CWD_NOTEXIST|REMOVE_HUNG_JOB|ORPHAN_SYSTEM|BUCKET_KILL)`)
)

func usage(fields []string) tranter.Usage {
	var u tranter.Usage
	u.CPUs, _ = strconv.Atoi(fields[columnSlots])
	u.Nodes, _ = strconv.Atoi(fields[columnHosts])
	if text, ok := strings.CutSuffix(fields[columnRun], " second(s)"); ok {
		cpus := time.Duration(max(1, u.CPUs))
		if n, err := strconv.ParseInt(text, 10, 32); err == nil && n > 0 && time.Duration(n)*time.Second < math.MaxInt64/cpus {
			u.CPUTime = time.Duration(n) * time.Second * cpus
		}
	}
	u.MaxMemory = size(fields[columnMemory])
	return u
}

// size reads an amount of memory such as "12 Mbytes" or "1.5 Gbytes".
func size(text string) int64 {
	number, unit, _ := strings.Cut(text, " ")
	n, err := strconv.ParseFloat(number, 64)
	factor := map[string]float64{"bytes": 1, "Kbytes": 1 << 10, "Mbytes": 1 << 20, "Gbytes": 1 << 30, "Tbytes": 1 << 40}[unit]
	if err != nil || n != n || n < 0 || n*factor > 1<<60 {
		return 0
	}
	return int64(n * factor)
}

// instant reads a time of bjobs, which has no year and no zone, and behind it perhaps a letter that says what kind of
// estimate it is.
func instant(text string, now time.Time) time.Time {
	text = strings.TrimRight(text, " LEX")
	for _, layout := range []string{"Jan _2 15:04", "Jan _2 15:04:05 2006", "Jan _2 15:04 2006"} {
		t, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		if t.Year() > 0 {
			return t
		}
		t = t.AddDate(now.Year(), 0, 0)
		const half = 183 * 24 * time.Hour
		switch { // a turn of the year lies between
		case t.Sub(now) > half:
			t = t.AddDate(-1, 0, 0)
		case now.Sub(t) > half:
			t = t.AddDate(1, 0, 0)
		}
		return t
	}
	return time.Time{}
}
