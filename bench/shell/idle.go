//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// idleRunners measures a manager of many runners that have nothing to do: each has a request for a job at the server,
// which holds it. There is a place for a job for each of them, and one more, or they would have to take turns with their
// requests.
func idleRunners(program string, count int) error {
	s, err := open(program, count+1)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for i := range count - 1 {
		r, err := s.c.CreateRunner(coordinator.RunnerSpec{Description: fmt.Sprint("bench ", i), RunUntagged: true})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(file, "[[runners]]\nname = \"bench %d\"\nurl = %q\ntoken = %q\nexecutor = \"shell\"\n", i, s.url, r.Token.Reveal()); err != nil {
			return err
		}
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	settle(10 * time.Second)
	const long = 50 * time.Second // each request is held once meanwhile
	pid := s.runner.Process.Pid
	before := treeTime(pid)
	settle(long)
	spent, resident, threads := treeTime(pid)-before, memory(pid, "VmRSS"), threads(pid)
	if err := s.close(); err != nil {
		return err
	}
	fmt.Printf("%d runners, idle: %.2f %% of a core over %v, RSS %.0f MB, %d threads\n", count, 100*spent.Seconds()/long.Seconds(), long, resident, threads)
	return nil
}

// sleepingJobs measures what jobs take of the manager while they run and print nothing.
func sleepingJobs(program string, counts ...int) error {
	s, err := open(program, counts[len(counts)-1])
	if err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	pid, gate := s.runner.Process.Pid, filepath.Join(s.dir, "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		return err
	}
	fmt.Printf("\n| jobs that sleep | manager's RSS MB | threads |\n|---|---|---|\n| 0 | %.1f | %d |\n", s.idle, threads(pid))
	var ids []int64
	for _, count := range counts {
		for len(ids) < count {
			id, err := s.c.Enqueue(s.bare(fmt.Sprintf("read line < %s || true", gate))) // waits until the gate is opened
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		if err := s.started(ids); err != nil {
			return err
		}
		settle(10 * time.Second)
		fmt.Printf("| %d | %.1f | %d |\n", count, memory(pid, "VmRSS"), threads(pid))
	}
	opened, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := s.finish(id); err != nil {
			return err
		}
		_ = opened.Close() // the first that ends has read nothing; the others do as well
	}
	return s.close()
}

// started waits until jobs have printed something, so that their scripts run.
func (s *site) started(ids []int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for _, id := range ids {
		if _, err := s.c.Wait(ctx, id, func(v coordinator.JobView) bool { return v.Status != coordinator.Pending }); err != nil {
			return err
		}
	}
	return nil
}

// bare is a job without sources.
func (s *site) bare(script string) tranter.Job {
	payload := s.payload(script)
	payload.Variables = []tranter.Variable{{Key: "GIT_STRATEGY", Value: "none", Public: true}}
	return payload
}

func threads(pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0
	}
	return len(entries)
}

// firstRequest measures the time from a manager's start to its first request for a job, at a server that says nothing.
func firstRequest(program string) error {
	dir, err := os.MkdirTemp("", "bench-shell-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	asked := make(chan time.Time, 100)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/jobs/request") {
			asked <- time.Now()
		}
		w.WriteHeader(http.StatusNoContent)
	})}
	go server.Serve(listener) //nolint:errcheck // it ends with this program
	defer func() { _ = server.Close() }()
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("[[runners]]\nname = \"bench\"\nurl = \"http://%s\"\ntoken = \"glrt-abcdefghijklmnopqrst\"\nexecutor = \"shell\"\n", listener.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	var times []time.Duration
	for range 20 {
		runner := exec.Command(program, "run", "--config", config, "--state-dir", filepath.Join(dir, "state"), "--working-directory", dir)
		began := time.Now()
		if err := runner.Start(); err != nil {
			return err
		}
		times = append(times, (<-asked).Sub(began))
		if err := runner.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		_ = runner.Wait()
		for len(asked) > 0 {
			<-asked
		}
	}
	fmt.Printf("start to the first request for a job: p50 %v, p95 %v\n", percentile(times, 0.5), percentile(times, 0.95))
	return nil
}
