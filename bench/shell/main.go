//go:build unix

// Command shell measures the runner with the shell executor, as a user's machine would run it: the built binary against
// the local coordinator in another process's place (this one). It prints throughput, time per job, processor time per
// job, memory, and the delay until an idle runner starts a job. Run it with: make bench-shell
//
// The job is "echo MARK" after a checkout of a repository of 21 commits and 50 files of 20 KiB.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

func main() {
	program := flag.String("program", "bin/tranter", "the built runner")
	jobs := flag.Int("jobs", 200, "jobs of a throughput run; fewer with one at a time")
	concurrent := flag.String("concurrent", "1,10,50", "jobs at the same time, one run each; empty: none")
	logMiB := flag.Int("log", 64, "MiB of log of the log run; 0: none")
	rest := flag.Bool("rest", true, "count programs, and measure the start, idle runners and sleeping jobs")
	flag.Parse()
	if err := measure(*program, *jobs, *concurrent, *logMiB, *rest); err != nil {
		log.Fatal(err)
	}
}

func measure(program string, jobs int, concurrent string, logMiB int, rest bool) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	fmt.Printf("%s, %d processors\n", runtime.Version(), runtime.NumCPU())
	if concurrent != "" {
		if err := jobRate(program, jobs, concurrent); err != nil {
			return err
		}
	}
	if rest {
		if err := errors.Join(programsPerJob(program), firstRequest(program), idleRunners(program, 500), sleepingJobs(program, 50, 200)); err != nil {
			return err
		}
	}
	if logMiB > 0 {
		return logRate(program, logMiB)
	}
	return nil
}

// jobRate measures many short jobs, and the delay of single ones.
func jobRate(program string, jobs int, concurrent string) error {
	fmt.Println("| run | jobs/s | job p50 | p95 | CPU ms per job | runner RSS MB, idle and most |")
	fmt.Println("|---|---|---|---|---|---|")
	for c := range strings.SplitSeq(concurrent, ",") {
		n, err := strconv.Atoi(c)
		if err != nil {
			return err
		}
		count := jobs
		if n == 1 {
			count = jobs / 4
		}
		if err := throughput(program, n, count); err != nil {
			return err
		}
	}
	return pickup(program)
}

// site is a coordinator and a runner that works for it.
type site struct {
	dir    string
	c      *coordinator.Coordinator
	id     int64 // of the project
	commit coordinator.Commit
	cancel context.CancelFunc
	served chan error
	runner *exec.Cmd
	output bytes.Buffer
	idle   float64 // MiB
	url    string  // of the coordinator
	config string  // the runner's file
	pid    int     // of the runner, if that is a child of what was started; 0: it is not

	beforeRemoval func() error // reads what is left when the runner has ended; may be nil
}

func open(program string, concurrent int) (*site, error) {
	dir, err := os.MkdirTemp("", "bench-shell-")
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir, served: make(chan error, 1)}
	if err := repository(filepath.Join(dir, "repo")); err != nil {
		return nil, err
	}
	if s.c, err = coordinator.Open(coordinator.Options{Dir: filepath.Join(dir, "gitlab"), UpdateInterval: time.Minute, MaxLog: 16 << 30}); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.served <- s.c.Serve(ctx, listener) }()
	project, err := s.c.CreateProject("bench/shell", filepath.Join(dir, "repo"))
	if err != nil {
		return nil, err
	}
	s.id = project.ID
	if s.commit, err = s.c.Snapshot(ctx, project.ID); err != nil {
		return nil, err
	}
	runner, err := s.c.CreateRunner(coordinator.RunnerSpec{Description: "bench", RunUntagged: true})
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("concurrent = %d\n[[runners]]\nname = \"bench\"\nurl = \"http://%s\"\ntoken = %q\nexecutor = \"shell\"\noutput_limit = 16000000\n[runners.feature_flags]\nFF_TIMESTAMPS = true\n",
		concurrent, listener.Addr(), runner.Token.Reveal())
	path := filepath.Join(dir, "config.toml")
	s.url, s.config = "http://"+listener.Addr().String(), path
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	s.runner = exec.Command(program, "run", "--config", path, "--state-dir", filepath.Join(dir, "state"), "--working-directory", dir)
	s.runner.Env = append(os.Environ(), "HOME="+dir)
	s.runner.Stdout, s.runner.Stderr = &s.output, &s.output
	return s, nil
}

func (s *site) start() error {
	if err := s.runner.Start(); err != nil {
		return err
	}
	settle(2 * time.Second)
	s.idle = memory(s.runner.Process.Pid, "VmRSS")
	return nil
}

// settle waits; it is a measurement, not a test.
func settle(d time.Duration) { <-time.After(d) }

func (s *site) close() error {
	err := syscall.Kill(cmp.Or(s.pid, s.runner.Process.Pid), syscall.SIGTERM)
	err = errors.Join(err, s.runner.Wait())
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.output.String())
	}
	s.cancel()
	err = <-s.served
	if s.beforeRemoval != nil {
		err = errors.Join(err, s.beforeRemoval())
	}
	return errors.Join(err, s.c.Close(), os.RemoveAll(s.dir))
}

// memory reads a field of a process's status, in MiB.
func memory(pid int, field string) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024
		}
	}
	return 0
}

// repository makes a git repository of 21 commits and 50 files of 20 KiB.
func repository(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	git := func(args ...string) error {
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w: %s", args, err, out)
		}
		return nil
	}
	random := rand.New(rand.NewPCG(1, 2))
	if err := git("init", "-q", "-b", "main"); err != nil {
		return err
	}
	for commit := range 21 {
		for i := range 50 {
			if commit > 0 && i != commit {
				continue
			}
			data := make([]byte, 20<<10)
			for j := range data {
				data[j] = byte('a' + random.IntN(26))
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d.txt", i)), data, 0o644); err != nil {
				return err
			}
		}
		if err := errors.Join(git("add", "."), git("commit", "-q", "-m", fmt.Sprint("commit ", commit))); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) payload(script string) tranter.Job {
	return tranter.Job{
		AllowGitFetch: true,
		Info:          tranter.JobInfo{Name: "bench", Stage: "test", ProjectID: s.id, ProjectFullPath: "bench/shell"},
		Git: tranter.GitInfo{
			Ref: s.commit.Ref, SHA: s.commit.SHA, RefType: "branch", ObjectFormat: "sha1", Depth: 20,
			Refspecs: []string{"+refs/heads/*:refs/remotes/origin/*"},
		},
		Steps: []tranter.JobStep{{Name: "script", Script: []string{script}, Timeout: 3600, When: "on_success"}},
	}
}

// finish waits until a job is over.
func (s *site) finish(id int64) (coordinator.JobView, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	v, err := s.c.Wait(ctx, id, func(v coordinator.JobView) bool { return v.Status.Finished() })
	if err == nil && v.Status != coordinator.Success {
		err = fmt.Errorf("job %d: %s, %s\n%s", id, v.Status, v.Problem, s.output.String())
	}
	return v, err
}

func percentile(times []time.Duration, p float64) time.Duration {
	slices.Sort(times)
	return times[min(len(times)-1, int(float64(len(times))*p))].Round(time.Millisecond)
}

func throughput(program string, concurrent, jobs int) error {
	s, err := open(program, concurrent)
	if err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	// One job each before, so that the working trees are there, as in a runner's daily life.
	var warm []int64
	for range concurrent {
		id, err := s.c.Enqueue(s.payload("echo MARK"))
		if err != nil {
			return err
		}
		warm = append(warm, id)
	}
	for _, id := range warm {
		if _, err := s.finish(id); err != nil {
			return err
		}
	}
	before := treeTime(s.runner.Process.Pid)
	began := time.Now()
	var ids []int64
	for range jobs {
		id, err := s.c.Enqueue(s.payload("echo MARK"))
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	var times []time.Duration
	for _, id := range ids {
		v, err := s.finish(id)
		if err != nil {
			return err
		}
		times = append(times, v.Times.Duration(time.Now()))
	}
	took := time.Since(began)
	cpu := treeTime(s.runner.Process.Pid) - before
	most := memory(s.runner.Process.Pid, "VmHWM")
	idle := s.idle
	if err := s.close(); err != nil {
		return err
	}
	fmt.Printf("| %d at a time, %d jobs | %.2f | %v | %v | %.0f | %.0f, %.0f |\n", concurrent, jobs, float64(jobs)/took.Seconds(),
		percentile(times, 0.5), percentile(times, 0.95), float64(cpu.Milliseconds())/float64(jobs), idle, most)
	return nil
}

// treeTime is the processor time of a process and of all children that it has waited for.
func treeTime(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// pickup measures the time from a job's creation to its assignment and to its first output, on an idle runner.
func pickup(program string) error {
	s, err := open(program, 1)
	if err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	var assigned, worked, total []time.Duration
	for range 12 {
		settle(time.Duration(500+rand.IntN(1500)) * time.Millisecond)
		id, err := s.c.Enqueue(s.bare("true"))
		if err != nil {
			return err
		}
		v, err := s.finish(id)
		if err != nil {
			return err
		}
		assigned = append(assigned, v.Times.Started.Sub(v.Times.Created))
		worked = append(worked, v.Times.Finished.Sub(v.Times.Started))
		total = append(total, v.Times.Finished.Sub(v.Times.Created))
	}
	if err := s.close(); err != nil {
		return err
	}
	fmt.Printf("\nidle runner, job without sources, script \"true\": queue to assigned p50 %v, p95 %v; assigned to finished p50 %v, p95 %v; queue to finished p50 %v, p95 %v\n",
		percentile(assigned, 0.5), percentile(assigned, 0.95), percentile(worked, 0.5), percentile(worked, 0.95), percentile(total, 0.5), percentile(total, 0.95))
	return nil
}

// logRate measures a job that prints as fast as it can.
func logRate(program string, mib int) error {
	s, err := open(program, 1)
	if err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	line := strings.Repeat("x", 99)
	id, err := s.c.Enqueue(s.bare(fmt.Sprintf("yes %s | head -c %d || true", line, mib<<20)))
	if err != nil {
		return err
	}
	v, err := s.finish(id)
	if err != nil {
		return err
	}
	took := v.Times.Duration(time.Now())
	most, cpu := memory(s.runner.Process.Pid, "VmHWM"), treeTime(s.runner.Process.Pid)
	if err := s.close(); err != nil {
		return err
	}
	fmt.Printf("log of %d MiB in lines of 100 bytes: %v, %.0f MiB/s, %d bytes on the server; runner RSS at most %.0f MB, CPU with the job's %v\n",
		mib, took.Round(time.Millisecond), float64(mib)/took.Seconds(), v.LogBytes, most, cpu)
	return nil
}
