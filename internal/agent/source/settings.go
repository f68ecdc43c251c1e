package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
)

// Files in the job's temporary directory. All of them go when the job ends.
const (
	settingsName    = "tranter-git.conf"
	settingsPattern = `tranter-git\.conf$` // as git's regular expression
	credentialName  = "tranter-git-credential-"
	templateName    = "git-template"
)

const allBranches = "+refs/heads/*:refs/remotes/origin/*"

// settingsFile holds git's settings for this job; the repository and its submodules include it, so that git commands in
// the job's scripts can log in as the fetch can.
func (g *getter) settingsFile() string { return filepath.Join(g.env.Dirs().Temp, settingsName) }

func (g *getter) templateDir() string { return filepath.Join(g.env.Dirs().Temp, templateName) }

// configFile is the text of a file of git's settings.
type configFile struct{ strings.Builder }

// set adds a value under a section such as "http" or, with a subsection, http "https://gitlab.example.com".
func (c *configFile) set(section, subsection, key, value string) {
	if subsection == "" {
		fmt.Fprintf(c, "[%s]\n", section)
	} else {
		fmt.Fprintf(c, "[%s \"%s\"]\n", section, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(subsection))
	}
	value = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value)
	fmt.Fprintf(c, "\t%s = \"%s\"\n", key, value)
}

// writeSettings writes the settings and the credentials (runner contract, section 6.3, 4 to 8), and what belongs into the
// user's own settings.
func (g *getter) writeSettings(ctx context.Context) error {
	temp := g.env.Dirs().Temp
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return fmt.Errorf("make the job's temporary directory: %w", err)
	}
	var c configFile
	c.set("fetch", "", "recurseSubmodules", "false")
	c.set("credential", "", "interactive", "never")
	c.set("gc", "", "autoDetach", "false")
	c.set("maintenance", "", "autoDetach", "false")
	if g.lfs { // also where nobody has run "git lfs install"
		c.set("filter", "lfs", "clean", "git-lfs clean -- %f")
		c.set("filter", "lfs", "smudge", "git-lfs smudge -- %f")
		c.set("filter", "lfs", "process", "git-lfs filter-process")
		c.set("filter", "lfs", "required", "true")
	}
	if g.step.BundleURIs {
		c.set("transfer", "", "bundleURI", "true")
	}
	if id := g.step.CorrelationID; id != "" {
		g.env.Log.Info("Gitaly correlation ID: %s", id)
		c.set("http", tranter.GitHost(g.step.RepoURL), "extraHeader", "") // these settings may be read twice
		c.set("http", tranter.GitHost(g.step.RepoURL), "extraHeader", "X-Gitaly-Correlation-ID: "+id)
	}
	g.setTLS(func(host, key, value string) { c.set("http", host, key, value) })
	for i, l := range g.env.Phase.GitLogins(g.step) {
		file := filepath.Join(temp, credentialName+strconv.Itoa(i))
		if err := writeLogin(g, l, file); err != nil {
			return err
		}
		// The empty value takes away helpers of the user, which might keep the token.
		c.set("credential", l.Host, "helper", "")
		c.set("credential", l.Host, "helper", `!f() { test "$1" = get && cat `+quote(filepath.ToSlash(file))+`; }; f`)
	}
	g.rewriteSSH(&c)
	if err := g.writePrivate(g.settingsFile(), c.String()); err != nil {
		return fmt.Errorf("write git's settings: %w", err)
	}
	g.template = native{g}.repositoryConfig(ctx)
	return g.writeGlobal(ctx)
}

// writeTemplate writes the template for new repositories.
func (g *getter) writeTemplate() error {
	if err := os.MkdirAll(g.templateDir(), 0o700); err != nil {
		return fmt.Errorf("make the template for git: %w", err)
	}
	if err := g.writePrivate(filepath.Join(g.templateDir(), "config"), g.template); err != nil {
		return fmt.Errorf("write the template for git: %w", err)
	}
	return nil
}

// write writes what git reads from a credential helper.
func writeLogin(g *getter, l tranter.GitLogin, file string) error {
	if strings.ContainsAny(l.Username+l.Password.Reveal(), "\n\r\x00") {
		return &tranter.ConfigError{Err: fmt.Errorf("the credentials for %s have a line break in them", l.Host)}
	}
	if err := g.writePrivate(file, "username="+l.Username+"\npassword="+l.Password.Reveal()+"\n"); err != nil {
		return fmt.Errorf("write the credentials for git: %w", err)
	}
	return nil
}

// writePrivate writes a file that only the user can read, whatever was in its place. Where the job's scripts run as another
// user, git needs it there, too: the files are in the job's own containers, and what they hold is known to its scripts.
func (g *getter) writePrivate(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if c := g.env.Phase.Container; c != nil && c.Shared {
		err = errors.Join(err, f.Chmod(0o644)) //nolint:gosec // see above
	}
	return errors.Join(err, f.Close())
}

// setTLS gives the certificates that the job's file variables hold (runner contract, section 6.1, 4).
func (g *getter) setTLS(set func(host, key, value string)) {
	host := tranter.GitHost(g.step.RepoURL)
	if !strings.HasPrefix(host, "https:") {
		return
	}
	for _, v := range [][2]string{
		{"CI_SERVER_TLS_CA_FILE", "sslCAInfo"}, {"CI_SERVER_TLS_CERT_FILE", "sslCert"}, {"CI_SERVER_TLS_KEY_FILE", "sslKey"},
	} {
		if path := g.env.Get(v[0]); path != "" && exists(path) {
			set(host, v[1], path)
		}
	}
}

// rewriteSSH lets addresses of submodules for SSH be fetched by HTTP (runner contract, section 6.3, 7c).
func (g *getter) rewriteSSH(c *configFile) {
	m := g.step.Submodules
	if !m.ForceHTTPS || m.SSHHost == "" || tranter.GitHost(g.step.BaseURL) == "" {
		return
	}
	base := strings.TrimSuffix(g.step.BaseURL, "/") + "/"
	from := []string{"git@" + m.SSHHost + ":", "ssh://git@" + m.SSHHost + "/"}
	if m.SSHPort != "" {
		from = append(from, "ssh://git@"+m.SSHHost+":"+m.SSHPort+"/")
	}
	for _, f := range from {
		c.set("url", base, "insteadOf", f)
	}
}

// writeGlobal sets what git takes from the user's own settings only, or what the job's scripts should find outside of
// the project too.
func (g *getter) writeGlobal(ctx context.Context) error {
	var err error
	set := func(host, key, value string) {
		if err == nil {
			err = g.in(ctx, filepath.Dir(g.project), "set git up", "config", "--global", "http."+host+"."+key, value)
		}
	}
	if !g.step.SharedEnv {
		g.setTLS(set)
	}
	if err != nil || !g.step.SafeDirectory {
		return err
	}
	known, missing := g.output(ctx, "", "config", "--global", "--get-all", "safe.directory")
	if missing == nil {
		for line := range strings.Lines(known) {
			if strings.TrimSpace(line) == g.project {
				return nil
			}
		}
	}
	return g.in(ctx, filepath.Dir(g.project), "set git up", "config", "--global", "--add", "safe.directory", g.project)
}

// quote returns s as one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
