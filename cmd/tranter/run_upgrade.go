package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

const (
	// leaveLimit is how long the manager gets to end in order when another one takes its jobs over. What is not done by
	// then is taken up as after a crash.
	leaveLimit = 20 * time.Second
	askLimit   = 10 * time.Second // for a program to tell its version
)

// leave lets the manager end soon while its jobs go on by themselves.
func (d *daemon) leave() { d.makeWay(false) }

// upgrade lets the program that has our file's name by now take over, in this same process. The error says why it can't;
// then nothing has changed.
func (d *daemon) upgrade(ctx context.Context) error {
	if !canReplace {
		return errors.New("a running manager can't be replaced on this system: end it and start the new one")
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, d.around.program, "--version").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s does not work: %w: %s", d.around.program, err, strings.TrimSpace(string(out)))
		d.log.Error("The manager is not replaced", "error", err)
		return err
	}
	next, _, _ := strings.Cut(string(out), "\n")
	d.log.Info("Making way for the program's new version; jobs go on", "version", version, "next", next)
	d.makeWay(true)
	return nil
}

func (d *daemon) makeWay(replace bool) {
	select {
	case d.way <- replace:
	default: // it is under way
	}
}

// watchUpgrade upgrades the manager when a signal says so, until ctx ends.
func (d *daemon) watchUpgrade(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	if known := upgradeSignals(); len(known) > 0 {
		signal.Notify(signals, known...)
		defer signal.Stop(signals)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			_ = d.upgrade(ctx) // it is logged
		}
	}
}

// programPath returns the path by which this program was called, if it leads to the program that runs, so that a link
// is followed anew at an upgrade; else self.
func programPath(self string) string {
	called, err := exec.LookPath(os.Args[0])
	if err != nil {
		return self
	}
	if called, err = filepath.Abs(called); err != nil {
		return self
	}
	a, err := os.Stat(called)
	if err != nil {
		return self
	}
	if b, err := os.Stat(self); err != nil || !os.SameFile(a, b) {
		return self
	}
	return called
}
