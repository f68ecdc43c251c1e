package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
)

// configOf is a config.json as docker-machine writes it for a driver plugin.
func configOf(name, store, more string) string {
	return fmt.Sprintf(`{
    "ConfigVersion": 3,
    "Driver": {"IPAddress": "10.0.0.5", "MachineName": %q, "SSHUser": "debian", "SSHPort": 22, "SSHKeyPath": "%[2]s/machines/%[1]s/id_rsa",
      "StorePath": %[2]q, "SwarmMaster": false, "AccessToken": "hunter2", "ServerID": 12345678901234567890 %[3]s},
    "DriverName": "hetzner",
    "HostOptions": {"Driver": "", "Memory": 0, "Disk": 0,
      "EngineOptions": {"ArbitraryFlags": ["log-level=warn"], "Env": ["A=b"], "InsecureRegistry": ["10.0.0.1:5000"], "Labels": ["site=x"],
        "StorageDriver": "overlay2", "TlsVerify": true, "RegistryMirror": ["https://mirror.example.com"], "InstallURL": "https://get.docker.com"},
      "SwarmOptions": {"IsSwarm": false}, "AuthOptions": {"StorePath": "%[2]s/machines/%[1]s"}},
    "Name": %[1]q
}`, name, store, more)
}

// put writes files below dir; a path that ends in a slash is a folder.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(full, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// state is all that is below a directory.
func state(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := fmt.Sprint(info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += string(data)
		}
		out[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAMachineIsRead(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"machines/ci-1/config.json": configOf("ci-1", dir, ""), "machines/ci-1/id_rsa": "key", "machines/.hidden/": "", "machines/a-file": "x", "certs/ca.pem": ""})
	entries, problems := Read(dir)
	if len(problems) != 0 || len(entries) != 1 {
		t.Fatal(entries, problems)
	}
	e := entries[0]
	if time.Since(e.Saved) > time.Minute || !strings.Contains(string(e.Driver), "12345678901234567890") {
		t.Errorf("saved %v, driver's state %s", e.Saved, e.Driver)
	}
	e.Driver, e.Saved = nil, time.Time{}
	want := Entry{
		Name: "ci-1", DriverName: "hetzner", Login: tranter.Login{Host: "10.0.0.5", Port: 22, User: "debian", Identity: filepath.Join(dir, "machines/ci-1/id_rsa")},
		Engine: Engine{
			Options: []string{"log-level=warn"}, Environment: []string{"A=b"}, Labels: []string{"site=x"}, Mirrors: []string{"https://mirror.example.com"},
			Insecure: []string{"10.0.0.1:5000"}, StorageDriver: "overlay2", InstallURL: "https://get.docker.com",
		},
	}
	if d := cmp.Diff(want, e); d != "" {
		t.Error(d)
	}
}

func TestBrokenEntriesAreNamedAndOthersRead(t *testing.T) {
	dir := t.TempDir()
	swap := func(old, with string) string { return strings.Replace(configOf("x", dir, ""), old, with, 1) }
	broken := map[string]struct{ file, want string }{
		"empty":     {"", "empty"},
		"cut":       {swap(`"Name"`, "\x00")[:200], "ends in the middle"},
		"no-json":   {"hunter2", "not JSON at byte 1"},
		"newer":     {swap(`Version": 3`, `Version": 4`), "newer docker-machine"},
		"older":     {swap(`Version": 3`, `Version": 1`), "older docker-machine"},
		"none":      {"{}", "version 0"},
		"copied":    {configOf("other", dir, ""), `another machine, "other"`},
		"driverof":  {strings.Replace(strings.ReplaceAll(configOf("x", dir, ""), `"x"`, `"driverof"`), `"MachineName": "driverof"`, `"MachineName": "y"`, 1), `another machine, "y"`},
		"no-driver": {`{"ConfigVersion": 3, "Name": "no-driver", "DriverName": "d"}`, "driver's state"},
		"null":      {`{"ConfigVersion": 3, "Name": "null", "DriverName": "d", "Driver": null}`, "driver's state"},
		"text":      {`{"ConfigVersion": 3, "Name": "text", "DriverName": "d", "Driver": "hunter2"}`, "driver's state"},
		"nameless":  {`{"ConfigVersion": 3, "Name": "nameless", "Driver": {}}`, "names no driver"},
		"types":     {`{"ConfigVersion": "3", "Driver": "hunter2"}`, "type of ConfigVersion"},
		"port":      {`{"ConfigVersion": 3, "Name": "port", "DriverName": "d", "Driver": {"SSHPort": 70000}}`, "SSH port"},
		"option":    {`{"ConfigVersion": 3, "Name": "option", "DriverName": "d", "Driver": {"IPAddress": "-oProxyCommand=x"}}`, "can't be"},
		"colours":   {`{"ConfigVersion": 3, "Name": "colours", "DriverName": "d", "Driver": {"SSHUser": "a\u001b[2J"}}`, "can't be"},
		"large":     {strings.Repeat(" ", maxConfig+1), "more than"},
	}
	files := map[string]string{"machines/ok/config.json": configOf("ok", dir, ""), "machines/ok/id_rsa": "", "machines/cut-off/": "", "machines/saving/config.json.tmp123": "{}", "machines/a b/config.json": "", "machines/folder/config.json/": ""}
	for name, b := range broken {
		files["machines/"+name+"/config.json"] = b.file
	}
	put(t, dir, files)
	if err := os.Symlink(filepath.Join(dir, "machines", "ok"), filepath.Join(dir, "machines", "link")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"cut-off": "creation was cut off", "saving": "config.json.tmp123 may be a whole copy", "a b": "name can't be", "folder": "no regular file", "link": "symbolic link"}
	for name, b := range broken {
		want[name] = b.want
	}
	before := state(t, dir)
	entries, problems := Read(dir)
	if len(entries) != 1 || entries[0].Name != "ok" {
		t.Errorf("entries %v", entries)
	}
	if len(problems) != len(want) || !slices.IsSortedFunc(problems, func(a, b Problem) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%d problems, want %d: %v", len(problems), len(want), problems)
	}
	for _, p := range problems {
		if text := p.Error(); want[p.Name] == "" || !strings.Contains(text, want[p.Name]) || strings.Contains(text, "hunter2") {
			t.Errorf("%s, want %q", text, want[p.Name])
		}
	}
	if d := cmp.Diff(before, state(t, dir)); d != "" {
		t.Errorf("the store was changed:\n%s", d)
	}
}

func TestAStoreThatWasMoved(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"machines/ci-1/config.json": configOf("ci-1", "/root/.docker/machine", ""), "machines/ci-1/id_rsa": "key"})
	entries, problems := Read(dir)
	if len(problems) != 0 || len(entries) != 1 {
		t.Fatal(entries, problems)
	}
	e := entries[0]
	key := filepath.Join(dir, "machines/ci-1/id_rsa")
	var b base
	if err := json.Unmarshal(e.Driver, &b); err != nil || b.StorePath != dir || b.SSHKeyPath != key || e.Login.Identity != key {
		t.Errorf("%v, %+v, %+v", err, b, e.Login)
	}
	if !strings.Contains(string(e.Driver), `"ServerID":12345678901234567890`) || !strings.Contains(string(e.Driver), "hunter2") {
		t.Errorf("the driver's state has lost something: %s", e.Driver)
	}
	if len(e.Notes) != 1 || !strings.Contains(e.Notes[0], "/root/.docker/machine") {
		t.Errorf("notes %q", e.Notes)
	}
}

func TestOddEntriesAreNoted(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"machines/a/config.json": `{"ConfigVersion": 3, "Name": "a", "DriverName": "d", "Driver": {}, "HostOptions": {"SwarmOptions": {"IsSwarm": true}}}`,
	})
	if err := os.Chmod(filepath.Join(dir, "machines/a/config.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	entries, _ := Read(dir)
	if len(entries) != 1 {
		t.Fatal(entries)
	}
	for _, want := range []string{"no address", "SSH key is not there", "Swarm", "chmod 600"} {
		if !slices.ContainsFunc(entries[0].Notes, func(n string) bool { return strings.Contains(n, want) }) {
			t.Errorf("no note of %q: %q", want, entries[0].Notes)
		}
	}
}

func TestAStoreThatIsNotThere(t *testing.T) {
	entries, problems := Read(filepath.Join(t.TempDir(), "none"))
	if len(entries) != 0 || len(problems) != 1 || problems[0].Name != "" || !errors.Is(problems[0].Err, fs.ErrNotExist) {
		t.Errorf("%v, %v", entries, problems)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(configOf("x", "/s", "")))
	f.Add([]byte(`{"ConfigVersion": 3, "Name": "x", "DriverName": "d", "Driver": {"SSHPort": -1}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, b, err := parse("x", data)
		if err != nil {
			return
		}
		if err := e.settle("/s", b); err != nil {
			t.Fatalf("%v in %q", err, data)
		}
		if e.Name != "x" || e.DriverName == "" || !json.Valid(e.Driver) || e.Login.Port < 0 || e.Login.Port > 65535 {
			t.Errorf("%+v of %q", e, data)
		}
	})
}
