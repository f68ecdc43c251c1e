//go:build unix

package pbs_test

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/batch/pretend"
)

func TestMain(m *testing.M) {
	pretend.Main(commands())
	os.Exit(m.Run())
}

// commands are PBS's, as OpenPBS 23 has them, and as Torque 4 if FAKE_TORQUE is set.
func commands() map[string]pretend.Command {
	return map[string]pretend.Command{"qsub": qsub, "qstat": qstat, "qselect": qselect, "qdel": qdel}
}

func isTorque() bool { return os.Getenv("FAKE_TORQUE") != "" }

// say writes to standard error and returns an exit code.
func say(code int, format string, args ...any) int {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	return code
}

func qsub(c *pretend.Cluster, args []string) int {
	if slices.Equal(args, []string{"--version"}) {
		if isTorque() {
			return say(0, "Version: 4.2.10\nCommit: abc")
		}
		fmt.Println("pbs_version = 23.06.06")
		return 0
	}
	script, _ := io.ReadAll(os.Stdin)
	cwd, _ := os.Getwd()
	j := pretend.Job{Argv: []string{"/bin/sh"}, Script: string(script), Queue: "workq", Dir: "/", Words: map[string]string{"args": strings.Join(args, " ")}}
	for i := 0; i < len(args); i++ {
		if args[i] == "-h" {
			j.Held = true
			continue
		}
		if i++; i == len(args) {
			return say(2, "usage: qsub [-a date_time] ...")
		}
		switch value := args[i]; args[i-1] {
		case "-N":
			j.Name = value
		case "-o":
			j.Output = value
		case "-q":
			j.Queue = value
		case "-S":
			j.Argv = []string{value}
		case "-v":
			j.Words["variables"] = value
		case "-d":
			if !isTorque() {
				return say(2, "qsub: invalid option -- 'd'")
			}
			j.Dir = value
		case "-l":
			if wall, ok := strings.CutPrefix(value, "walltime="); ok {
				j.Words["walltime"] = wall
			}
			if strings.Contains(value, "ncpus=9999") {
				return say(188, "qsub: Job violates queue and/or server resource limits")
			}
		}
	}
	switch {
	case isTorque() && len(j.Name) > 15:
		return say(2, "qsub: illegal -N value")
	case j.Queue == "nowhere":
		return say(170, "qsub: Unknown queue")
	case j.Queue == "full":
		return say(135, "qsub: would exceed queue generic's per-user limit of jobs in 'Q' state")
	case j.Queue == "away":
		return say(111, "Connection refused\nqsub: cannot connect to server head (errno=111)")
	case j.Queue == "odd":
		fmt.Println("welcome")
		return 0
	case j.Queue == "slow": // a walltime of moments
		j.Walltime = 300 * time.Millisecond
	}
	// The id is known to the job by its number: it is the next one.
	j.Env = []string{"PBS_O_WORKDIR=" + cwd}
	j.Script = "PBS_JOBID=$(basename $(dirname $0)).head; export PBS_JOBID\n" + j.Script
	id, err := c.Submit(j)
	if err != nil {
		return say(1, "qsub: %v", err)
	}
	fmt.Printf("%d.head\n", id)
	return 0
}

func qselect(c *pretend.Cluster, args []string) int {
	if len(args) != 2 || args[0] != "-u" {
		return say(2, "usage: qselect ...")
	}
	for _, j := range c.Jobs() {
		if !j.Over() {
			fmt.Printf("%d.head\n", j.ID)
		}
	}
	return 0
}

func qdel(c *pretend.Cluster, ids []string) (code int) {
	for _, id := range ids {
		number, _, _ := strings.Cut(id, ".")
		n, _ := strconv.Atoi(number)
		if err := c.Cancel(n); err == nil {
			continue
		}
		switch _, known := c.Job(n); {
		case !known:
			code = say(153, "qdel: Unknown Job Id %s", id)
		case isTorque():
			code = say(170, "qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE %s", id)
		default:
			code = say(35, "qdel: Job has finished %s", id)
		}
	}
	return code
}

func qstat(c *pretend.Cluster, args []string) (code int) {
	history, full := isTorque(), false
	var ids []string
	for _, a := range args {
		switch a {
		case "-x":
			history = true
		case "-f":
			full = true
		default:
			ids = append(ids, a)
		}
	}
	if !full {
		return say(2, "usage: qstat")
	}
	jobs := c.Jobs()
	if len(ids) > 0 {
		jobs = nil
	}
	for _, id := range ids {
		number, _, _ := strings.Cut(id, ".")
		n, _ := strconv.Atoi(number)
		j, ok := c.Job(n)
		switch {
		case !ok:
			code = say(153, "qstat: Unknown Job Id %s", id)
		case j.Over() && !history:
			code = say(35, "qstat: %s Job has finished, use -x or -H to obtain historical job information", id)
		default:
			jobs = append(jobs, j)
		}
	}
	for _, j := range jobs {
		if !j.Over() || history {
			show(j)
		}
	}
	return code
}

// show prints a job as qstat -f does.
func show(j pretend.Job) {
	state, substate, exit, comment := "R", "42", "", "Job run at Sun Mar 01 at 10:00 on (n1:ncpus=1)"
	switch {
	case j.Over() && isTorque():
		state, substate = "C", ""
	case j.Over() && j.Cancelled:
		state, substate, comment = "F", "91", "Job run at Sun Mar 01 at 10:00 on (n1:ncpus=1) and terminated"
	case j.Over():
		state, substate, comment = "F", "92", "Job run at Sun Mar 01 at 10:00 on (n1:ncpus=1) and finished"
	case j.Held:
		state, substate, comment = "H", "20", "Job held by "+me()
	case j.Waits():
		state, substate, comment = "Q", "10", "Not Running: Not enough free nodes available"
	}
	if j.Over() && !j.Started.IsZero() {
		exit = strconv.Itoa(j.ExitCode)
		switch {
		case j.TimedOut && !isTorque():
			exit = "-29"
		case j.TimedOut:
			exit = "-11"
		case j.Cancelled:
			exit = "271"
		case j.Signal != 0:
			exit = strconv.Itoa(256 + j.Signal)
		}
	}
	fmt.Printf("Job Id: %d.head\n", j.ID)
	exitName := "Exit_status"
	if isTorque() {
		exitName = "exit_status"
	}
	hold := "n"
	if j.Held {
		hold = "u"
	}
	for _, a := range [][2]string{
		{"Job_Name", j.Name},
		{"Job_Owner", me() + "@head"},
		{"resources_used.ncpus", "1"},
		{"resources_used.mem", "1988kb"},
		{"job_state", state},
		{"queue", j.Queue},
		{"server", "head"},
		{"ctime", stamp(j.Submitted)},
		{"exec_host", "n1/0"},
		{"Hold_Types", hold},
		{"mtime", stamp(j.Ended)},
		{"Output_Path", "head:" + j.Output},
		{"qtime", stamp(j.Submitted)},
		{"Rerunable", "False"},
		{"Resource_List.ncpus", "1"},
		{"Resource_List.nodect", "1"},
		{"Resource_List.walltime", j.Words["walltime"]},
		{"stime", stamp(j.Started)},
		{"substate", substate},
		{"Variable_List", "PBS_O_HOME=/root,PBS_O_LANG=en_US.UTF-8,PBS_O_LOGNAME=root,PBS_O_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin," + j.Words["variables"] + ",PBS_O_QUEUE=workq,PBS_O_HOST=head"},
		{"comment", comment},
		{exitName, exit},
		{"Submit_arguments", j.Words["args"]},
		{"project", "_pbs_project_default"},
	} {
		if a[1] != "" {
			fmt.Println(wrapped("    " + a[0] + " = " + a[1]))
		}
	}
	fmt.Println()
}

// wrapped breaks a line as PBS does.
func wrapped(line string) string {
	const width = 78
	var b strings.Builder
	for len(line) > width {
		b.WriteString(line[:width] + "\n\t")
		line = line[width:]
	}
	return b.String() + line
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.ANSIC)
}

func me() string {
	if u := os.Getenv("USER"); u != "" {
		return u
	}
	return "root"
}
