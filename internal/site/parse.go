package site

import (
	"cmp"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
)

// parser makes a Site of a file.
type parser struct {
	loader

	root    config.Value
	site    Site
	secrets []string
	missing []*gap
}

func parse(s Source) (Site, []config.Problem) {
	p := &parser{loader: loader{source: s}}
	p.root = p.load()
	p.site.Files = p.names
	p.site.Path, p.site.This = cmp.Or(s.Path, s.Name), cmp.Or(s.This, "tranter")
	p.top()
	p.manager()
	p.runners()
	p.reportMissing()
	p.checkTogether()
	p.site.hidden = p.secrets
	return p.site, p.files.Sort(p.problems)
}

// sections are the tables of a file that are not read with its top.
func sections() []string {
	return []string{"launch", "executor", "runner", "batch", "manager", "defaults", "shards", "runners"}
}

// table returns a section, which is not there if it is none.
func (p *parser) table(in config.Value, key string) config.Value {
	v := in.Find(key)
	if !v.Exists() || v.IsTable() {
		return v
	}
	p.report(config.Error, v, key, "must be a section, not "+v.Kind(), "Write ["+key+"] and its keys below.")
	return config.Value{}
}

// decode reads a table, with values from files and the environment put in.
func (p *parser) decode(v config.Value, path string, into any) {
	v = p.files.Rewrite(v, into, p.references(path))
	p.problems = append(p.problems, p.files.Decode(v, path, fileTable{}, into)...)
}

// top reads what stands at the top of the file.
func (p *parser) top() {
	v := p.root.Without(sections()...)
	var t topTable
	p.decode(v, "", &t)
	p.site.Name, p.site.Poll = t.Name, t.Poll.Interval
	p.name(t.Name)
	p.server(&t)
	p.token(t.ManagementToken)
	p.site.Scopes = p.scopes(v, scopeKeys{t.Project, t.Projects, t.Group, t.Groups, t.Instance})
	p.site.pending = paths(ScopeProject, t.Poll.Projects)
	p.site.pending = append(p.site.pending, paths(ScopeGroup, t.Poll.Groups)...)
	if t.TLSCAFile != "" {
		p.site.TLSCAFile = p.relative(p.root.Find("tls_ca_file"), t.TLSCAFile)
	}
}

// relative returns the path of a file that a value names, relative to the file in which it stands.
func (p *parser) relative(at config.Value, path string) string {
	path = home(path, p.source.Home)
	if filepath.IsAbs(path) {
		return path
	}
	file, _, _ := p.files.Place(at)
	if file == p.source.Name {
		file = p.site.Path
	}
	return filepath.Join(filepath.Dir(file), path)
}

func (p *parser) name(name string) {
	at := p.root.Find("name")
	switch {
	case name == "" && !wrong(at):
		p.report(config.Error, p.root, "name", "is missing", "Write name = \"hpc\": it begins the descriptions of the runners.")
	case name != "" && !isName(name):
		p.report(config.Error, at, "name", "can't be part of a file's name", "Write up to 100 letters, digits, dots, dashes and underscores, a letter or digit first.")
	}
}

// wrong tells whether something is given that is not a string: a problem that is told of already.
func wrong(v config.Value) bool {
	_, text := v.Text()
	return v.Exists() && !text
}

// isName tells whether a text may be the name of a site or runner.
func isName(text string) bool {
	for i, c := range text {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", c)) {
			return false
		}
	}
	return text != "" && len(text) <= 100
}

func (p *parser) server(t *topTable) {
	host, address := p.root.Find("hostname"), p.root.Find("url")
	switch {
	case t.Hostname != "" && t.URL != "":
		p.report(config.Error, address, "url", "is given together with hostname, in "+p.where(host), "Remove one of the two.")
	case t.Hostname != "" && strings.ContainsAny(t.Hostname, "/:@ "):
		p.report(config.Error, host, "hostname", "is more than the name of a host", "Write url = \"https://"+strings.TrimPrefix(strings.TrimPrefix(t.Hostname, "https://"), "http://")+"\" in its place.")
	case t.Hostname != "":
		p.site.URL = "https://" + t.Hostname
	case t.URL != "":
		p.address(address, t.URL)
	case !wrong(host) && !wrong(address):
		p.report(config.Error, p.root, "url", "is missing", "Write url = \"https://gitlab.example.com\", or hostname.")
	}
}

func (p *parser) address(at config.Value, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		p.report(config.Error, at, "url", "is not the address of a server", "Write it as https://gitlab.example.com, with port and path if it has them.")
		return
	}
	if u.Scheme == "http" {
		p.report(config.Note, at, "url", "is reached without encryption: tokens can be read on the way", "Write https:// if the server has it.")
	}
	p.site.URL = strings.TrimRight(text, "/")
}

func (p *parser) token(token tranter.Secret) {
	at := p.root.Find("management_token")
	text := token.Reveal()
	switch {
	case text == "" && !wrong(at):
		p.report(config.Error, p.root, "management_token", "is missing", "Write management_token = { file = \"management.token\" }, a token with api scope, or create_runner, manage_runner and read_api.")
	case strings.ContainsAny(text, " \t\r\n"):
		p.report(config.Error, at, "management_token", "has a blank in it", "It has to be the token, and nothing else.")
		text = ""
	case placeholder(text):
		p.report(config.Warning, at, "management_token", "looks like a placeholder", "Put a token of GitLab in its place.")
	}
	p.site.Token = tranter.Secret(text)
	p.hide(text)
}

// placeholder tells whether a text stands where a token is to be put in.
func placeholder(text string) bool {
	rest := strings.TrimPrefix(text, "glpat-")
	return text != "" && (strings.ContainsAny(text, "<>") || strings.Trim(rest, "xX.*_-") == "" || strings.Contains(strings.ToUpper(text), "YOUR") || strings.Contains(strings.ToUpper(text), "CHANGE"))
}

// hide keeps a text out of what is shown.
func (p *parser) hide(text string) {
	if len(text) >= 4 && !slices.Contains(p.secrets, text) {
		p.secrets = append(p.secrets, text)
	}
}

// references returns reference for the texts of a table.
func (p *parser) references(table string) func(string, config.Value) config.Value {
	return func(path string, v config.Value) config.Value {
		return p.reference(strings.TrimPrefix(table+"."+path, "."), v)
	}
}

// reference returns what { file = "path" } or { env = "NAME" } stands for, in the place of it.
func (p *parser) reference(key string, v config.Value) config.Value {
	items := v.Items()
	if !v.IsTable() || len(items) != 1 {
		return v
	}
	text, ok := items[0].Text()
	if !ok || text == "" {
		return v
	}
	switch items[0].Key() {
	case "file":
		return p.valueFile(key, v, text)
	case "env":
		return p.valueEnv(key, v, text)
	}
	return v
}

func (p *parser) valueFile(key string, v config.Value, name string) config.Value {
	path := p.relative(v, name)
	data, ok := p.read(v, key, path)
	if !ok {
		return v.WithText("")
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		p.report(config.Error, v, key, path+" is empty", "Put the value into it.")
	}
	p.hide(text)
	return v.WithText(text)
}

func (p *parser) valueEnv(key string, v config.Value, name string) config.Value {
	text, ok := "", false
	if p.source.Env != nil {
		text, ok = p.source.Env(name)
	}
	if !ok {
		p.report(config.Error, v, key, "the environment variable "+name+" is not set", "Set it where tranter is started, or take the value from a file.")
		return v.WithText("")
	}
	if config.SecretName(name) || config.SecretName(key) {
		p.hide(text)
	}
	return v.WithText(text)
}

// manager reads [manager].
func (p *parser) manager() {
	p.site.Manager = config.Default()
	v := p.table(p.root, "manager")
	if !v.Exists() {
		return
	}
	if r := v.Find("runners"); r.Exists() {
		p.report(config.Error, r, "manager.runners", "runners are not given here", "Write [runners.NAME].")
		v = v.Without("runners")
	}
	v = p.files.Rewrite(v, config.Config{}, p.references("manager"))
	c, problems := p.files.Global(v, "manager", fileTable{})
	p.problems = append(p.problems, problems...)
	p.site.Manager = c
	p.site.concurrent = v.Find("concurrent").Exists()
	p.site.stock = p.files.ForGitLabRunner(v, "").Section()
}
