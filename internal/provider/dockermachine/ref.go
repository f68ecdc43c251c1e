package dockermachine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// ref is what finds a machine again: tranter.MachineRef's Ref.
type ref struct {
	Driver string          `json:"driver"`
	Config json.RawMessage `json:"config"` // the driver's state; it has secrets in it
	// Changed says that Create has put in what names the machine at its provider. Until then Remove may remove nothing and
	// call that success.
	Changed bool `json:"changed"`
	// Nothing says that no machine was made: the driver was not asked after all, or its provider has refused. Remove may
	// still find what the driver made before, such as a key.
	Nothing bool `json:"nothing,omitempty"`
}

// Ref returns the reference of a machine whose driver's state is config, such as that in a config.json of docker-machine.
func Ref(driver string, config json.RawMessage) (json.RawMessage, error) {
	return ref{Driver: driver, Config: config, Changed: true}.raw()
}

func (r ref) raw() (json.RawMessage, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, errors.New("the driver's state is not JSON") // err would quote it
	}
	return raw, nil
}

func parseRef(raw []byte) (ref, error) {
	var r ref
	if err := json.Unmarshal(raw, &r); err != nil {
		return ref{}, errors.New("the machine's reference is malformed") // err would quote it
	}
	if r.Driver == "" || !bytes.HasPrefix(bytes.TrimSpace(r.Config), []byte("{")) {
		return ref{}, errors.New("the machine's reference lacks the driver's name or state")
	}
	return r, nil
}

// refFile keeps the latest reference in a machine's folder.
const refFile = "tranter.json"

// folders are the machines' folders, below the one that has the name.
type folders string

// of returns a machine's folder, where drivers look for it.
func (f folders) of(name string) string { return filepath.Join(string(f), "machines", name) }

// keep writes a machine's reference, durably.
func (f folders) keep(name string, raw json.RawMessage) error {
	if err := os.MkdirAll(f.of(name), dirMode); err != nil {
		return fmt.Errorf("make the folder of machine %s: %w", name, err)
	}
	if err := replace(filepath.Join(f.of(name), refFile), raw); err != nil {
		return fmt.Errorf("note what is known of machine %s: %w", name, err)
	}
	return nil
}

func replace(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // for us only
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// kept returns the reference in a machine's folder, if there is one.
func (f folders) kept(name string) (ref, bool, error) {
	raw, err := os.ReadFile(filepath.Join(f.of(name), refFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ref{}, false, nil
	}
	if err != nil {
		return ref{}, false, fmt.Errorf("read what is known of machine %s: %w", name, err)
	}
	r, err := parseRef(raw)
	if err != nil {
		return ref{}, false, fmt.Errorf("file %s of machine %s: %w", refFile, name, err)
	}
	return r, true, nil
}

// foreign says that docker-machine keeps a machine of that name in the same place.
func (f folders) foreign(name string) bool {
	_, err := os.Stat(filepath.Join(f.of(name), "config.json"))
	return err == nil
}

// latest returns the better of what the caller and the machine's folder know. The folder's may be newer by a crash.
func (f folders) latest(name string, raw json.RawMessage) (ref, bool, error) {
	kept, found, err := f.kept(name)
	if len(raw) == 0 {
		return kept, found, err
	}
	given, wrong := parseRef(raw)
	switch {
	case wrong != nil && found:
		return kept, true, nil
	case wrong != nil:
		return ref{}, false, fmt.Errorf("machine %s: %w", name, wrong)
	case found && (kept.Changed || kept.Nothing) && !given.Changed:
		return kept, true, nil
	}
	return given, true, nil
}

// namedByName says that a driver finds its machines by their names, so that it needs to learn nothing.
func namedByName(driver string) bool {
	return slices.Contains([]string{
		"azure", "generic", "google", "hyperv", "none", "virtualbox", "vmwarefusion", "vmwarevcloudair", "vmwarevsphere",
	}, plugin.Name(driver))
}

// idField is where a driver's state has the machine's id.
func idField(driver string) string {
	switch plugin.Name(driver) {
	case "amazonec2":
		return "InstanceId"
	case "digitalocean":
		return "DropletID"
	case "hetzner":
		return "ServerID"
	case "openstack", "rackspace":
		return "MachineId"
	case "softlayer":
		return "Id"
	}
	return ""
}

// named says whether now has what names the machine at the provider: the driver's own field where that is known, else a
// field that looks like it and was different before Create began.
func named(driver string, before, now json.RawMessage) bool {
	if namedByName(driver) {
		return true
	}
	is := leaves(now)
	if field := idField(driver); field != "" {
		return isValue(is[field])
	}
	was, ids, changed := leaves(before), false, false
	for name, value := range is {
		differs := isValue(value) && !reflect.DeepEqual(value, was[name])
		id := looksLikeID(name)
		if differs && (id || name == "IPAddress") {
			return true
		}
		ids = ids || id
		changed = changed || differs && !slices.Contains([]string{"SSHUser", "SSHPort", "SSHKeyPath"}, name)
	}
	return changed && !ids // a state without ids: whatever it is that has changed
}

// machineID returns the id of a machine for people, if it can be told.
func machineID(driver string, config json.RawMessage) string {
	is := leaves(config)
	if field := idField(driver); field != "" {
		return text(is[field])
	}
	best := ""
	for name, value := range is {
		if looksLikeID(name) && isValue(value) && (best == "" || name < best) {
			best = name
		}
	}
	return text(is[best])
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

func isValue(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case string:
		return v != ""
	case json.Number:
		f, err := v.Float64()
		return err != nil || f != 0
	case bool:
		return v
	}
	return true
}

// looksLikeID tells the ids of machines from those of what machines need.
func looksLikeID(path string) bool {
	name, _, _ := strings.Cut(path, ".")
	lower := strings.ToLower(name)
	if lower != "id" && !strings.HasSuffix(name, "ID") && !strings.HasSuffix(name, "Id") && !strings.HasSuffix(lower, "_id") {
		return false
	}
	return !slices.ContainsFunc([]string{
		"key", "group", "net", "image", "project", "tenant", "account", "region", "zone", "vpc", "volume", "firewall", "user",
		"domain", "flavor", "plan", "app", "iso", "script", "snapshot", "client", "subscription", "floating", "address",
		"placement", "profile", "template", "owner", "request", "ami", "eni", "interface", "osid", "ipid",
	}, func(other string) bool { return strings.Contains(lower, other) })
}

// maxDepth is how deep a driver's state is looked into.
const maxDepth = 4

// leaves returns the single values in a JSON object by their paths, with dots.
func leaves(raw json.RawMessage) map[string]any {
	found := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var top any
	if err := d.Decode(&top); err == nil {
		collect(found, "", top, maxDepth)
	}
	return found
}

func collect(found map[string]any, path string, v any, depth int) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if depth > 0 {
				collect(found, join(path, name), inner, depth-1)
			}
		}
	case []any:
		for i, inner := range v {
			if depth > 0 {
				collect(found, join(path, strconv.Itoa(i)), inner, depth-1)
			}
		}
	default:
		found[path] = v
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// secretsIn returns the secrets in a driver's state, so that they can be hidden.
func secretsIn(config json.RawMessage) []string {
	var secrets []string
	for path, value := range leaves(config) {
		if s, ok := value.(string); ok && secretName(path) && len(s) >= minSecret {
			secrets = append(secrets, s)
		}
	}
	return secrets
}

// minSecret is how long a secret has to be: to hide shorter ones would hide much else, and tell that it did.
const minSecret = 4

// secretName says whether something of that name is likely to be secret.
func secretName(name string) bool {
	name = strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name))
	if strings.HasSuffix(name, "path") || strings.HasSuffix(name, "file") {
		return false
	}
	return slices.ContainsFunc([]string{"token", "secret", "password", "passwd", "apikey", "accesskey", "privatekey", "credential"},
		func(word string) bool { return strings.Contains(name, word) })
}
