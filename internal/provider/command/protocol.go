package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
)

// version is the one of the protocol.
const version = 1

// request is what a program reads.
type request struct {
	Version int               `json:"version"`
	Action  string            `json:"action"`
	Name    string            `json:"name,omitempty"`
	Owner   string            `json:"owner,omitempty"`
	Pool    string            `json:"pool,omitempty"`
	ID      string            `json:"id,omitempty"`
	Ref     json.RawMessage   `json:"ref,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// about is a request that concerns a machine that is there already.
func about(action string, m tranter.MachineRef, known answer) request {
	return request{Action: action, Name: m.Name, ID: known.ID, Ref: known.Ref}
}

// options makes a map of NAME=VALUE; NAME alone is NAME=true, and a later one wins.
func options(list []string) map[string]string {
	m := make(map[string]string, len(list))
	for _, o := range list {
		name, value, ok := strings.Cut(strings.TrimLeft(o, "-"), "=")
		if !ok {
			value = "true"
		}
		m[name] = value
	}
	return m
}

// answer is what a program says of a machine. It is also what is kept of it.
type answer struct {
	ID       string          `json:"id,omitempty"`
	Address  string          `json:"address,omitempty"`
	User     string          `json:"user,omitempty"`
	Port     int             `json:"port,omitempty"`
	Identity string          `json:"identity_file,omitempty"`
	Power    tranter.Power   `json:"power,omitempty"`
	Ref      json.RawMessage `json:"ref,omitempty"`
}

// entry is one machine of a list.
type entry struct {
	Name  string `json:"name"`
	Owner string `json:"owner,omitempty"`
	Pool  string `json:"pool,omitempty"`
	answer
}

const (
	maxText = 1024
	maxRef  = 64 << 10
	maxPort = 65535
)

func (e entry) check() error {
	if !plain(e.Name) || e.Name == "" {
		return fmt.Errorf("a machine's name is %s", brief(e.Name))
	}
	e.Address = firstOf(e.Address, "none") // the list need not have it
	if err := e.answer.check(); err != nil {
		return fmt.Errorf("machine %q: %w", e.Name, err)
	}
	return nil
}

func (a answer) check() error {
	switch {
	case a.Address == "":
		return errors.New("no address")
	case !plain(a.Address) || strings.ContainsAny(a.Address, "/@[]"):
		return fmt.Errorf("the address is %s, expected a host name or an IP address", brief(a.Address))
	case !plain(a.ID) || !plain(a.User):
		return fmt.Errorf("the id is %s and the user is %s, expected words", brief(a.ID), brief(a.User))
	case a.Port < 0 || a.Port > maxPort:
		return fmt.Errorf("the port is %d", a.Port)
	case len(a.Ref) > maxRef:
		return fmt.Errorf("the ref has %d bytes, expected at most %d", len(a.Ref), maxRef)
	case a.Identity != "" && !filepath.IsAbs(a.Identity):
		return fmt.Errorf("the identity_file is %s, expected an absolute path", brief(a.Identity))
	}
	return checkPower(a.Power)
}

func checkPower(p tranter.Power) error {
	if slices.Contains([]tranter.Power{"", tranter.PowerOn, tranter.PowerOff, tranter.PowerChanges, tranter.PowerUnknown}, p) {
		return nil
	}
	return fmt.Errorf("the power is %s, expected running, stopped, changing or unknown", brief(string(p)))
}

// plain says whether a word may be passed on: it is not long, has neither blanks nor control characters, and is no flag.
func plain(word string) bool {
	return len(word) <= maxText && !strings.HasPrefix(word, "-") && !strings.ContainsFunc(word, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '\ufffd' })
}

func brief(text string) string {
	if len(text) > 64 {
		text = text[:64] + "..."
	}
	return fmt.Sprintf("%q", text)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// over completes an entry with what was known before.
func (e entry) over(before answer) answer {
	a := e.answer
	a.ID, a.Address, a.User, a.Identity = firstOf(a.ID, before.ID), firstOf(a.Address, before.Address), firstOf(a.User, before.User), firstOf(a.Identity, before.Identity)
	if a.Port == 0 {
		a.Port = before.Port
	}
	if len(a.Ref) == 0 {
		a.Ref = before.Ref
	}
	return a
}

func (a answer) login() tranter.Login {
	return tranter.Login{Host: a.Address, Port: a.Port, User: a.User, Identity: a.Identity}
}

// keep is what will be needed to find the machine again; nil: nothing is known yet, or what is known is not to be believed.
func (a answer) keep() json.RawMessage {
	a.Power = ""
	checked := a
	checked.Address = firstOf(a.Address, "none")
	if checked.check() != nil {
		return nil
	}
	ref, err := json.Marshal(a)
	if err != nil || string(ref) == "{}" {
		return nil
	}
	return ref
}

// kept is what keep has made.
func kept(ref json.RawMessage) answer {
	var a answer
	if len(ref) > 0 {
		if err := json.Unmarshal(ref, &a); err != nil {
			return answer{} // not ours; the name has to do
		}
	}
	return a
}

func (a answer) machine(name string) tranter.Machine {
	power := a.Power
	if power == "" {
		power = tranter.PowerOn
	}
	return tranter.Machine{Name: name, ID: a.ID, Power: power, Login: a.login(), Ref: a.keep()}
}

// decode reads one value of a program's output. A field that is not known is most likely a misspelt one.
func decode(value json.RawMessage, to any) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("understand the answer: %w", err)
	}
	return nil
}

// expected is how an answer looks.
func expected(action string) string {
	switch action {
	case "list":
		return `expected {"machines": [{"name": "...", "owner": "...", "pool": "...", "address": "..."}]}`
	case "create", "status", "start":
		return `expected {"address": "...", "id": "...", "user": "...", "port": 22, "identity_file": "...", "power": "running", "ref": {}}`
	}
	return "expected no output"
}
