package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
)

func newMachine(s streams) *cobra.Command { return newMachineWith(s, openMachines) }

func newMachineWith(s streams, open machineOpener) *cobra.Command {
	return group("machine", "Look after the machines that the executor docker+machine makes for jobs", `  tranter machine ls
  tranter machine why runner-t1-auto-1790000000-1a2b3c4d
  tranter machine leaks`,
		newMachineList(s, open), newMachineCreate(s, open), newMachineRemove(s, open), newMachineDrain(s, open), newMachineSSH(s, open),
		newMachineInspect(s, open), newMachineEnv(s, open), newMachineWhy(s, open), newMachineLeaks(s, open), newMachinePrune(s, open))
}

// machinePlace is where machines are looked for while no manager runs.
type machinePlace struct {
	config config.Config
	path   string // of the configuration
	state  string // the state directory
	log    *slog.Logger
}

// need is what a command wants of machines.
type need int

// What is opened while no manager runs.
const (
	fromBook need = iota // to read what is remembered
	inPlace              // to work on machines
)

// machineOpener opens the machines of a place on which no manager works. The returned function closes all again.
type machineOpener func(ctx context.Context, p machinePlace, n need) (*machineFleet, func() error, error)

// machineUse runs use with a client of the machines: those of the running manager, else opened for the time of the call.
type machineUse func(ctx context.Context, n need, use func(*machineClient) error) error

// addMachineFlags defines the flags that find machines.
func addMachineFlags(cmd *cobra.Command, s streams, open machineOpener) machineUse {
	path := addConfigFlag(cmd.Flags())
	state := addStateDirFlag(cmd.Flags())
	return func(ctx context.Context, n need, use func(*machineClient) error) error {
		c, problems, err := parseConfig(*path, true)
		if err != nil && *state == "" {
			return err
		}
		dir, err := stateDir(*state, c.StateDir)
		if err != nil {
			return err
		}
		client := &machineClient{controlClient: newControlClient(dir)}
		if err := client.ping(ctx); !errors.Is(err, errNotRunning) {
			if err != nil {
				return err
			}
			return use(client)
		}
		if n == inPlace && config.Failed(problems, false) {
			printProblems(s.err, problems, config.Error)
			return fmt.Errorf("no manager is running, and the configuration %s can't be used to reach machines without one: see above", *path)
		}
		log, err := logFlags(cmd.Flags()).or(logOptions{level: "warn"}).logger(s.err, new(slog.LevelVar))
		if err != nil {
			return err
		}
		return withoutManager(ctx, machinePlace{config: c, path: *path, state: dir, log: log}, n, open, use)
	}
}

// completing lets shells complete the names of machines, of so many at most; 0: of any number.
func completing(cmd *cobra.Command, reach machineUse, most int) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		err := reach(cmd.Context(), fromBook, func(c *machineClient) error {
			all, err := c.machines(cmd.Context(), "")
			for _, m := range all {
				names = append(names, m.Name+"\t"+string(m.State))
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// withoutManager opens the machines of a place, and answers for them as a manager does, within this process.
func withoutManager(ctx context.Context, p machinePlace, n need, open machineOpener, use func(*machineClient) error) (err error) {
	fleet, closeAll, err := open(ctx, p, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	mux := http.NewServeMux()
	shells := fleet.route(mux)
	err = answeredHere(ctx, p.state, mux, use)
	shells.owned.Wait()
	return err
}

// answeredHere runs use with a client to whom this process answers as a manager does.
func answeredHere(ctx context.Context, stateDir string, mux *http.ServeMux, use func(*machineClient) error) error {
	serving, stop := context.WithCancel(ctx)
	listener := newPipeListener()
	var served error
	var owned sync.WaitGroup
	owned.Go(func() { served = serveOn(serving, listener, mux) })
	err := use(&machineClient{controlClient: controlClientOver(stateDir, listener.dial), alone: true})
	stop()
	owned.Wait()
	return errors.Join(err, served)
}

// pipeListener is a listener within this process.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// wordsOf joins the arguments of a command as a shell there reads them again.
func wordsOf(args []string) string {
	if len(args) == 1 {
		return args[0] // it may be a whole line
	}
	words := make([]string, 0, len(args))
	for _, arg := range args {
		words = append(words, shellWord(arg))
	}
	return strings.Join(words, " ")
}
