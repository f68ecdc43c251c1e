package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
)

// Source is a configuration file and the surroundings that it refers to.
type Source struct {
	Name string // path of the file, for messages; relative paths in it start at its directory
	Data []byte
	// Getenv looks up the variables in url and token; nil leaves them as they are written.
	Getenv func(string) string
	// ReadFile reads token_file; nil leaves the token empty, and is no problem.
	ReadFile func(string) ([]byte, error)
}

// Parse returns the settings of a file with all defaults filled in, and all problems in the order of the file. The
// settings can be used if no problem is an Error.
func Parse(s Source) (Config, []Problem) {
	doc, faults := parseTOML(s.Data)
	d := &checker{decoder: newDecoder(s, faults)}
	config := Default()
	d.table(d.schema, doc.root, reflect.ValueOf(&config).Elem(), -1)
	d.checkConfig(&config, doc.root)
	sections := sectionNodes(doc.root)
	for i, section := range sections {
		if i < len(config.Runners) {
			d.damaged = slices.ContainsFunc(faults, func(f fault) bool {
				return f.at > section.at && (i+1 == len(sections) || f.at < sections[i+1].at)
			})
			d.resolve(s, &config.Runners[i], section)
			d.checkRunner(&config, &config.Runners[i], section)
		}
	}
	d.checkTogether(&config, doc.root)
	d.reportUnbuilt(&config)
	sortProblems(d.problems)
	findSections(&d.findings, sections)
	return config, d.problems
}

// findSections says of each problem in which [[runners]] section it is.
func findSections(d *findings, sections []*node) {
	lines := make([]int, len(sections))
	for i, n := range sections {
		_, lines[i], _ = d.place(n.at)
	}
	for i := range d.problems {
		p := &d.problems[i]
		if p.Key != "runners" && !strings.HasPrefix(p.Key, "runners.") {
			continue
		}
		for n, line := range lines {
			if line <= p.Line {
				p.Section = n + 1
			}
		}
	}
}

// sectionNodes returns the [[runners]] sections of a tree.
func sectionNodes(root *node) []*node {
	runners := root.find("runners")
	if runners == nil || runners.kind != kindArray {
		return nil
	}
	var out []*node
	for _, n := range runners.list {
		if n.kind == kindTable {
			out = append(out, n)
		}
	}
	return out
}

// resolve puts in what url, token and token_file refer to.
func (d *checker) resolve(s Source, r *Runner, n *node) {
	r.Raw = Raw{URL: r.URL, Token: r.Token, TokenFile: r.TokenFile}
	if s.Getenv != nil {
		r.URL = d.expand(s, r.URL, "url", n)
		r.Token = tranter.Secret(d.expand(s, r.Token.Reveal(), "token", n))
	}
	if r.TokenFile == "" {
		return
	}
	if r.Token != "" {
		d.report(Error, n.nearest("token_file"), "runners.token_file", "token and token_file are both given", "Remove one of the two.")
		return
	}
	if s.ReadFile != nil {
		r.Token = d.readToken(s, r.TokenFile, n.nearest("token_file"))
	}
}

// expand replaces $VAR and ${VAR}, and reports variables that are empty.
func (d *checker) expand(s Source, text, key string, n *node) string {
	return os.Expand(text, func(name string) string {
		value := s.Getenv(name)
		if value == "" {
			d.report(Error, n.nearest(key), "runners."+key, fmt.Sprintf("the environment variable %s is empty or not set", name), "Set it where the runner is started, or use token_file.")
		}
		return value
	})
}

func (d *checker) readToken(s Source, file string, n *node) tranter.Secret {
	path := file
	hint := "It has to be readable, and to hold the runner's token."
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(s.Name), path)
		hint = "The path is relative to the configuration file."
	}
	data, err := s.ReadFile(path)
	token := strings.TrimSpace(string(data))
	switch {
	case err != nil:
		d.report(Error, n, "runners.token_file", "cannot be read: "+err.Error(), hint)
		return ""
	case token == "":
		d.report(Error, n, "runners.token_file", path+" is empty", "Put the runner's token into it.")
	case strings.ContainsAny(token, " \t\r\n"):
		d.report(Error, n, "runners.token_file", path+" holds more than one word", "Put the runner's token into it, and nothing else.")
	}
	return tranter.Secret(token)
}
