//go:build unix

// Package pretend is a batch system on one host for tests: it runs jobs for real, holds, times and cancels them, and lets a
// test give it the commands of one that can't be had. The commands are the test's own program, called by other names.
package pretend

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tranter-ci/tranter/internal/batch"
)

// Job is one batch job.
type Job struct {
	ID        int
	Name      string
	Argv      []string // what runs it, before its script
	Script    string
	Dir       string
	Output    string
	Append    bool
	Queue     string
	Held      bool
	Walltime  time.Duration
	Env       []string
	Words     map[string]string // what the commands want to remember
	Submitted time.Time

	// How it goes on.
	Started   time.Time
	Ended     time.Time
	Cancelled bool
	TimedOut  bool
	ExitCode  int
	Signal    int
}

// Waits says whether a job has not started.
func (j Job) Waits() bool { return j.Started.IsZero() && !j.Over() }

// Over says whether a job has ended.
func (j Job) Over() bool { return !j.Ended.IsZero() }

// Cluster is the batch system in a directory.
type Cluster struct{ dir string }

const (
	// quick has programs that look for races end at once, and not a second later.
	quick       = "GORACE=atexit_sleep_ms=0"
	dirVariable = "PRETENDED_CLUSTER"
	runVariable = "PRETENDED_JOB"
	killAfter   = 2 * time.Second
	jobFile     = "job.json"
	startFile   = "started.json"
	endFile     = "ended.json"
	cancelFile  = "cancelled"
)

// Command is one of the batch system's: it gets its arguments and returns its exit code.
type Command func(c *Cluster, args []string) int

// Main is what TestMain calls first: if this process is one of the commands, or what runs a job, it never returns.
func Main(commands map[string]Command) {
	if dir := os.Getenv(runVariable); dir != "" {
		if err := run(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if command, ok := commands[filepath.Base(os.Args[0])]; ok {
		os.Exit(command(&Cluster{dir: os.Getenv(dirVariable)}, os.Args[1:]))
	}
}

// Start makes a batch system and returns what runs its commands. Jobs that are left are ended when the test is over.
func Start(t testing.TB, commands map[string]Command, environment ...string) (batch.Client, *Cluster) {
	t.Helper()
	dir := t.TempDir()
	c := &Cluster{dir: filepath.Join(dir, "jobs")}
	bin := filepath.Join(dir, "bin")
	self, err := os.Executable()
	if err = errors.Join(err, os.MkdirAll(c.dir, 0o700), os.MkdirAll(bin, 0o700)); err != nil {
		t.Fatal(err)
	}
	for name := range commands {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { c.stop(t) })
	return batch.Client{Bin: bin, Environment: append(environment, dirVariable+"="+c.dir, quick)}, c
}

func (c *Cluster) stop(t testing.TB) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.Now().Add(20 * time.Second)
	for _, j := range c.Jobs() {
		_ = c.Cancel(j.ID)
	}
	for _, j := range c.Jobs() {
		for !j.Over() {
			if time.Now().After(limit) {
				t.Errorf("job %d does not end", j.ID)
				return
			}
			<-tick.C
			j, _ = c.Job(j.ID)
		}
	}
}

// Submit takes a job in and starts it unless it is held.
func (c *Cluster) Submit(j Job) (int, error) {
	j.Submitted = time.Now()
	for j.ID = 101; ; j.ID++ {
		err := os.Mkdir(c.job(j.ID), 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return 0, err
		}
	}
	if err := write(filepath.Join(c.job(j.ID), jobFile), j); err != nil {
		return 0, err
	}
	if j.Held {
		return j.ID, nil
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), runVariable+"="+c.job(j.ID))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return j.ID, cmd.Start()
}

func (c *Cluster) job(id int) string { return filepath.Join(c.dir, strconv.Itoa(id)) }

// Jobs returns all jobs, by their ids.
func (c *Cluster) Jobs() []Job {
	entries, _ := os.ReadDir(c.dir)
	var all []Job
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if j, ok := c.Job(id); ok {
			all = append(all, j)
		}
	}
	slices.SortFunc(all, func(a, b Job) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Job returns one job as it stands.
func (c *Cluster) Job(id int) (Job, bool) {
	var j Job
	if read(filepath.Join(c.job(id), jobFile), &j) != nil {
		return j, false
	}
	_ = read(filepath.Join(c.job(id), startFile), &j)
	_ = read(filepath.Join(c.job(id), endFile), &j)
	if _, err := os.Stat(filepath.Join(c.job(id), cancelFile)); err == nil {
		j.Cancelled = true
		if j.Held && j.Ended.IsZero() {
			j.Ended = j.Submitted.Add(time.Second)
		}
	}
	return j, true
}

// Cancel ends a job. It is an error if there is none, or if it has ended.
func (c *Cluster) Cancel(id int) error {
	if j, ok := c.Job(id); !ok || j.Over() {
		return fmt.Errorf("no job %d", id)
	}
	return write(filepath.Join(c.job(id), cancelFile), true)
}

// run runs a job.
func run(dir string) error {
	var j Job
	if err := read(filepath.Join(dir, jobFile), &j); err != nil {
		return err
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(j.Script), 0o700); err != nil { //nolint:gosec // it is run
		return err
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	if j.Append {
		flags = os.O_CREATE | os.O_WRONLY | os.O_APPEND
	}
	out, err := os.OpenFile(j.Output, flags, 0o600)
	if err != nil {
		j.Started, j.Ended, j.ExitCode = time.Now(), time.Now(), 1
		return write(filepath.Join(dir, endFile), j)
	}
	defer out.Close()
	argv := append(slices.Clone(j.Argv), script)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = slices.DeleteFunc(append(os.Environ(), j.Env...), func(v string) bool { return len(v) > len(runVariable) && v[:len(runVariable)] == runVariable })
	cmd.Dir, cmd.Stdout, cmd.Stderr = j.Dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	j.Started = time.Now()
	if err := cmd.Start(); err != nil {
		j.Ended, j.ExitCode = time.Now(), 127
		return write(filepath.Join(dir, endFile), j)
	}
	if err := write(filepath.Join(dir, startFile), j); err != nil {
		return err
	}
	j.await(cmd, dir)
	return write(filepath.Join(dir, endFile), j)
}

// await waits for a job's end, and ends it if it has to.
func (j *Job) await(cmd *exec.Cmd, dir string) {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var told time.Time
	for {
		select {
		case err := <-done:
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			j.ended(err)
			return
		case <-tick.C:
		}
		if _, err := os.Stat(filepath.Join(dir, cancelFile)); err == nil {
			j.Cancelled = true
		}
		if j.Walltime > 0 && time.Since(j.Started) > j.Walltime {
			j.TimedOut = true
		}
		switch {
		case !j.Cancelled && !j.TimedOut:
		case told.IsZero():
			told = time.Now()
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGTERM)
		case time.Since(told) > killAfter:
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		}
	}
}

// ended notes how a job has.
func (j *Job) ended(err error) {
	j.Ended = time.Now()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return
	}
	status, _ := exit.Sys().(syscall.WaitStatus)
	j.ExitCode = max(0, exit.ExitCode())
	if status.Signaled() {
		j.Signal = int(status.Signal())
	}
}

func write(path string, what any) error {
	data, err := json.Marshal(what)
	if err != nil {
		return err
	}
	temp := path + "." + strconv.Itoa(os.Getpid())
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func read(path string, to any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}
