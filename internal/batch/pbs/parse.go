package pbs

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// empty says whether Slurm's qstat has found nothing: it has an exit code for that and no words.
func empty(err error) bool {
	const nothing = 153
	failed, ok := errors.AsType[*batch.CommandError](err)
	return ok && failed.ExitCode == nothing && failed.Said == ""
}

// attributes are those of one job, as qstat -f prints them.
type attributes map[string]string

// parse reads what qstat -f prints: for each job a line with its id, then its attributes. An attribute goes on in lines
// that begin with a tab, except with Slurm's qstat, where each is one such line. A job of which two are told has
// somebody's text in its variables that looks like one: nothing is believed of it.
func (d dialect) parse(out string) []tranter.BatchJob {
	var all []attributes
	var last string
	var value strings.Builder // of the last attribute, in as many pieces as it has lines
	flush := func() {
		if last != "" {
			all[len(all)-1][last] = value.String()
		}
		last = ""
		value.Reset()
	}
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		if id, ok := strings.CutPrefix(line, "Job Id:"); ok {
			flush()
			all = append(all, attributes{"id": strings.TrimSpace(id)})
			continue
		}
		if more, ok := strings.CutPrefix(line, "\t"); ok && d != wrapper && last != "" {
			value.WriteString(more)
			continue
		}
		name, text, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if ok && len(all) > 0 && attributeName().MatchString(name) {
			flush()
			last = name
			value.WriteString(text)
		}
	}
	flush()
	return d.jobs(all)
}

var attributeName = lazy.Regexp(`^[A-Za-z_][\w.]*$`)

func (d dialect) jobs(all []attributes) []tranter.BatchJob {
	var found []tranter.BatchJob
	index := map[string]int{}
	for _, a := range all {
		if !jobID().MatchString(a["id"]) || a["job_state"] == "" {
			continue
		}
		j := d.job(a)
		if i, twice := index[j.ID]; twice {
			found[i].State, found[i].Reason = tranter.BatchUnknown, "two jobs of this id are told of"
			continue
		}
		index[j.ID] = len(found)
		found = append(found, j)
	}
	return found
}

// job makes sense of a job's attributes.
func (d dialect) job(a attributes) tranter.BatchJob {
	j := tranter.BatchJob{
		ID: a["id"], Name: a.name(), Native: a["job_state"], Reason: a["comment"], Queue: a["queue"], Nodes: a["exec_host"],
		Submitted: instant(first(a["qtime"], a["ctime"])), Expected: instant(a["estimated.start_time"]),
		Started: instant(first(a["stime"], a["start_time"])), Usage: a.usage(),
	}
	if d == wrapper {
		j.Submitted, j.Started = instant(a["qtime"]), instant(a["mtime"])
	}
	switch j.Native {
	case "Q", "W", "T", "M":
		j.State = tranter.BatchQueued
		j.Never = strings.HasPrefix(j.Reason, "Can Never Run")
		j.Started = time.Time{}
	case "H":
		j.State, j.Never = tranter.BatchQueued, true
		j.Reason = strings.TrimSpace("held (" + a["Hold_Types"] + ") " + j.Reason)
		j.Started = time.Time{}
	case "R", "E", "S", "B":
		j.State = tranter.BatchRunning
	case "C", "F", "X":
		d.end(&j, a)
	case "U":
		j.State = tranter.BatchRunning // suspended, as the owner of a workstation is back
		if d == wrapper {
			j.State = tranter.BatchUnknown
		}
	default:
		j.State = tranter.BatchUnknown
	}
	return j
}

// name is the job's full name.
func (a attributes) name() string {
	for v := range strings.SplitSeq(a["Variable_List"], ",") {
		if name, ok := strings.CutPrefix(v, nameVariable+"="); ok && jobName().MatchString(name) {
			return name
		}
	}
	return a["Job_Name"]
}

// Exit codes by which PBS tells why it has ended a job itself.
const (
	openPBSMemory, openPBSVirtual, openPBSTime, openPBSWalltime = -27, -26, -28, -29
	torqueMemory, torqueWalltime, torqueTime                    = -10, -11, -12
	// signalled is added to a signal.
	signalled  = 256
	terminated = 15
	// deleted is the substate of jobs of OpenPBS that were ended before they did so themselves.
	deleted = "91"
)

// end says how a job has ended.
func (d dialect) end(j *tranter.BatchJob, a attributes) {
	j.Ended = instant(first(a["obittime"], a["comp_time"], a["mtime"]))
	if d == wrapper {
		j.Ended = instant(a["ctime"])
	}
	text := first(a["Exit_status"], a["exit_status"])
	code, err := strconv.Atoi(text)
	switch {
	case err != nil && (d == wrapper || !j.Started.IsZero()):
		j.State, j.Reason = tranter.BatchCompleted, strings.TrimSpace("how it ended is not told "+j.Reason)
	case err != nil:
		j.State = tranter.BatchCancelled // before it has started
	case code == 0:
		j.State = tranter.BatchCompleted
	case code >= signalled:
		j.Signal = code - signalled
		j.State = a.killed(j.Signal)
	case code > 0:
		j.State, j.ExitCode = tranter.BatchFailed, code
	default:
		j.State, j.ExitCode = d.special(code), code
		j.Reason = strings.TrimSpace("exit status " + text + " of PBS itself " + j.Reason)
	}
	if j.State != tranter.BatchCompleted && nodeWords().MatchString(j.Reason) {
		j.State = tranter.BatchNodeLost
	}
}

// killed says how a job stands that a signal has ended.
func (a attributes) killed(signal int) tranter.BatchState {
	switch {
	case a.late():
		return tranter.BatchTimedOut
	case a["substate"] == deleted, a["substate"] == "" && signal == terminated: // of all ways the likeliest
		return tranter.BatchCancelled
	default:
		return tranter.BatchFailed
	}
}

var nodeWords = lazy.Regexp(`(?i)\bnode[^.]*\b(down|failed|failure|lost|rebooted)\b`)

// special is what an exit code means by which PBS tells why it has ended a job.
func (d dialect) special(code int) tranter.BatchState {
	switch {
	case d == openPBS && (code == openPBSMemory || code == openPBSVirtual), d == torque && code == torqueMemory:
		return tranter.BatchOutOfMemory
	case d == openPBS && (code == openPBSTime || code == openPBSWalltime), d == torque && (code == torqueWalltime || code == torqueTime):
		return tranter.BatchTimedOut
	default:
		return tranter.BatchFailed
	}
}

// late says whether a job has used its walltime up.
func (a attributes) late() bool {
	used, ok := seconds(a["resources_used.walltime"])
	most, limited := seconds(a["Resource_List.walltime"])
	return ok && limited && used >= most
}

func (a attributes) usage() tranter.Usage {
	var u tranter.Usage
	u.CPUs, _ = strconv.Atoi(first(a["resources_used.ncpus"], a["Resource_List.ncpus"]))
	u.Nodes, _ = strconv.Atoi(a["Resource_List.nodect"])
	u.MaxMemory = size(a["resources_used.mem"])
	cpus := time.Duration(max(1, u.CPUs))
	if wall, ok := seconds(a["resources_used.walltime"]); ok && wall < math.MaxInt64/cpus {
		u.CPUTime = wall * cpus
	}
	return u
}

// instant reads a time, as PBS writes it: without a zone, as at the server, or as seconds.
func instant(text string) time.Time {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return time.Unix(n, 0)
	}
	t, err := time.ParseInLocation(time.ANSIC, text, time.Local) //nolint:gosmopolitan // the server is taken to be where we are
	if err != nil || t.Unix() <= 0 {
		return time.Time{}
	}
	return t
}

// seconds reads a length of time, HH:MM:SS or less of it.
func seconds(text string) (time.Duration, bool) {
	total := int64(0)
	for field := range strings.SplitSeq(text, ":") {
		n, err := strconv.ParseInt(field, 10, 32)
		if err != nil || n < 0 {
			return 0, false
		}
		total = total*60 + n
	}
	const most = 1 << 33 // 272 years
	if total > most {
		return 0, false
	}
	return time.Duration(total) * time.Second, true
}

// size reads an amount of memory.
func size(text string) int64 {
	digits := strings.TrimRight(text, "kmgtbw")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	factor := map[string]int64{"b": 1, "": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}[text[len(digits):]]
	if factor == 0 || n > (1<<62)/factor {
		return 0
	}
	return n * factor
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
