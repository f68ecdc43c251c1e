package stagescript

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/script"
)

const (
	settingsPattern = `tranter-git\.conf$` // as git's regular expression
	allBranches     = "+refs/heads/*:refs/remotes/origin/*"
)

// sources writes the stage that gets the sources (runner contract, section 6).
func (w *writer) sources(s *tranter.SourcesStep) {
	w.functions()
	g := &getter{writer: w, step: s, project: script.Quote(w.phase.Dirs.Project)}
	switch s.Strategy {
	case "none":
		w.info("Skipping Git repository setup")
		w.line("mkdir -p %s", g.project)
		return
	case "empty":
		w.info("Skipping Git repository setup, the project directory starts empty")
		w.line("_remove %s", g.project)
		w.line("mkdir -p %s", g.project)
		return
	}
	g.begin()
	g.hooks(s.PreScripts)
	g.tidy()
	g.settings()
	g.fetch()
	g.checkout()
	if g.withSubmodules() {
		g.submodules()
	} else {
		w.info("Skipping Git submodules setup")
	}
	g.hooks(s.PostScripts)
}

// getter writes the parts of the stage.
type getter struct {
	*writer

	step    *tranter.SourcesStep
	project string // quoted
}

func (g *getter) withSubmodules() bool {
	return g.step.Submodules.Strategy == "normal" || g.step.Submodules.Strategy == "recursive"
}

// begin sets the environment of git and the function by which it talks to servers.
func (g *getter) begin() {
	g.gitEnvironment()
	g.line("command -v git >/dev/null 2>&1 || _fail 'git is not installed where the job runs: install it, or set GIT_STRATEGY to none'")
	g.line("_lfs=")
	if !g.step.SkipLFS {
		g.line("export GIT_LFS_SKIP_SMUDGE=1") // large files are pulled all together at the end
		g.line("if git lfs version >/dev/null 2>&1; then _lfs=yes; fi")
	}
	before := []string{"-c", "include.path=" + g.temp(settingsName)}
	if v := g.phase.Version; v != "" {
		before = append(before, "-c", "http.userAgent="+v)
	}
	if host := tranter.GitHost(g.step.RepoURL); host != "" && g.step.ProactiveAuth {
		before = append(before, "-c", "http."+host+".proactiveAuth=basic")
	}
	g.line("_git() { git %s \"$@\"; }", words(before))
}

// gitEnvironment lets git ask nobody, and work on the project's repository only.
func (w *writer) gitEnvironment() {
	w.line("export GIT_TERMINAL_PROMPT=0 GCM_INTERACTIVE=Never GIT_CEILING_DIRECTORIES=%s", script.Quote(path.Dir(w.phase.Dirs.Project)))
	w.line("unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_PREFIX")
}

// hooks runs scripts in the shell of the stage, so that what they export holds for it.
func (g *getter) hooks(scripts []string) {
	for _, s := range scripts {
		s = strings.TrimSpace(s)
		first, _, several := strings.Cut(s, "\n")
		if several {
			first += " # collapsed multi-line command"
		}
		g.line("_info %s", script.Quote("$ "+first))
		g.line("eval %s", script.Quote(s))
	}
}

// tidy takes away what must not be there before (runner contract, section 6.3, 2 to 4 and 9).
func (g *getter) tidy() {
	p := g.project
	g.line("mkdir -p %s", script.Quote(path.Dir(g.phase.Dirs.Project)))
	if g.step.Strategy == "clone" {
		g.line("_remove %s", p)
	}
	// A job may have put a file or a link there, which git would follow to a repository somewhere else.
	g.line("if [ -L %[1]s/.git ] || [ -f %[1]s/.git ]; then rm -f %[1]s/.git; fi", p)
	g.line("_unlock")
	if g.step.CleanConfig {
		g.line("rm -rf %[1]s/.git/config %[1]s/.git/hooks", p)
		if g.withSubmodules() {
			g.line("[ ! -d %[1]s/.git/modules ] || find %[1]s/.git/modules \\( -type f -name config -o -type d -name hooks \\) -prune -exec rm -rf {} +", p)
		}
	}
	g.line("_fresh=")
	g.line("[ -d %s/.git ] || _fresh=yes", p)
}

// config is the text of a file of git's settings.
type config struct{ strings.Builder }

func (c *config) set(section, subsection, key, value string) {
	if subsection == "" {
		fmt.Fprintf(c, "[%s]\n", section)
	} else {
		fmt.Fprintf(c, "[%s \"%s\"]\n", section, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(subsection))
	}
	fmt.Fprintf(c, "\t%s = \"%s\"\n", key, strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value))
}

// settings writes git's settings for this job, with which commands of the job's own can log in too, and the template of
// new repositories (runner contract, section 6.3, 4 to 8).
func (g *getter) settings() {
	var c config
	c.set("fetch", "", "recurseSubmodules", "false")
	c.set("credential", "", "interactive", "never")
	c.set("gc", "", "autoDetach", "false")
	c.set("maintenance", "", "autoDetach", "false")
	if g.step.BundleURIs {
		c.set("transfer", "", "bundleURI", "true")
	}
	if id := g.step.CorrelationID; id != "" {
		g.info("Gitaly correlation ID: %s", id)
		c.set("http", tranter.GitHost(g.step.RepoURL), "extraHeader", "") // these settings may be read twice
		c.set("http", tranter.GitHost(g.step.RepoURL), "extraHeader", "X-Gitaly-Correlation-ID: "+id)
	}
	g.makeTemp()
	for i, l := range g.phase.GitLogins(g.step) {
		file := g.temp(credentialName + strconv.Itoa(i))
		g.private(file, text(l))
		// The empty value takes away helpers of the user, which might keep the token.
		c.set("credential", l.Host, "helper", "")
		c.set("credential", l.Host, "helper", `!f() { test "$1" = get && cat `+script.Quote(file)+`; }; f`)
	}
	g.rewriteSSH(&c)
	settings, template := g.temp(settingsName), g.temp(templateName)
	g.private(settings, c.String())
	var lfs config
	lfs.set("filter", "lfs", "clean", "git-lfs clean -- %f") // also where nobody has run "git lfs install"
	lfs.set("filter", "lfs", "smudge", "git-lfs smudge -- %f")
	lfs.set("filter", "lfs", "process", "git-lfs filter-process")
	lfs.set("filter", "lfs", "required", "true")
	g.line("if [ -n \"$_lfs\" ]; then printf '%%s' %s >>%s; fi", script.Quote(lfs.String()), script.Quote(settings))
	g.certificates(settings)
	g.line("_remove %[1]s; mkdir -p %[1]s", script.Quote(template))
	var t config
	t.set("include", "", "path", settings)
	g.private(path.Join(template, "config"), t.String())
	if g.step.SafeDirectory {
		g.line("git config --global --get-all safe.directory 2>/dev/null | grep -qxF %[1]s || git config --global --add safe.directory %[1]s", g.project)
	}
}

// certificates gives git the certificates that the job's variables name, if they are where the job runs (runner
// contract, section 6.1, 4).
func (g *getter) certificates(settings string) {
	host := tranter.GitHost(g.step.RepoURL)
	if !strings.HasPrefix(host, "https:") {
		return
	}
	for _, v := range [][2]string{
		{"CI_SERVER_TLS_CA_FILE", "sslCAInfo"}, {"CI_SERVER_TLS_CERT_FILE", "sslCert"}, {"CI_SERVER_TLS_KEY_FILE", "sslKey"},
	} {
		where := "--file " + script.Quote(settings)
		if !g.step.SharedEnv {
			where = "--global"
		}
		g.line("if [ -n \"${%[1]s:-}\" ] && [ -f \"$%[1]s\" ]; then git config %[2]s %[3]s \"$%[1]s\"; fi", v[0], where, script.Quote("http."+host+"."+v[1]))
	}
}

// text is what git reads from a credential helper.
func text(l tranter.GitLogin) string {
	clean := strings.NewReplacer("\n", "", "\r", "", "\x00", "")
	return "username=" + clean.Replace(l.Username) + "\npassword=" + clean.Replace(l.Password.Reveal()) + "\n"
}

// rewriteSSH lets addresses of submodules for SSH be fetched by HTTP (runner contract, section 6.3, 7c).
func (g *getter) rewriteSSH(c *config) {
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

func depth(n int) []string {
	if n <= 0 {
		return nil
	}
	return []string{"--depth", strconv.Itoa(n)}
}

// fetch brings the repository here, by "git clone" if that is asked for and git can do it (runner contract, section 6.3,
// 10 to 13).
func (g *getter) fetch() {
	if d := g.step.Depth; d > 0 {
		g.info("Fetching changes with git depth set to %d...", d)
	} else {
		g.info("Fetching changes...")
	}
	if !g.step.NativeClone || g.step.Strategy != "clone" {
		g.plainFetch()
		return
	}
	which := []string{"--branch", g.step.Ref}
	if strings.HasPrefix(g.step.Ref, "refs/") {
		which[0] = "--revision"
	}
	g.WriteString(`_v=$(git version)
_v=${_v#git version }
_minor=${_v#*.}
if [ "${_v%%.*}" -gt 2 ] || { [ "${_v%%.*}" -eq 2 ] && [ "${_minor%%.*}" -ge 49 ]; }; then
`)
	g.line("_git clone --no-checkout %s %s --template %s %s", script.Quote(g.step.RepoURL), g.project, script.Quote(g.temp(templateName)),
		words(slices.Concat(depth(g.step.Depth), which, g.step.CloneFlags)))
	g.line("cd %s", g.project)
	g.line("else")
	g.plainFetch()
	g.line("fi")
}

func (g *getter) plainFetch() {
	format := ""
	if f := g.step.ObjectFormat; f != "" && f != "sha1" {
		format = " --object-format " + script.Quote(f)
	}
	g.line("git -c init.defaultBranch=none init --quiet %s --template %s%s", g.project, script.Quote(g.temp(templateName)), format)
	g.line("cd %s", g.project)
	g.line("[ -z \"$_fresh\" ] || _info 'Created fresh repository.'")
	g.line("git config --replace-all remote.origin.url %s", script.Quote(g.step.RepoURL))
	g.line("git config --replace-all remote.origin.fetch %s", script.Quote(allBranches))
	g.line("git config --replace-all include.path %s %s", script.Quote(g.temp(settingsName)), script.Quote(settingsPattern))
	args := words(slices.Concat(g.step.Refspecs, depth(g.step.Depth), g.step.FetchFlags))
	if g.step.Depth <= 0 {
		g.line("_unshallow=")
		g.line("[ ! -f .git/shallow ] || _unshallow=--unshallow")
		args += " $_unshallow"
	}
	g.line("_git fetch origin --no-recurse-submodules %s", args)
}

// checkout brings the working tree to the commit (runner contract, section 6.3, 14).
func (g *getter) checkout() {
	if g.step.SkipCheckout {
		g.info("Skipping Git checkout")
		return
	}
	commit := g.step.SHA
	if commit == "" {
		commit = "FETCH_HEAD"
	}
	g.info("Checking out %s as detached HEAD (ref is %s)...", commit[:min(8, len(commit))], g.step.Ref)
	g.line("_git -c submodule.recurse=false checkout -f -q %s", script.Quote(commit))
	if g.step.CleanFlags != nil {
		g.line("git clean %s", words(g.step.CleanFlags))
	}
	g.line("if [ -n \"$_lfs\" ]; then _git lfs pull; fi")
}

// submodules brings the submodules to the commits that the tree names (runner contract, section 6.5).
func (g *getter) submodules() {
	m := g.step.Submodules
	how, recursive := "", ""
	if m.Strategy == "recursive" {
		how, recursive = " recursively", " --recursive"
	}
	if m.Depth > 0 {
		how += fmt.Sprintf(" with git depth set to %d", m.Depth)
	}
	paths := ""
	if len(m.Paths) > 0 {
		paths = " -- " + words(m.Paths)
	}
	clean := g.step.CleanFlags
	if clean == nil {
		clean = []string{"-ffdx"} // submodules are cleaned also if the main tree is not
	}
	g.info("Updating/initializing submodules%s...", how)
	g.line("if [ -f .gitmodules ]; then")
	g.line("_sync() { git submodule sync%s%s; }", recursive, paths)
	g.line("_each() { _git submodule foreach%s \"$1\"; }", recursive)
	g.line("_clean() { _each %s; }", script.Quote("git clean "+words(clean)))
	g.line("_update() { _git submodule update --init%s %s%s; }", recursive, words(slices.Concat(depth(m.Depth), m.UpdateFlags)), paths)
	g.WriteString(`if git submodule init && _sync && _clean && _each 'git reset --hard'; then :; else
[ -z "$_fresh" ] || exit 1
_warn "submodules that an earlier job has left can't be used; starting over"
_remove .git/modules
git submodule deinit --force --all
git submodule init
_sync
fi
if _update; then
_info 'Updated submodules'
else
_warn 'Updating submodules failed. Retrying...'
`)
	if slices.Contains(m.UpdateFlags, "--remote") {
		g.line("_each %s", script.Quote("git fetch origin "+script.Quote(allBranches)))
	}
	g.line("_sync")
	g.line("_update")
	g.line("_each 'git reset --hard'")
	g.line("fi")
	g.line("_sync")
	g.line("_clean")
	g.line("git submodule --quiet foreach --recursive %s",
		script.Quote("git config --replace-all include.path "+script.Quote(g.temp(settingsName))+" "+script.Quote(settingsPattern)))
	g.line("if [ -n \"$_lfs\" ]; then _each 'git lfs pull'; fi")
	g.line("fi")
}

// clear makes the working tree ready for another try. A repository that git can't do it with goes altogether.
func (w *writer) clear() {
	project := script.Quote(w.phase.Dirs.Project)
	w.gitEnvironment()
	w.line("if [ -d %s ]; then", project)
	w.line("_unlock")
	w.line("if (cd %s && git rm -rf --ignore-unmatch --quiet . && git clean -ffdx -q) >/dev/null 2>&1; then :; else _remove %s; fi", project, project)
	w.line("fi")
}
