package slurm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// accounted are the columns of sacct; the file that sacct -c reads knows nothing of the last two. Names are not among them: a
// user may put lines into the name of a running job, and would tell with those how the jobs of others have ended.
const (
	accounted   = "JobID,State,ExitCode,Partition,NodeList,Submit,Start,End,AllocNodes,AllocCPUS"
	accountedDB = accounted + ",CPUTimeRAW,MaxRSS"
)

// Final asks the accounting storage, then the controller, which remembers ended jobs for some minutes, then the file of ended
// jobs. What one of them does not know, or not as ended, the next one is asked for. It is an error only if a job is not found
// and one of them could not be asked.
func (s *Scheduler) Final(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	if i := slices.IndexFunc(ids, func(id string) bool { return !isID(id) }); i >= 0 {
		return nil, fmt.Errorf("ask for ended batch jobs: %q is no id of a job", ids[i])
	}
	known := ends{}
	var wrong []error
	for _, ask := range []func(context.Context, []string) ([]tranter.BatchJob, error){s.stored, s.remembered, s.filed} {
		left := known.missing(ids)
		if len(left) == 0 {
			break
		}
		jobs, err := ask(ctx, left)
		wrong = append(wrong, err)
		known.learn(jobs)
	}
	if err := errors.Join(wrong...); err != nil && len(known.missing(ids)) > 0 {
		return nil, fmt.Errorf("ask for ended batch jobs: %w", err)
	}
	return known.of(ids), nil
}

// ends is what is known of jobs, by id.
type ends map[string]tranter.BatchJob

// missing are the jobs of which no end is known.
func (e ends) missing(ids []string) (left []string) {
	for _, id := range ids {
		if j, ok := e[id]; !ok || !j.State.Final() {
			left = append(left, id)
		}
	}
	return left
}

// learn adds what one of the sources says: an end counts more than what is not one.
func (e ends) learn(jobs []tranter.BatchJob) {
	for _, j := range jobs {
		if before, ok := e[j.ID]; !ok || j.State.Final() || !before.State.Final() {
			e[j.ID] = j
		}
	}
}

// of is what is known of the given jobs, each once.
func (e ends) of(ids []string) []tranter.BatchJob {
	jobs, told := make([]tranter.BatchJob, 0, len(e)), map[string]bool{}
	for _, id := range ids {
		if j, ok := e[id]; ok && !told[id] {
			jobs = append(jobs, j)
			told[id] = true
		}
	}
	return jobs
}

// stored asks the accounting storage, if there is one. The steps are asked for too: they have the memory.
func (s *Scheduler) stored(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	jobs, err := s.sacct(ctx, ids, accountedDB)
	if err != nil && noStorage(err) {
		return nil, nil
	}
	return jobs, err
}

// filed asks for the file of ended jobs, if there is one.
func (s *Scheduler) filed(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	jobs, err := s.sacct(ctx, ids, accounted, "--completion")
	if _, failed := errors.AsType[*batch.CommandError](err); failed && ctx.Err() == nil {
		s.log.Debug("no file of ended batch jobs", "error", err)
		return nil, nil
	}
	return jobs, err
}

// noStorage says whether a cluster keeps no accounts.
func noStorage(err error) bool {
	failed, ok := errors.AsType[*batch.CommandError](err)
	return ok && strings.Contains(strings.ToLower(failed.Said), "accounting storage is disabled")
}

func (s *Scheduler) sacct(ctx context.Context, ids []string, format string, more ...string) (all []tranter.BatchJob, err error) {
	const most = 500 // ids in one command
	for some := range slices.Chunk(ids, most) {
		args := append([]string{"--noheader", "--parsable2", "--jobs=" + strings.Join(some, ","), "--format=" + format}, more...)
		out, err := s.client.Run(ctx, batch.Call{Name: "sacct", Args: args})
		if err != nil {
			return all, err
		}
		jobs, err := parseAccounts(out, strings.Count(format, ",")+1)
		if err != nil {
			return all, fmt.Errorf("sacct: %w", err)
		}
		all = append(all, jobs...)
	}
	return all, nil
}

// parseAccounts reads what sacct prints: a line for each job, and after it one for each of its steps. Of several lines of one
// job, which it has if it was started again, the last one counts.
func parseAccounts(out string, columns int) ([]tranter.BatchJob, error) {
	if out != "" && !strings.HasSuffix(out, "\n") {
		return nil, errors.New("the last line is not whole")
	}
	var order []string
	jobs := map[string]tranter.BatchJob{}
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), "|")
		id, _, step := strings.Cut(fields[0], ".")
		if !isID(id) {
			continue // a greeting
		}
		if len(fields) != columns {
			return nil, fmt.Errorf("a line is not whole: %q", line[:min(len(line), 200)])
		}
		j, seen := jobs[id]
		switch {
		case step && seen:
			j.Usage.MaxMemory = max(j.Usage.MaxMemory, memory(fields))
		case step:
			continue
		default:
			if !seen {
				order = append(order, id)
			}
			j = account(fields)
		}
		jobs[id] = j
	}
	list := make([]tranter.BatchJob, 0, len(order))
	for _, id := range order {
		list = append(list, jobs[id])
	}
	return list, nil
}

// withMemory is how many columns there are if the memory is one of them.
const withMemory = 12

func memory(fields []string) int64 {
	if len(fields) < withMemory {
		return 0
	}
	return size(fields[withMemory-1])
}

func account(fields []string) tranter.BatchJob {
	j := tranter.BatchJob{
		ID: fields[0], Native: fields[1], State: state(fields[1]), Queue: known(fields[3]), Nodes: known(fields[4]),
		Submitted: instant(fields[5]), Started: instant(fields[6]), Ended: instant(fields[7]),
		Usage: tranter.Usage{Nodes: nodes(fields[8]), CPUs: count(fields[9]), MaxMemory: memory(fields)},
	}
	j.ExitCode, j.Signal = exit(fields[2])
	if len(fields) >= withMemory {
		j.Usage.CPUTime = time.Duration(count(fields[10])) * time.Second
	}
	return ended(j)
}

// nodes is a number of nodes; in a file of ended jobs it may be a number that means none.
func nodes(text string) int {
	n := count(text)
	if n > 1<<24 {
		return 0
	}
	return n
}

// ended completes what is to be said of a job that has ended, and takes away what is not.
func ended(j tranter.BatchJob) tranter.BatchJob {
	if !j.State.Final() {
		j.Ended, j.ExitCode, j.Signal = time.Time{}, 0, 0
		return j
	}
	if j.Started.IsZero() || j.Ended.Before(j.Started) {
		j.Usage = tranter.Usage{} // it never ran
		return j
	}
	const plausible = 10 * 365 * 24 * time.Hour
	if ran := j.Ended.Sub(j.Started); j.Usage.CPUTime == 0 && ran < plausible && j.Usage.CPUs < 1<<20 {
		j.Usage.CPUTime = min(ran, math.MaxInt64/time.Duration(j.Usage.CPUs+1)) * time.Duration(j.Usage.CPUs)
	}
	return j
}

// remembered asks the controller, which takes one id at a time.
func (s *Scheduler) remembered(ctx context.Context, ids []string) (jobs []tranter.BatchJob, err error) {
	for _, id := range ids {
		out, err := s.client.Run(ctx, batch.Call{Name: "scontrol", Args: []string{"--oneliner", "show", "job", id}})
		if failed, ok := errors.AsType[*batch.CommandError](err); ok && strings.Contains(strings.ToLower(failed.Said), "invalid job id") {
			continue
		}
		if err != nil {
			return jobs, err
		}
		for line := range strings.Lines(out) {
			if j, ok := parseShow(line); ok && j.ID == id {
				jobs = append(jobs, j)
			}
		}
	}
	return jobs, nil
}

// parseShow reads a line of scontrol -o show job. A key that comes twice counts where it comes first: what people can write,
// such as a comment, stands at the end, and names are ours.
func parseShow(line string) (tranter.BatchJob, bool) {
	values := map[string]string{}
	for word := range strings.FieldsSeq(line) {
		key, value, ok := strings.Cut(word, "=")
		if _, before := values[key]; ok && !before {
			values[key] = value
		}
	}
	if !isID(values["JobId"]) || values["JobState"] == "" {
		return tranter.BatchJob{}, false
	}
	j := tranter.BatchJob{
		ID: values["JobId"], Name: values["JobName"], Native: values["JobState"], State: state(values["JobState"]),
		Reason: known(values["Reason"]), Queue: known(values["Partition"]), Nodes: known(values["NodeList"]),
		Submitted: instant(values["SubmitTime"]), Started: instant(values["StartTime"]), Ended: instant(values["EndTime"]),
		Usage: tranter.Usage{Nodes: nodes(values["NumNodes"]), CPUs: count(values["NumCPUs"])},
	}
	j.ExitCode, j.Signal = exit(values["ExitCode"])
	if j.State == tranter.BatchQueued {
		j.Expected, j.Started, j.Never = j.Started, time.Time{}, never(j.Reason)
	}
	return ended(j), true
}
