package slurm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// Each line of the list begins with a mark and ends with another one, and a character that nobody has in a name as a rule is
// between the fields. Names are anybody's, though: Slurm takes lines and separators in them, and with those somebody could add
// lines of jobs that are not theirs. So the mark is another one each time. The name comes first: if a line is not whole, it
// tells whether that matters. The head line is asked for, since an empty list is to be told from no list.
const (
	between = "\x1f"
	mark    = "tranter-list"
	tail    = "."
)

// columns are what is asked for, as squeue's format has them and as the head line names them.
func columns() [][2]string {
	return [][2]string{
		{"%j", "NAME"},
		{"%i", "JOBID"},
		{"%T", "STATE"},
		{"%P", "PARTITION"},
		{"%N", "NODELIST"},
		{"%D", "NODES"},
		{"%C", "CPUS"},
		{"%V", "SUBMIT_TIME"},
		{"%S", "START_TIME"},
		{"%e", "END_TIME"},
		{"%r", "REASON"},
	}
}

func format(mark string) string {
	fields := []string{mark}
	for _, c := range columns() {
		fields = append(fields, c[0])
	}
	return strings.Join(append(fields, tail), between)
}

// List asks squeue, in one call, for all jobs that it knows: those of all partitions, and those that have ended a while ago.
// It says nothing of how they ended: Final does.
func (s *Scheduler) List(ctx context.Context, prefix string) ([]tranter.BatchJob, error) {
	this := mark + "-" + rand.Text()
	args := []string{"--all", "--states=all", "--format=" + format(this)}
	if !s.all {
		args = append(args, "--me")
	}
	out, err := s.client.Run(ctx, batch.Call{Name: "squeue", Args: args})
	if err != nil {
		return nil, fmt.Errorf("list batch jobs: %w", err)
	}
	jobs, err := parseList(out, this, prefix)
	if err != nil {
		return nil, fmt.Errorf("list batch jobs: what squeue prints is not to be relied on: %w", err)
	}
	return jobs, nil
}

// parseList reads squeue's list. Lines that are not of it, such as a greeting, are passed over. Jobs of others may be as
// they like, whatever their names are; a line that may be of one of ours and has no end makes all of it an error.
func parseList(out, mark, prefix string) (jobs []tranter.BatchJob, err error) {
	if out != "" && !strings.HasSuffix(out, "\n") {
		return nil, errors.New("the last line is not whole")
	}
	headed := false
	lines := strings.Split("\n"+strings.ReplaceAll(out, "\r\n", "\n"), "\n"+mark+between)
	for _, line := range lines[1:] {
		fields, ended := cells(line)
		whole := ended && len(fields) == len(columns())
		switch {
		case whole && isHead(fields):
			headed = true
		case foreign(fields, prefix), ended && odd(fields):
		case !whole:
			return nil, fmt.Errorf("a line is not whole: %q", line[:min(len(line), 200)])
		case !isID(plain(fields[1])):
			return nil, fmt.Errorf("%q is no id of a job", fields[1][:min(len(fields[1]), 40)])
		default:
			jobs = append(jobs, listed(fields))
		}
	}
	if !headed {
		return nil, errors.New("no list is in it")
	}
	return jobs, nil
}

// cells are the fields of a line, as far as it goes. ended says whether it has its end.
func cells(line string) (fields []string, ended bool) {
	text, _, ended := strings.Cut(line+"\n", between+tail+"\n")
	return strings.Split(text, between), ended
}

// odd says whether a line with an end is of a job with lines or separators in its name, which ours have not.
func odd(fields []string) bool {
	return len(fields) != len(columns()) || !jobName().MatchString(fields[0])
}

func isHead(fields []string) bool {
	for i, c := range columns() {
		if !strings.EqualFold(strings.TrimSpace(fields[i]), c[1]) {
			return false
		}
	}
	return true
}

// foreign says whether a line is not of a job of ours, as far as it goes. If it ends within the name, what is there of that may
// be the beginning of one of ours.
func foreign(fields []string, prefix string) bool {
	name, _, _ := strings.Cut(fields[0], "\n")
	return !strings.HasPrefix(name, prefix) && (len(fields) > 1 || !strings.HasPrefix(prefix, name))
}

// plain is an id without what belongs to arrays and to jobs of several parts, which ours are not.
func plain(id string) string {
	if i := strings.IndexAny(id, "_+"); i > 0 {
		return id[:i]
	}
	return id
}

func listed(fields []string) tranter.BatchJob {
	j := tranter.BatchJob{
		Name: fields[0], ID: plain(fields[1]), Native: fields[2], State: state(fields[2]), Queue: known(fields[3]), Nodes: known(fields[4]),
		Submitted: instant(fields[7]), Reason: known(fields[10]),
		Usage: tranter.Usage{Nodes: count(fields[5]), CPUs: count(fields[6])},
	}
	switch {
	case j.State == tranter.BatchQueued:
		j.Expected, j.Never, j.Usage = instant(fields[8]), never(j.Reason), tranter.Usage{}
	case j.State.Final():
		j.Started, j.Ended = instant(fields[8]), instant(fields[9])
	default:
		j.Started = instant(fields[8])
	}
	return j
}
