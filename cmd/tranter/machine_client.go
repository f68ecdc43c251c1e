package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/remote"
	"github.com/tranter-ci/tranter/internal/terminal"
)

// machineClient asks a manager about its machines, or what stands in for one within this process.
type machineClient struct {
	*controlClient

	alone bool // no manager runs
}

// ask sends a request, with a body if it is not nil, and reads the answer.
func (c *machineClient) ask(ctx context.Context, method, path string, body, into any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return fmt.Errorf("ask the manager: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://manager"+path, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("ask the manager: %w", err)
	}
	client := *c.http
	client.Timeout = 0 // a machine may have to be waited for
	resp, err := client.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w with the state directory %s (name another with --state-dir)", errNotRunning, c.dir)
	}
	if err != nil {
		return fmt.Errorf("ask the manager: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return refusal(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read the manager's answer: %w", err)
	}
	return nil
}

// refusal is why a manager does not do what it was asked for.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	why := strings.TrimSpace(string(text))
	switch {
	case resp.StatusCode == http.StatusNotFound && strings.HasPrefix(why, "404 "):
		return errors.New("the manager does not know what it was asked: it is another version; \"tranter upgrade\" replaces it")
	case resp.StatusCode == http.StatusNotFound:
		return missingError(why)
	case why == "":
		return fmt.Errorf("the manager answered %s", resp.Status)
	default:
		return errors.New(why)
	}
}

// ping fails with errNotRunning where no manager runs.
func (c *machineClient) ping(ctx context.Context) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return c.explain(err)
	}
	return conn.Close()
}

// pools returns how the pools stand, or the one that is named by its short token or its runner's name.
func (c *machineClient) pools(ctx context.Context, name string) ([]pool.Status, error) {
	var all []pool.Status
	if err := c.ask(ctx, http.MethodGet, "/machines", nil, &all); err != nil || name == "" {
		return all, err
	}
	var found []pool.Status
	var known []string
	for _, s := range all {
		if s.Pool == name || s.Runner == name {
			found = append(found, s)
		}
		known = append(known, poolLabel(s.Pool, s.Runner))
	}
	switch {
	case len(found) > 0:
		return found, nil
	case len(known) == 0:
		return nil, fmt.Errorf("there is no pool %q, and no other", name)
	default:
		return nil, fmt.Errorf("there is no pool %q; there is %s", name, strings.Join(known, ", "))
	}
}

// machines returns the machines of all pools, or of one.
func (c *machineClient) machines(ctx context.Context, poolName string) ([]pool.MachineStatus, error) {
	pools, err := c.pools(ctx, poolName)
	all := []pool.MachineStatus{}
	for _, p := range pools {
		all = append(all, p.Machines...)
	}
	return all, err
}

// find returns the machine that a user names: by its name, or by a part of it that no other has.
func (c *machineClient) find(ctx context.Context, name string) (pool.MachineStatus, error) {
	var none pool.MachineStatus
	all, err := c.machines(ctx, "")
	if err != nil {
		return none, err
	}
	var found []pool.MachineStatus
	var names []string
	for _, m := range all {
		if m.Name == name {
			return m, nil
		}
		if name != "" && strings.Contains(m.Name, name) {
			found, names = append(found, m), append(names, m.Name)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return none, fmt.Errorf("%q is in the names of %d machines: %s", name, len(found), strings.Join(names, ", "))
	default:
		return none, missing("there is no machine %q (\"tranter machine ls\" lists those that there are, \"tranter machine why\" knows some that are gone)", name)
	}
}

func machinePath(name, more string) string { return "/machines/" + url.PathEscape(name) + more }

func (c *machineClient) entry(ctx context.Context, name string) (machineEntry, error) {
	var e machineEntry
	err := c.ask(ctx, http.MethodGet, machinePath(name, ""), nil, &e)
	return e, err
}

func (c *machineClient) past(ctx context.Context, name string) ([]fleet.Event, error) {
	var events []fleet.Event
	err := c.ask(ctx, http.MethodGet, machinePath(name, "/history"), nil, &events)
	return events, err
}

func (c *machineClient) environment(ctx context.Context, name string) (machineEnvironment, error) {
	var e machineEnvironment
	err := c.ask(ctx, http.MethodGet, machinePath(name, "/environment"), nil, &e)
	return e, err
}

// create asks for machines of a pool, which may be empty if there is but one, and returns their names.
func (c *machineClient) create(ctx context.Context, poolName string, wanted wantedMachines) ([]string, error) {
	if poolName == "" {
		poolName = anyPool
	}
	var out namedMachines
	err := c.ask(ctx, http.MethodPost, "/pools/"+url.PathEscape(poolName)+"/machines", wanted, &out)
	return out.Machines, err
}

func (c *machineClient) remove(ctx context.Context, name string, force bool) error {
	return c.ask(ctx, http.MethodDelete, machinePath(name, "?force="+strconv.FormatBool(force)), nil, &struct{}{})
}

func (c *machineClient) drain(ctx context.Context, name, reason string) error {
	return c.ask(ctx, http.MethodPost, machinePath(name, "/drain?reason="+url.QueryEscape(reason)), nil, &struct{}{})
}

// prune forgets possible orphans and tries stuck removals again, and returns which; dry: it only returns them.
func (c *machineClient) prune(ctx context.Context, poolName string, dry bool) ([]string, error) {
	var out namedMachines
	query := url.Values{"dry": {strconv.FormatBool(dry)}, "pool": {poolName}}
	err := c.ask(ctx, http.MethodPost, "/machines/prune?"+query.Encode(), nil, &out)
	return out.Machines, err
}

// shell runs a command on a machine, or the login's shell if it is empty, with a terminal if pty is not nil.
func (c *machineClient) shell(ctx context.Context, name, command string, pty *remote.PTY) (*terminal.Stream, error) {
	query := url.Values{"command": {command}}
	if pty != nil {
		query.Set("term", pty.Term)
		query.Set("columns", strconv.Itoa(pty.Size.Columns))
		query.Set("rows", strconv.Itoa(pty.Size.Rows))
	}
	return c.terminal(ctx, machinePath(name, "/shell?"+query.Encode()))
}

// gone says whether an error means that a machine is not there any more.
func gone(err error) bool { return errors.Is(err, tranter.ErrNotFound) }
