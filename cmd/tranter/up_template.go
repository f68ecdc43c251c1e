package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/examples"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/view"
)

// templateName is a name that is no path.
var templateName = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)

// defaultTemplate is the name of the template that holds if none is named: the one of the executor, unless the directory has
// one of that name.
const defaultTemplate = "default"

// upTemplate is a configuration with placeholders.
type upTemplate struct {
	name string // for messages
	text string
}

// findTemplate reads the template of a name from a directory, or takes the one that the program has.
func findTemplate(dir, name, executor string) (upTemplate, error) {
	if !templateName().MatchString(name) {
		return upTemplate{}, fmt.Errorf("--template %q is no name of a template: a path goes into --config-dir", name)
	}
	path := filepath.Join(dir, strings.TrimSuffix(name, ".toml")+".toml")
	data, err := os.ReadFile(path)
	if err == nil {
		return upTemplate{path, string(data)}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return upTemplate{}, fmt.Errorf("read the template: %w", err)
	}
	own := strings.TrimSuffix(name, ".toml")
	if own == defaultTemplate {
		own = map[string]string{"": "docker", "docker+machine": "machine"}[executor]
		if own == "" {
			own = executor
		}
	}
	data, err = examples.Up.ReadFile("up/" + own + ".toml")
	if err != nil {
		return upTemplate{}, fmt.Errorf("there is no template %s: %s is missing, and of its own the program has %s", name, path, strings.Join(ownTemplates(), ", "))
	}
	return upTemplate{own + ".toml", string(data)}, nil
}

// ownTemplates are the names of the templates that the program has.
func ownTemplates() []string {
	entries, _ := examples.Up.ReadDir("up")
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".toml"))
	}
	return names
}

// upValues are the values of the placeholders that are our own.
type upValues struct {
	URL, Name, Tags, Executor string
	Token                     tranter.Secret
	// Prefix is that of caches in a bucket.
	Prefix string
	TLS    struct{ CA, Cert, Key string }
}

// lookup returns the value of a placeholder: ours, else that of the environment variable.
func (v upValues) lookup(name string) (string, bool) {
	own := map[string]string{
		"CI_SERVER_URL": v.URL, "RUNNER_NAME": v.Name, "RUNNER_TAG_LIST": v.Tags, "RUNNER_EXECUTOR": v.Executor,
		"RUNNER_TOKEN": v.Token.Reveal(), "CI_SERVER_TOKEN": v.Token.Reveal(),
	}
	if value, ok := own[name]; ok {
		return value, value != ""
	}
	if name == "REGISTRATION_TOKEN" {
		return "", false // a runner's configuration has no use for it
	}
	if value := os.Getenv(name); value != "" {
		return value, true
	}
	switch name {
	case "CACHE_PREFIX":
		return v.Prefix, true
	case "MACHINE_NAME":
		return machinePattern(v.Name), true
	}
	value, ok := os.LookupEnv(name)
	return value, ok
}

// ownPrefix is a prefix for caches that nobody else has.
func ownPrefix(name string) string {
	return "tranter-up/" + hostLabel(name) + "-" + strings.ToLower(rand.Text()[:8])
}

// machinePattern is the pattern of machines' names that goes with a runner's name.
func machinePattern(name string) string { return hostLabel(name) + "-%s" }

// hostLabel is what of a name may stand in that of a host.
func hostLabel(name string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		default:
			return '-'
		}
	}, name)
	for strings.Contains(label, "--") {
		label = strings.ReplaceAll(label, "--", "-")
	}
	label = strings.Trim(label[:min(len(label), 32)], "-")
	if label == "" {
		return "runner"
	}
	return label
}

// filled is a template with its values.
type filled struct {
	text   []byte
	config config.Config
	// prefixed says that caches are below a prefix of ours.
	prefixed bool
}

func (f filled) runner() config.Runner { return f.config.Runners[0] }

// fill puts the values into the template, and what the server says of the runner. Mistakes are told with their positions.
func (t upTemplate) fill(v upValues, got gitlab.Registered, now time.Time) (filled, error) {
	text, used, err := fillTemplate(t.name, t.text, v.lookup)
	if err != nil {
		return filled{}, fmt.Errorf("the template can't be filled:\n%w", err)
	}
	c, err := t.parse([]byte(text), false)
	if err != nil {
		return filled{}, err
	}
	if len(c.Runners) != 1 {
		return filled{}, fmt.Errorf("the template %s has %s: it needs exactly one [[runners]] section", t.name, view.Count(len(c.Runners), "runner"))
	}
	editor, err := config.Edit([]byte(text))
	if err == nil {
		err = setRunner(editor, c.Runners[0], v, got, now)
	}
	if err != nil {
		return filled{}, fmt.Errorf("complete the template %s: %w", t.name, err)
	}
	out := filled{text: editor.Bytes(), prefixed: used["CACHE_PREFIX"] && os.Getenv("CACHE_PREFIX") == ""}
	out.config, err = t.parse(out.text, true)
	return out, err
}

// parse reads the filled template. Before it is complete, what is missing is no mistake.
func (t upTemplate) parse(text []byte, complete bool) (config.Config, error) {
	c, problems := config.Parse(config.Source{Name: t.name, Data: text, Getenv: os.Getenv, ReadFile: os.ReadFile})
	problems = slices.DeleteFunc(problems, func(p config.Problem) bool {
		return p.Severity != config.Error || !complete && strings.Contains(p.Text, "is missing")
	})
	if len(problems) > 0 {
		return c, fmt.Errorf("the template can't be used:\n%w", problemList(problems))
	}
	return c, nil
}

// setRunner sets what of a runner's section is not the template's to say.
func setRunner(e *config.Editor, r config.Runner, v upValues, got gitlab.Registered, now time.Time) error {
	entries := []config.Entry{{Key: "token", Value: v.Token}}
	add := func(key, value string) {
		if value != "" {
			entries = append(entries, config.Entry{Key: key, Value: value})
		}
	}
	add("url", v.URL)
	add("name", v.Name)
	add("tls-ca-file", v.TLS.CA)
	add("tls-cert-file", v.TLS.Cert)
	add("tls-key-file", v.TLS.Key)
	if got.ID != 0 {
		entries = append(entries, config.Entry{Key: "id", Value: got.ID}, config.Entry{Key: "token_obtained_at", Value: now.UTC().Truncate(time.Second)})
	}
	if !got.TokenExpiresAt.IsZero() {
		entries = append(entries, config.Entry{Key: "token_expires_at", Value: got.TokenExpiresAt})
	}
	for _, entry := range entries {
		if err := e.Set(r.Index, entry.Key, entry.Value); err != nil {
			return err
		}
	}
	return e.Unset(r.Index, "token_file")
}

// assignment is a text of the form NAME=VALUE in a list.
var assignment = lazy.Regexp(`"([^"=\s]+)=([^"]*)"`)

// shown is the filled template without its secrets: what keys, names of placeholders and names of options tell to be secret.
func (t upTemplate) shown(v upValues) (string, error) {
	const stars = "******"
	if v.Token != "" {
		v.Token = stars
	}
	text, _, err := fillTemplate(t.name, t.text, func(name string) (string, bool) {
		value, ok := v.lookup(name)
		if ok && value != "" && config.SecretName(name) {
			value = stars
		}
		return value, ok
	})
	if err != nil {
		return "", fmt.Errorf("the template can't be filled:\n%w", err)
	}
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		key, value, ok := strings.Cut(line, "=")
		name := strings.TrimSpace(key)
		if ok && config.SecretName(name) && strings.ContainsAny(value, `"'`) && !strings.HasSuffix(name, "_file") {
			lines[i] = key + `= "` + stars + "\"\n"
			continue
		}
		lines[i] = assignment().ReplaceAllStringFunc(line, func(text string) string {
			if name := assignment().FindStringSubmatch(text)[1]; config.SecretName(name) {
				return `"` + name + "=" + stars + `"`
			}
			return text
		})
	}
	return strings.Join(lines, ""), nil
}
