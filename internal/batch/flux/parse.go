package flux

import (
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// jobID is the number of a job.
type jobID uint64

const digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// String is the id as Flux's commands take it, whatever the terminal: f and the number to the base of 58.
func (id jobID) String() string {
	var text []byte
	for n := id; ; n /= 58 {
		text = append([]byte{digits[n%58]}, text...)
		if n < 58 {
			return "f" + string(text)
		}
	}
}

// parseID reads an id: decimal, or to the base of 58 with ƒ or f in front.
func parseID(text string) (jobID, bool) {
	coded, ok := strings.CutPrefix(text, "ƒ")
	if !ok {
		coded, ok = strings.CutPrefix(text, "f")
	}
	if !ok {
		n, err := strconv.ParseUint(text, 10, 64)
		return jobID(n), err == nil && decimal().MatchString(text)
	}
	if coded == "" {
		return 0, false
	}
	var n uint64
	for _, r := range coded {
		i := strings.IndexRune(digits, r)
		high, low := bits.Mul64(n, uint64(len(digits)))
		if i < 0 || high != 0 || low > math.MaxUint64-uint64(i) {
			return 0, false
		}
		n = low + uint64(i)
	}
	return jobID(n), true
}

var decimal = lazy.Regexp(`^[0-9]+$`)

// The columns that flux jobs prints. Those in which people may have written come last.
const (
	columnID = iota
	columnState
	columnResult
	columnCode
	columnUrgency
	columnCores
	columnNodes
	columnSubmitted
	columnStarted
	columnEnded
	columnQueue
	columnHosts
	columnException
	columnName
	columnNote
	columns
)

func format() string {
	return "{id.dec}|{state}|{result}|{returncode}|{urgency}|{ncores}|{nnodes}|{t_submit}|{t_run}|{t_cleanup}|{queue}|{nodelist}|{exception.type}|{name}|{exception.note}"
}

// parse reads what flux jobs prints. Lines that are none of jobs are passed over; of a job of which two are told nothing is
// believed.
func parse(out string) []tranter.BatchJob {
	var found []tranter.BatchJob
	index := map[string]int{}
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), "|")
		if len(fields) < columns || !decimal().MatchString(fields[columnID]) {
			continue
		}
		id, ok := parseID(fields[columnID])
		if !ok {
			continue
		}
		j := job(fields)
		j.ID = id.String()
		if i, twice := index[j.ID]; twice {
			found[i].State, found[i].Reason = tranter.BatchUnknown, "two jobs of this id are told of"
			continue
		}
		index[j.ID] = len(found)
		found = append(found, j)
	}
	return found
}

func job(fields []string) tranter.BatchJob {
	j := tranter.BatchJob{
		Name: fields[columnName], Native: fields[columnState], Queue: fields[columnQueue], Nodes: fields[columnHosts], Reason: strings.Join(fields[columnNote:], "|"),
		Submitted: instant(fields[columnSubmitted]), Started: instant(fields[columnStarted]),
	}
	switch j.Native {
	case "DEPEND", "PRIORITY", "SCHED", "NEW":
		j.State = tranter.BatchQueued
		if fields[columnUrgency] == "0" {
			j.Never, j.Reason = true, strings.TrimSpace("held: its urgency is 0 "+j.Reason)
		}
	case "RUN", "CLEANUP":
		j.State = tranter.BatchRunning
	case "INACTIVE":
		j.Ended = instant(fields[columnEnded])
		end(&j, fields)
	default:
		j.State = tranter.BatchUnknown
	}
	j.Usage.CPUs, _ = strconv.Atoi(fields[columnCores])
	j.Usage.Nodes, _ = strconv.Atoi(fields[columnNodes])
	cpus := time.Duration(max(1, j.Usage.CPUs))
	if took := j.Ended.Sub(j.Started); !j.Started.IsZero() && took > 0 && took < math.MaxInt64/cpus {
		j.Usage.CPUTime = took * cpus
	}
	return j
}

// end says how a job has ended.
func end(j *tranter.BatchJob, fields []string) {
	if code, err := strconv.ParseInt(fields[columnCode], 10, 16); err == nil && code >= 0 {
		j.ExitCode = int(code)
	} else if err == nil {
		j.Signal = int(-code)
	}
	lost := lostWords().MatchString(j.Reason)
	switch result := fields[columnResult]; {
	case result == "COMPLETED":
		j.State = tranter.BatchCompleted
	case result == "TIMEOUT":
		j.State = tranter.BatchTimedOut
	case fields[columnException] == "exec" && lost, fields[columnException] == "node-failure":
		j.State = tranter.BatchNodeLost
	case result == "CANCELED" && preemptWords().MatchString(j.Reason):
		j.State = tranter.BatchPreempted
	case result == "CANCELED":
		j.State = tranter.BatchCancelled
	default:
		j.State = tranter.BatchFailed
	}
}

var (
	lostWords    = lazy.Regexp(`(?i)lost contact|node failure|terminated|unreachable|went offline|broker.*lost`)
	preemptWords = lazy.Regexp(`(?i)preempt`)
)

// instant reads seconds since 1970, with a fraction.
func instant(text string) time.Time {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n > 0) || n > 1<<40 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n * 1000))
}
