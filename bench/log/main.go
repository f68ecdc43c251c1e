// Command log measures what a job's output costs in the agent: the built program works through a phase whose script
// prints a file, alone, with no manager beside it. It prints the rate, processor time and memory of each case. Run it
// with: make bench-log
//
// Processor time is that of the agent and all that it starts, the shell and cat included.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

func main() {
	program := flag.String("program", "bin/tranter", "the built program")
	mib := flag.Int("size", 50, "MB of output with lines of 120 bytes")
	lines := flag.Int("lines", 1_000_000, "number of lines of 12 bytes")
	runs := flag.Int("runs", 5, "times that each case is run; the best is shown")
	flag.Parse()
	if err := measure(*program, *mib*1_000_000, *lines, *runs); err != nil {
		log.Fatal(err)
	}
}

// scene is one case.
type scene struct {
	name       string
	script     string
	bytes      int
	secrets    []string
	timestamps bool
}

func measure(program string, size, lines, runs int) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-log-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	secrets := []string{"hunter2-and-more-of-it", "s3cr3t/value+with=chars", "another-masked-variable", "dGhpcyBpcyBhIHNlY3JldA", "4fj29dk20fk3ls9fk2ls0d"}
	long, hits, short := filepath.Join(dir, "long"), filepath.Join(dir, "hits"), filepath.Join(dir, "short")
	if err := errors.Join(printed(long, size, 119, ""), printed(hits, size, 119, secrets[0]), printed(short, lines*12, 11, "")); err != nil {
		return err
	}
	fmt.Printf("%s, %d processors; the best of %d runs\n", runtime.Version(), runtime.NumCPU(), runs)
	fmt.Println("| output | MB/s | script s | CPU s | peak RSS MB | peak RssAnon MB |")
	fmt.Println("|---|---|---|---|---|---|")
	cat := func(path string, bytes int) scene { return scene{script: "cat " + path, bytes: bytes} }
	for _, c := range []struct {
		name    string
		scene   scene
		secrets []string
		stamps  bool
	}{
		{"long lines", cat(long, size), nil, false},
		{"long lines, 5 masked", cat(long, size), secrets, false},
		{"long lines, stamps", cat(long, size), nil, true},
		{"long lines, 5 masked, stamps", cat(long, size), secrets, true},
		{"long lines, 5 masked with a hit in 100 lines, stamps", cat(hits, size), secrets, true},
		{"short lines, 5 masked", cat(short, lines*12), secrets, false},
		{"short lines, 5 masked, stamps", cat(short, lines*12), secrets, true},
		{"a line each 10 ms for 1 s", scene{script: "for i in {1..100}; do echo line $i; sleep 0.01; done"}, secrets, true},
		{"sleep 1", scene{script: "sleep 1"}, secrets, true},
	} {
		c.scene.name, c.scene.secrets, c.scene.timestamps = c.name, c.secrets, c.stamps
		if err := best(program, dir, c.scene, runs); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// printed makes a file of about size bytes in lines of the given length, as a compiler would print them, with secret in
// each hundredth.
func printed(path string, size, length int, secret string) error {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		line := fmt.Sprintf("[%6d] Building CXX object src/module/file%d.cpp.o with a few words more, and /a/path/to/something/%x ok", i, i%977, i*7919)
		if secret != "" && i%100 == 0 {
			line = fmt.Sprintf("[%6d] login with %s ", i, secret) + line
		}
		for len(line) < length {
			line += "."
		}
		b.WriteString(line[:length] + "\n")
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

// figures are what one run gave.
type figures struct {
	script   time.Duration
	cpu      time.Duration
	rss      float64 // MB
	anon     float64
	logBytes int64
}

func best(program, dir string, s scene, runs int) error {
	var b figures
	for i := range runs {
		f, err := run(program, filepath.Join(dir, strings.ReplaceAll(s.name, " ", "-")+strconv.Itoa(i)), s)
		if err != nil {
			return err
		}
		if i == 0 {
			b = f
		}
		b.script, b.cpu = min(b.script, f.script), min(b.cpu, f.cpu)
		b.rss, b.anon = max(b.rss, f.rss), max(b.anon, f.anon) // of memory the worst
	}
	rate := "-"
	if s.bytes > 0 {
		rate = fmt.Sprintf("%.0f", float64(s.bytes)/1e6/b.script.Seconds())
	}
	fmt.Printf("| %s | %s | %.3f | %.2f | %.1f | %.1f |\n", s.name, rate, b.script.Seconds(), b.cpu.Seconds(), b.rss, b.anon)
	return nil
}

// run lets an agent carry out one phase.
func run(program, dir string, s scene) (figures, error) {
	phaseDir := filepath.Join(dir, "phase")
	project := filepath.Join(dir, "builds", "project")
	if err := errors.Join(os.MkdirAll(phaseDir, 0o700), os.MkdirAll(project, 0o700), os.MkdirAll(project+".tmp", 0o700)); err != nil {
		return figures{}, err
	}
	phase := tranter.Phase{
		ID: "1", JobID: 1, Shell: "bash", Log: tranter.LogFormat{Timestamps: s.timestamps, Sections: true},
		Dirs: tranter.Dirs{Builds: filepath.Join(dir, "builds"), Project: project, Temp: project + ".tmp", Cache: filepath.Join(dir, "cache")},
		Steps: []tranter.Step{
			{Name: "step_script", Title: "Executing \"step_script\" stage", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: []string{s.script}, User: true}},
		},
	}
	for _, secret := range s.secrets {
		phase.Log.Phrases = append(phase.Log.Phrases, tranter.Secret(secret))
	}
	data, err := json.Marshal(phase)
	if err != nil {
		return figures{}, err
	}
	if err := os.WriteFile(filepath.Join(phaseDir, "phase.json"), data, 0o600); err != nil {
		return figures{}, err
	}
	cmd := exec.Command(program, "agent", "run", phaseDir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return figures{}, err
	}
	var f figures
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-tick.C:
			rss, anon := memory(cmd.Process.Pid)
			f.rss, f.anon = max(f.rss, rss), max(f.anon, anon)
		}
	}
	if err != nil {
		return f, fmt.Errorf("%w: %s", err, said.String())
	}
	f.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return f, errors.Join(f.read(phaseDir, s), os.RemoveAll(dir))
}

// read takes from the phase's result how long the script took, and checks that all of its output is there.
func (f *figures) read(phaseDir string, s scene) error {
	var result tranter.PhaseResult
	data, err := os.ReadFile(filepath.Join(phaseDir, "result.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return err
	}
	if result.Status != tranter.PhaseSucceeded || len(result.Steps) != 1 {
		return fmt.Errorf("the phase ended with %s", data)
	}
	f.script = time.Duration(result.Steps[0].Ended-result.Steps[0].Started) * time.Millisecond
	f.logBytes = result.LogBytes
	if len(s.secrets) == 0 && f.logBytes < int64(s.bytes) {
		return fmt.Errorf("the log has %d bytes of %d", f.logBytes, s.bytes)
	}
	return nil
}

// memory reads a process's resident memory, all and what it does not share, in MB.
func memory(pid int) (rss, anon float64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "VmHWM" && name != "RssAnon" {
			continue
		}
		kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if name == "VmHWM" {
			rss = kib / 1024
		} else {
			anon = kib / 1024
		}
	}
	return rss, anon
}
