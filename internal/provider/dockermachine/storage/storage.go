// Package storage reads docker-machine's store: a folder per machine, with the state of its driver (docker-machine,
// section 2.1). It changes nothing there.
package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// Entry is a machine of the store. It holds secrets (Driver).
type Entry struct {
	Name       string
	DriverName string
	// Driver is the driver's state, with StorePath and SSHKeyPath put right if the store was moved.
	Driver json.RawMessage
	Login  tranter.Login // Host is empty if the driver has not told an address yet
	Engine Engine
	Saved  time.Time // when docker-machine wrote it last
	Notes  []string  // what is odd about it, and does not keep it from being used
}

// Engine is what docker-machine was told of the machine's engine.
type Engine struct {
	Options, Environment, Labels, Mirrors, Insecure []string
	StorageDriver, InstallURL                       string
}

// Problem is why something in the store is no machine that can be used.
type Problem struct {
	Name string // of the folder; empty: the store itself
	Err  error
}

func (p Problem) Error() string {
	if p.Name == "" {
		return p.Err.Error()
	}
	return fmt.Sprintf("%q: %v", p.Name, p.Err)
}

const (
	maxConfig     = 4 << 20 // bytes of a config.json; user data may be in it
	configVersion = 3
	configFile    = "config.json"
)

// machineName is what docker-machine allows.
var machineName = lazy.Regexp(`^[a-zA-Z0-9][a-zA-Z0-9.-]*$`)

// Read returns the machines of the store at dir by name, and what there is besides. A store that is not there is a problem
// that wraps fs.ErrNotExist.
func Read(dir string) ([]Entry, []Problem) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, []Problem{{Err: err}}
	}
	found, err := os.ReadDir(filepath.Join(abs, "machines"))
	if err != nil {
		return nil, []Problem{{Err: fmt.Errorf("read the store: %w", err)}}
	}
	var entries []Entry
	var problems []Problem
	for _, f := range found {
		if strings.HasPrefix(f.Name(), ".") || !f.IsDir() && f.Type()&fs.ModeSymlink == 0 {
			continue // as docker-machine does
		}
		e, err := read(abs, f)
		if err != nil {
			problems = append(problems, Problem{Name: f.Name(), Err: err})
			continue
		}
		entries = append(entries, e)
	}
	return entries, problems
}

func read(dir string, f fs.DirEntry) (Entry, error) {
	switch {
	case !f.IsDir():
		return Entry{}, errors.New("it is a symbolic link, which docker-machine does not follow")
	case !machineName().MatchString(f.Name()):
		return Entry{}, errors.New("its name can't be that of a machine")
	}
	folder := filepath.Join(dir, "machines", f.Name())
	path := filepath.Join(folder, configFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, withoutConfig(folder)
	}
	if err != nil {
		return Entry{}, err
	}
	if !info.Mode().IsRegular() {
		return Entry{}, errors.New(configFile + " is no regular file")
	}
	data, err := readBounded(path)
	if err != nil {
		return Entry{}, err
	}
	e, moved, err := parse(f.Name(), data)
	if err != nil {
		return Entry{}, err
	}
	e.Saved = info.ModTime()
	if err := e.settle(dir, moved); err != nil {
		return Entry{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		e.note("others may read %s, which has the driver's secrets: chmod 600 %s", configFile, path)
	}
	return e, nil
}

// withoutConfig says how a folder without a config.json came to be: it is removed before the new one takes its place
// (docker-machine, section 2.6).
func withoutConfig(folder string) error {
	copies, _ := filepath.Glob(filepath.Join(escaped(folder), configFile+".*")) // the pattern is good
	copies = slices.DeleteFunc(copies, func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || !info.Mode().IsRegular() || info.Size() == 0
	})
	if len(copies) > 0 {
		return fmt.Errorf("it has no %s: docker-machine was ended while it saved; %s may be a whole copy", configFile, filepath.Base(copies[len(copies)-1]))
	}
	return fmt.Errorf("it has no %s: its creation was cut off, and what it may have made is not known", configFile)
}

// escaped is a path as a pattern that matches only it.
func escaped(path string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(path)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("%s has more than %d bytes", configFile, maxConfig)
	}
	return data, nil
}

// config is a config.json, as far as we look at it.
type config struct {
	ConfigVersion int
	Name          string
	DriverName    string
	Driver        json.RawMessage
	HostOptions   struct {
		EngineOptions struct {
			ArbitraryFlags, Env, Labels, InsecureRegistry, RegistryMirror []string
			StorageDriver, InstallURL                                     string
		}
		SwarmOptions struct{ IsSwarm bool }
	}
}

// base is what all drivers have in their state (docker-machine, section 1.7).
type base struct {
	IPAddress, MachineName, SSHUser, SSHKeyPath, StorePath string
	SSHPort                                                int
}

// parse reads a config.json. Its errors quote nothing of it: there are secrets in it.
func parse(name string, data []byte) (Entry, base, error) {
	var c config
	if err := json.Unmarshal(data, &c); err != nil {
		return Entry{}, base{}, fmt.Errorf("%s can't be read: %s", configFile, withoutText(err, len(data)))
	}
	b, err := c.check(name)
	if err != nil {
		return Entry{}, base{}, err
	}
	o := c.HostOptions.EngineOptions
	e := Entry{
		Name: name, DriverName: c.DriverName, Driver: c.Driver, Login: tranter.Login{Host: b.IPAddress, Port: b.SSHPort, User: b.SSHUser},
		Engine: Engine{
			Options: o.ArbitraryFlags, Environment: o.Env, Labels: o.Labels, Mirrors: o.RegistryMirror, Insecure: o.InsecureRegistry,
			StorageDriver: o.StorageDriver, InstallURL: o.InstallURL,
		},
	}
	if c.HostOptions.SwarmOptions.IsSwarm {
		e.note("it is part of a Docker Swarm of the old kind, which is not looked after")
	}
	return e, b, nil
}

// check returns what all drivers have in their state, or why the entry can't be used.
func (c *config) check(name string) (base, error) {
	switch {
	case c.ConfigVersion > configVersion:
		return base{}, fmt.Errorf("%s has version %d, and only %d is known: it was written by a newer docker-machine", configFile, c.ConfigVersion, configVersion)
	case c.ConfigVersion < configVersion:
		return base{}, fmt.Errorf("%s has version %d of an older docker-machine: \"docker-machine inspect %s\" of a newer one brings it to version %d", configFile, c.ConfigVersion, name, configVersion)
	case c.Name != name:
		return base{}, fmt.Errorf("%s is that of another machine, %.60q: was the folder copied or renamed?", configFile, c.Name)
	case c.DriverName == "":
		return base{}, fmt.Errorf("%s names no driver", configFile)
	}
	var b base
	if err := json.Unmarshal(c.Driver, &b); err != nil || len(c.Driver) == 0 || c.Driver[0] != '{' {
		return base{}, fmt.Errorf("the driver's state in %s can't be read", configFile)
	}
	if b.MachineName != "" && b.MachineName != name {
		return base{}, fmt.Errorf("the driver's state is that of another machine, %.60q: was the folder copied or renamed?", b.MachineName)
	}
	return b, b.check()
}

// check says what can't be.
func (b base) check() error {
	if strange(b.IPAddress) || strange(b.SSHUser) {
		return fmt.Errorf("the driver's state has an address or a user that can't be (%.60q, %.60q)", b.IPAddress, b.SSHUser)
	}
	if b.SSHPort < 0 || b.SSHPort > 65535 {
		return fmt.Errorf("the driver's state has no valid SSH port (%d)", b.SSHPort)
	}
	return nil
}

// strange says whether a text is no host's or user's name: it might be taken for an option, or mislead who reads it.
func strange(text string) bool {
	return len(text) > 255 || strings.HasPrefix(text, "-") || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}

// withoutText is what is wrong with a JSON text, without anything of the text.
func withoutText(err error, size int) string {
	if size == 0 {
		return "it is empty"
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		if syntax.Offset >= int64(size) {
			return "it ends in the middle"
		}
		return fmt.Sprintf("it is not JSON at byte %d", syntax.Offset)
	}
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return "the type of " + kind.Field + " is not as expected"
	}
	return "it is not JSON"
}

func (e *Entry) note(format string, args ...any) {
	e.Notes = append(e.Notes, fmt.Sprintf(format, args...))
}

// settle finds the machine's key, and puts right what was written when the store was elsewhere: all its paths are absolute.
func (e *Entry) settle(dir string, b base) error {
	if e.Login.Host == "" {
		e.note("it has no address: its creation may have been cut off; its driver is asked")
	}
	change := map[string]string{}
	if b.StorePath != "" && filepath.Clean(b.StorePath) != dir {
		change["StorePath"] = dir
		e.note("the store was at %s when it was written", b.StorePath)
	}
	key := b.SSHKeyPath
	here := filepath.Join(dir, "machines", e.Name, filepath.Base(filepath.ToSlash(key)))
	if key == "" {
		key = filepath.Join(dir, "machines", e.Name, "id_rsa")
	}
	switch {
	case isFile(key):
	case b.SSHKeyPath != "" && isFile(here):
		change["SSHKeyPath"] = here
		key = here
	default:
		e.note("its SSH key is not there: %s", key)
	}
	e.Login.Identity = key
	if len(change) == 0 {
		return nil
	}
	var err error
	e.Driver, err = with(e.Driver, change)
	return err
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// with returns a JSON object with some texts changed; all else stays to the letter.
func with(object json.RawMessage, change map[string]string) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil {
		return nil, errors.New("the driver's state can't be read")
	}
	for name, text := range change {
		data, err := json.Marshal(text)
		if err != nil {
			return nil, err
		}
		fields[name] = data
	}
	return json.Marshal(fields)
}
