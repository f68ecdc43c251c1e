package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Systemd is where units are, and how systemd is talked to. Its zero value is the host's.
type Systemd struct {
	Root    string // in front of every path; empty: the host's files
	PerUser bool   // the systemd of the user who asks
	ConfDir string // the user's directory of configuration, for PerUser
	// Command runs systemctl with arguments; nil: the host's. Its error has what systemctl said.
	Command func(ctx context.Context, args ...string) (string, error)
}

// State is how a service stands, with systemd's own words.
type State struct {
	Load    string // loaded, not-found, masked ...
	Active  string // active, activating, reloading, deactivating, inactive, failed
	Sub     string
	Enabled string // enabled, disabled ...
	Text    string // what the manager has said about itself
	Result  string // success, or why the service has failed
	Since   string
	PID     string // 0: it does not run
}

// Running says whether the service's process is there.
func (s State) Running() bool {
	return s.PID != "" && s.PID != "0" && s.Active != "inactive" && s.Active != "failed"
}

// String is one sentence about the state.
func (s State) String() string {
	if s.Load == "not-found" {
		return "not installed"
	}
	text := fmt.Sprintf("%s (%s)", s.Active, s.Sub)
	if s.Since != "" {
		text += " since " + s.Since
	}
	if s.Active == "failed" && s.Result != "" {
		text += ", result " + s.Result
	}
	if s.Enabled != "" {
		text += "; " + s.Enabled
	}
	if s.Load == "masked" {
		text += "; masked"
	}
	if s.Text != "" {
		text += ": " + s.Text
	}
	return text
}

// ErrNoSystemd means that systemd does not run on this host, or not for this user.
var ErrNoSystemd = errors.New("systemd does not run here")

// ErrForeign means that a unit was not written by install.
var ErrForeign = errors.New("the unit is not ours")

// Booted says whether systemd runs the host (sd_booted(3)).
func (s Systemd) Booted() bool {
	info, err := os.Lstat(filepath.Join(s.Root, "/run/systemd/system"))
	return err == nil && info.IsDir()
}

// dir is where units that an administrator or the user has installed are.
func (s Systemd) dir() string {
	if s.PerUser {
		return filepath.Join(s.Root, s.ConfDir, "systemd", "user")
	}
	return filepath.Join(s.Root, "/etc/systemd/system")
}

// Path is that of the unit of a service that install writes.
func (s Systemd) Path(name string) string { return filepath.Join(s.dir(), name+".service") }

// Packaged is the path of the unit that a package has installed; empty: none has.
func (s Systemd) Packaged(name string) string {
	if s.PerUser {
		return ""
	}
	for _, dir := range []string{"/usr/lib/systemd/system", "/lib/systemd/system"} {
		path := filepath.Join(s.Root, dir, name+".service")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

func (s Systemd) hardenedPath(name string) string {
	return filepath.Join(s.dir(), name+".service.d", "50-hardened.conf")
}

// Install writes the unit, and the drop-in that hardens it or none, and has the service started with the host, or with
// the user's session, from now on. Where systemd does not run the files are written, and the error is ErrNoSystemd. An
// existing unit that is not ours is left alone: ErrForeign.
func (s Systemd) Install(ctx context.Context, u Unit, hardened bool) error {
	text, err := u.Text()
	if err != nil {
		return err
	}
	path := s.Path(u.Name)
	if err := ours(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.writeDropIn(u.Name, hardened); err != nil {
		return err
	}
	if err := write(path, text); err != nil {
		return err
	}
	return s.order(ctx, []string{"daemon-reload"}, []string{"enable", u.Name + ".service"})
}

func (s Systemd) writeDropIn(name string, hardened bool) error {
	path := s.hardenedPath(name)
	if hardened {
		return write(path, hardenedText)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the drop-in: %w", err)
	}
	_ = os.Remove(filepath.Dir(path)) // it stays when others are in it
	return nil
}

// Uninstall stops the service and removes what Install has written. Without a unit the error wraps fs.ErrNotExist.
func (s Systemd) Uninstall(ctx context.Context, name string) error {
	path := s.Path(name)
	if err := ours(path); err != nil {
		return err
	}
	err := s.order(ctx, []string{"disable", "--now", name + ".service"})
	if err != nil && !errors.Is(err, ErrNoSystemd) {
		return err
	}
	if e := s.writeDropIn(name, false); e != nil {
		return e
	}
	if e := os.Remove(path); e != nil {
		return fmt.Errorf("remove the unit: %w", e)
	}
	if err != nil {
		return err
	}
	return s.order(ctx, []string{"daemon-reload"})
}

// Do has systemd start, stop, restart or reload a service, and waits until it has.
func (s Systemd) Do(ctx context.Context, verb, name string) error {
	return s.order(ctx, []string{verb, name + ".service"})
}

// StopSoon has systemd stop a service, and does not wait.
func (s Systemd) StopSoon(ctx context.Context, name string) error {
	return s.order(ctx, []string{"stop", "--no-block", name + ".service"})
}

// Signal sends a signal to the main process of a service.
func (s Systemd) Signal(ctx context.Context, name, signal string) error {
	return s.order(ctx, []string{"kill", "--kill-who=main", "--signal=" + signal, name + ".service"})
}

func (s Systemd) order(ctx context.Context, commands ...[]string) error {
	if !s.Booted() {
		return ErrNoSystemd
	}
	for _, args := range commands {
		if _, err := s.systemctl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// State asks how a service stands.
func (s Systemd) State(ctx context.Context, name string) (State, error) {
	if !s.Booted() {
		return State{}, ErrNoSystemd
	}
	out, err := s.systemctl(ctx, "show", name+".service",
		"--property=LoadState,ActiveState,SubState,UnitFileState,StatusText,Result,StateChangeTimestamp,MainPID")
	if err != nil {
		return State{}, err
	}
	var st State
	to := map[string]*string{
		"LoadState": &st.Load, "ActiveState": &st.Active, "SubState": &st.Sub, "UnitFileState": &st.Enabled,
		"StatusText": &st.Text, "Result": &st.Result, "StateChangeTimestamp": &st.Since, "MainPID": &st.PID,
	}
	for line := range strings.Lines(out) {
		key, val, _ := strings.Cut(strings.TrimSpace(line), "=")
		if p := to[key]; p != nil {
			*p = val
		}
	}
	return st, nil
}

// Sparing says whether what stops the service now is a restart or a shutdown of the host, at which jobs are left to
// themselves.
func (s Systemd) Sparing(ctx context.Context, name string) (bool, error) {
	jobs, err := s.systemctl(ctx, "list-jobs", "--no-legend", "--plain", "--full")
	if err != nil {
		return false, err
	}
	return sparing(jobs, name), nil
}

// sparing reads systemd's list of jobs: number, unit, what is to become of it, and how far that is.
func sparing(jobs, name string) bool {
	for line := range strings.Lines(jobs) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		restarts := f[1] == name+".service" && strings.HasSuffix(f[2], "restart")
		ends := f[2] == "start" && (f[1] == "shutdown.target" || f[1] == "exit.target" || f[1] == "umount.target")
		if restarts || ends {
			return true
		}
	}
	return false
}

func (s Systemd) systemctl(ctx context.Context, args ...string) (string, error) {
	if s.PerUser {
		args = append([]string{"--user"}, args...)
	}
	if s.Command != nil {
		return s.Command(ctx, args...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// ours says whether the unit at path was written by us. The error of one that is not there wraps fs.ErrNotExist.
func ours(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the unit: %w", err)
	}
	if !strings.HasPrefix(string(data), mark) {
		return fmt.Errorf("%w: %s was written by somebody else; remove it by hand, or take another name with --service", ErrForeign, path)
	}
	return nil
}

// write replaces a file that everybody may read, in one step.
func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as systemd's directories are
		return fmt.Errorf("make the directory of units: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tranter-*")
	if err != nil {
		return fmt.Errorf("write the unit: %w", err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write the unit: %w", err)
	}
	return nil
}
