// Package service makes Tranter a service of systemd: the text of its unit, where that lies, and the questions and
// orders to systemd that install, start, stop, restart, status and uninstall consist of (runner contract, section 12.2).
package service

import (
	"bytes"
	_ "embed" // the unit and its drop-in
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"
	"unicode"
)

//go:embed unit.tmpl
var unitText string

//go:embed hardened.conf
var hardenedText string

// DefaultName is what the service is called unless a flag says otherwise.
const DefaultName = "tranter"

// mark is in every unit that we have written: only such a one is replaced or removed.
const mark = "# Written by \"tranter install\""

// Unit is what a unit is made of.
type Unit struct {
	Name       string // of the service, without ".service"
	Program    string // absolute path of tranter
	Config     string // absolute path of the configuration
	WorkingDir string // for builds and caches without a directory of their own; empty: the state directory
	JobUser    string // as whom the shell executor runs jobs; empty: as the manager
	InitUser   string // as whom the manager itself runs; empty or root: as root
	StateDir   string // absolute path; empty: systemd makes one, /var/lib/NAME; needed for a service of a user
	PerUser    bool   // a service of the user who installs it, not of the system
	Packaged   bool   // the unit comes with a package: install does not take it for its own
}

// Text returns the unit file. The error says what can't be in one.
func (u Unit) Text() (string, error) {
	if err := u.check(); err != nil {
		return "", err
	}
	if u.InitUser == "root" {
		u.InitUser = ""
	}
	t, err := template.New("unit").Funcs(template.FuncMap{"word": word, "value": value}).Parse(unitText)
	if err != nil {
		return "", fmt.Errorf("read the template of the unit: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]any{"Unit": u, "Mark": mark, "Start": u.start(), "Stop": u.stop()}); err != nil {
		return "", fmt.Errorf("make the unit: %w", err)
	}
	return b.String(), nil
}

// check says what can't be in a unit.
func (u Unit) check() error {
	if err := ValidName(u.Name); err != nil {
		return err
	}
	for what, path := range map[string]string{"program": u.Program, "configuration": u.Config} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("the path of the %s has to be absolute, not %q", what, path)
		}
	}
	for _, s := range []string{u.Program, u.Config, u.WorkingDir, u.JobUser, u.InitUser, u.StateDir} {
		if strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("a unit can't hold %q: it has a control character", s)
		}
	}
	switch {
	case u.PerUser && (u.InitUser != "" && u.InitUser != "root" || u.JobUser != ""):
		return errors.New("a user's own service runs everything as that user: leave out --user and --init-user")
	case u.PerUser && u.StateDir == "":
		return errors.New("a user's own service needs a state directory: name one with --state-dir")
	}
	return nil
}

// Hardened returns the drop-in for managers none of whose jobs runs on this host itself.
func Hardened() string { return hardenedText }

// start is the command that the service runs.
func (u Unit) start() []string {
	args := []string{u.Program, "run", "--config", u.Config, "--service", u.Name}
	if u.WorkingDir != "" {
		args = append(args, "--working-directory", u.WorkingDir)
	}
	if u.StateDir != "" {
		args = append(args, "--state-dir", u.StateDir)
	}
	if u.JobUser != "" {
		args = append(args, "--user", u.JobUser)
	}
	return args
}

// stop is the command that ends it.
func (u Unit) stop() []string {
	args := []string{u.Program, "stop", "--from-systemd", "--config", u.Config, "--service", u.Name}
	if u.StateDir != "" {
		args = append(args, "--state-dir", u.StateDir)
	}
	if u.PerUser {
		args = append(args, "--user-service")
	}
	return args
}

// nameLetters are those that a service's name consists of, and systemd's too.
const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:@"

// ValidName says why a service can't be called that.
func ValidName(name string) error {
	if name == "" || len(name) > 200 || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(nameLetters, r) }) || strings.ContainsAny(name[:1], ".-") || strings.HasSuffix(name, "@") {
		return fmt.Errorf("a service can't be called %q: use letters, digits, and any of - _ . : @", name)
	}
	return nil
}

// value is s where a unit takes one path or name: only % means something there.
func value(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// word is one word of a command line in a unit, where quotes, backslashes, % and $ mean something.
func word(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(s)
	if s == "" || strings.ContainsAny(s, " '\"\\;") {
		return `"` + s + `"`
	}
	return s
}
