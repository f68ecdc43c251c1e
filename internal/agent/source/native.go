package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
)

// This file does without git what git would be started for in every job: most of the time of a short job went into
// starting programs. Each function knows the plain case only, and leaves all others to git.

// native is a getter that spares programs.
type native struct{ *getter }

// headerName is the file with the header that logs a fetch in. Like all credentials it goes when the job ends.
const headerName = credentialName + "header"

// coreConfig is what "git init" adds to a template's settings.
const coreConfig = "[core]\n\trepositoryformatversion = 0\n\tfilemode = %t\n\tbare = false\n\tlogallrefupdates = true\n"

// repositoryConfig is what the settings of a repository begin with.
func (g native) repositoryConfig(ctx context.Context) string {
	var t configFile
	t.set("include", "", "path", g.settingsFile())
	if _, clones := g.nativeClone(ctx); !clones {
		t.set("remote", "origin", "url", g.step.RepoURL)
		t.set("remote", "origin", "fetch", allBranches)
	}
	return t.String()
}

// configText is all that the settings of a repository hold that nobody has changed.
func (g native) configText(filemode bool) string {
	return g.template + fmt.Sprintf(coreConfig, filemode)
}

// readyAtOnce says whether the repository is set up as this job needs it, if that can be told without git.
func (g native) readyAtOnce() (known, ready bool) {
	data, err := os.ReadFile(g.repositoryFile("config"))
	if errors.Is(err, os.ErrNotExist) {
		return true, false
	}
	if err != nil || g.sha256() {
		return false, false
	}
	ready = string(data) == g.configText(true) || string(data) == g.configText(false)
	return ready, ready
}

// configUntouched says whether the settings of the repository are what they would be written as: to replace them by the same
// would only take time.
func (g native) configUntouched() bool {
	path := g.repositoryFile("config")
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || g.sha256() {
		return false
	}
	data, err := os.ReadFile(path)
	return err == nil && string(data) == g.configText(true)
}

func (g native) repositoryFile(name string) string { return filepath.Join(g.project, ".git", name) }

// lacksConfig says whether the repository is a plain one that lacks nothing but its settings.
func (g native) lacksConfig() bool {
	if slices.ContainsFunc([]string{"config", "commondir", "reftable", "gitdir"}, func(name string) bool { return exists(g.repositoryFile(name)) }) {
		return false
	}
	head, err := os.Lstat(g.repositoryFile("HEAD"))
	return err == nil && head.Mode().IsRegular() && isDir(g.repositoryFile("objects")) && isDir(g.repositoryFile("refs"))
}

// writeConfig writes the settings of a repository that has lost them, as "git init" would, and says whether it could.
func (g native) writeConfig() bool {
	if runtime.GOOS != "linux" || g.sha256() || g.step.NativeClone || !g.lacksConfig() {
		return false
	}
	path := g.repositoryFile("config")
	if err := g.writePrivate(path, g.configText(true)); err != nil {
		return false
	}
	if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // as git makes it; there is no secret in it
		return false
	}
	if keepsModes(path) {
		return true
	}
	return os.WriteFile(path, []byte(g.configText(false)), 0o644) == nil //nolint:gosec // see above
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// keepsModes says whether the file system keeps what a file's mode says about executing it.
func keepsModes(path string) bool {
	if os.Chmod(path, 0o744) != nil { //nolint:gosec // for a moment
		return false
	}
	info, err := os.Lstat(path)
	return os.Chmod(path, 0o644) == nil && err == nil && info.Mode().Perm() == 0o744 //nolint:gosec // as git makes it
}

// indexLacks says whether no file of the index, which is that of what was checked out, has the given name, as far as
// that can be told without git.
func (g native) indexLacks(name string) bool {
	const most = 64 << 20
	f, err := os.Open(g.repositoryFile("index"))
	if err != nil {
		return false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil || len(data) < 12 || len(data) == most || string(data[:4]) != "DIRC" {
		return false
	}
	// Version 4 shortens names; "link" may name another file with more of the index, "sdir" directories instead of files.
	if v := binary.BigEndian.Uint32(data[4:]); v != 2 && v != 3 {
		return false
	}
	return !bytes.Contains(data, []byte("link")) && !bytes.Contains(data, []byte("sdir")) && !bytes.Contains(data, []byte(name))
}

// sparing returns settings for the one fetch of the job that spare programs: no maintenance is started when there is
// nothing to maintain, and, as header, credentials that come with the first request, not from a helper once the server
// has refused that. What users have set themselves goes before.
func (g native) sparing() (settings, header []string, err error) {
	if g.usersLeave("[gc", "[maintenance") && !slices.ContainsFunc(g.step.FetchFlags, isMaintenance) && !g.wantsMaintenance() {
		settings = []string{"-c", "maintenance.auto=false"}
	}
	host := tranter.GitHost(g.step.RepoURL)
	if host == "" || g.step.Password == "" || g.mustAskForPassword() {
		return settings, nil, nil
	}
	var c configFile
	basic := base64.StdEncoding.EncodeToString([]byte(g.step.Username + ":" + g.step.Password.Reveal()))
	c.set("http", host, "extraHeader", "Authorization: Basic "+basic)
	c.set("http", "", "followRedirects", "false") // git would send the header wherever it is sent itself
	file := filepath.Join(g.env.Dirs().Temp, headerName)
	if err := g.writePrivate(file, c.String()); err != nil {
		return nil, nil, fmt.Errorf("write the credentials for git: %w", err)
	}
	g.hide = append(g.hide, basic)
	return settings, []string{"-c", "include.path=" + file}, nil
}

// redirected says whether git has failed because it was sent elsewhere.
func redirected(said string) bool {
	return slices.ContainsFunc([]string{"301", "302", "303", "307", "308"}, func(code string) bool {
		return strings.Contains(said, "returned error: "+code)
	})
}

// mustAskForPassword says whether there may be other credentials for the server than the job's, which a header of ours
// would be in the way of.
func (g native) mustAskForPassword() bool {
	return strings.Contains(g.step.RepoURL, "@") || !g.usersLeave("extraheader", "emptyauth", "followredirects", "[url")
}

func isMaintenance(flag string) bool {
	return strings.Contains(flag, "maintenance") || strings.Contains(flag, "auto-gc")
}

// usersLeave says that for all we can tell the user, the administrator and earlier jobs have made no settings of git
// that hold one of the texts, which are in lower case.
func (g native) usersLeave(texts ...string) bool {
	if runtime.GOOS == "windows" {
		return false
	}
	if slices.ContainsFunc(g.environ, func(kv string) bool {
		return strings.HasPrefix(kv, "GIT_CONFIG") && !strings.HasPrefix(kv, "GIT_CONFIG_NOSYSTEM=")
	}) {
		return false
	}
	if g.userSettings == nil {
		all := g.readUserSettings()
		g.userSettings = &all
	}
	texts = append(texts, "[include") // who knows what from
	return !slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(*g.userSettings, t) })
}

// readUserSettings returns the text of all settings of git that are not ours, in lower case.
func (g native) readUserSettings() string {
	home := g.env.Get("HOME")
	xdg := g.env.Get("XDG_CONFIG_HOME")
	if xdg == "" {
		xdg = filepath.Join(home, ".config")
	}
	program, err := filepath.EvalSymlinks(g.program)
	if err != nil {
		program = g.program
	}
	var all strings.Builder
	for _, path := range []string{
		"/etc/gitconfig", filepath.Join(filepath.Dir(program), "..", "etc", "gitconfig"), filepath.Join(home, ".gitconfig"),
		filepath.Join(xdg, "git", "config"),
	} {
		all.WriteString(readSome(path))
	}
	all.WriteString(strings.TrimPrefix(readSome(g.repositoryFile("config")), g.template)) // it includes our own
	return strings.ToLower(all.String())
}

// readSome returns a plain file's text. Of one that is too large it returns what no check lets pass.
func readSome(path string) string {
	const most = 1 << 20
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return "[include"
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "[include"
	}
	return string(data)
}

// wantsMaintenance says whether git might find something to maintain: from three quarters of the number of loose
// objects, which are spread evenly, and of packs at which it does.
func (g native) wantsMaintenance() bool {
	const loose, packs = 6700 / 256 * 3 / 4, 50 * 3 / 4
	found, _ := os.ReadDir(g.repositoryFile(filepath.Join("objects", "17")))
	if len(found) >= loose {
		return true
	}
	found, _ = os.ReadDir(g.repositoryFile(filepath.Join("objects", "pack")))
	n := 0
	for _, e := range found {
		if strings.HasSuffix(e.Name(), ".pack") {
			n++
		}
	}
	return n >= packs
}
