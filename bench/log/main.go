// Command log measures what a job's output costs in the agent: the built program works through a phase whose script
// prints a file, alone, with no manager beside it. It prints the rate, processor time and memory of each case. Run it
// with: make bench-log
//
// Processor time is that of the agent and all that it starts, the shell and cat included.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/bench/measure"
)

func main() {
	program := flag.String("program", "bin/tranter", "the built program")
	mib := flag.Int("size", 50, "MB of output with lines of 120 bytes")
	lines := flag.Int("lines", 1_000_000, "number of lines of 12 bytes")
	runs := flag.Int("runs", 5, "times that each case is run; the best is shown")
	flag.Parse()
	if err := table(*program, *mib*1_000_000, *lines, *runs); err != nil {
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

func table(program string, size, lines, runs int) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-log-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
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
	script, cpu time.Duration
	peak, anon  int64 // bytes
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
		b.peak, b.anon = max(b.peak, f.peak), max(b.anon, f.anon) // of memory the worst
	}
	rate := "-"
	if s.bytes > 0 {
		rate = fmt.Sprintf("%.0f", float64(s.bytes)/1e6/b.script.Seconds())
	}
	mib := func(bytes int64) float64 { return float64(bytes) / (1 << 20) }
	fmt.Printf("| %s | %s | %.3f | %.2f | %.1f | %.1f |\n", s.name, rate, b.script.Seconds(), b.cpu.Seconds(), mib(b.peak), mib(b.anon))
	return nil
}

// run lets an agent carry out one phase. It takes from the phase's result how long the script took, and checks that all
// of its output is there.
func run(program, dir string, s scene) (figures, error) {
	project := filepath.Join(dir, "builds", "project")
	if err := errors.Join(os.MkdirAll(project, 0o700), os.MkdirAll(project+".tmp", 0o700)); err != nil {
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
	r, err := measure.Agent(program, filepath.Join(dir, "phase"), &phase)
	if err != nil {
		return figures{}, err
	}
	if len(r.Result.Steps) != 1 {
		return figures{}, fmt.Errorf("the phase had %d steps", len(r.Result.Steps))
	}
	if len(s.secrets) == 0 && r.Result.LogBytes < int64(s.bytes) {
		return figures{}, fmt.Errorf("the log has %d bytes of %d", r.Result.LogBytes, s.bytes)
	}
	script := time.Duration(r.Result.Steps[0].Ended-r.Result.Steps[0].Started) * time.Millisecond
	return figures{script: script, cpu: r.CPU, peak: r.Memory.Peak, anon: r.Memory.Anon}, os.RemoveAll(dir)
}
