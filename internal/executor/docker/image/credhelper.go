package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/moby/moby/api/types/registry"

	"github.com/tranter-ci/tranter/internal/lazy"
)

var programPattern = lazy.Regexp(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`)

// helper is a program that keeps logins: docker-credential-PROGRAM.
type helper struct{ program, server string }

// helperPlace is how helpers are run: on the manager, as the manager, for so long at most.
type helperPlace struct {
	home  string
	limit time.Duration
}

// validProgram refuses what could lead out of PATH.
func validProgram(name string) bool {
	return matches(programPattern, name) && !strings.Contains(name, "..")
}

// get asks a helper for the login of its server. It having none is no error.
func (p helperPlace) get(ctx context.Context, h helper) (registry.AuthConfig, bool, error) {
	out, err := p.run(ctx, h.program, credentials.ActionGet, h.server)
	if errors.Is(err, errNoLogin) {
		return registry.AuthConfig{}, false, nil
	}
	if err != nil {
		return registry.AuthConfig{}, false, err
	}
	var got credentials.Credentials
	if err := json.Unmarshal(out, &got); err != nil {
		return registry.AuthConfig{}, false, fmt.Errorf("docker-credential-%s said something else than a login; run it by hand: echo SERVER | docker-credential-%s get", h.program, h.program)
	}
	auth := registry.AuthConfig{Username: got.Username, Password: got.Secret, ServerAddress: bare(h.server)}
	if got.Username == "<token>" {
		auth.Username, auth.Password, auth.IdentityToken = "", "", got.Secret
	}
	return auth, got.Secret != "", nil
}

// list asks a helper which servers it has logins of, and returns their addresses by registry path.
func (p helperPlace) list(ctx context.Context, h helper) (map[string]string, error) {
	out, err := p.run(ctx, h.program, credentials.ActionList, "unused")
	if errors.Is(err, errNoLogin) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var users map[string]string // by server address
	if err := json.Unmarshal(out, &users); err != nil {
		return nil, fmt.Errorf("docker-credential-%s said something else than a list of servers; run it by hand: docker-credential-%s list", h.program, h.program)
	}
	servers := map[string]string{}
	for server := range users {
		key := pathKey(server)
		if old, twice := servers[key]; key != "" && (!twice || server < old) {
			servers[key] = server
		}
	}
	return servers, nil
}

// errNoLogin means that a helper works, but does not know the server.
var errNoLogin = errors.New("no login")

// run runs a helper and returns what it prints. A secret may be among that, so it is in no error, except for what a
// helper that fails says by convention.
func (p helperPlace) run(ctx context.Context, program, action, input string) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, p.limit)
	defer stop()
	full := "docker-credential-" + program
	path, err := exec.LookPath(full)
	if err != nil {
		return nil, fmt.Errorf("%s is not in PATH (or must not be run) on the machine of the runner's manager: install it there, or write the login down", full)
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s is found by way of a relative entry of PATH, which is not used", full)
	}
	stdout, stderr := &bounded{most: 1 << 20}, &bounded{most: 4 << 10}
	cmd := exec.CommandContext(ctx, path, action) //nolint:gosec // the name has no separators, so it is a program in PATH
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), stdout, stderr
	cmd.WaitDelay = 2 * time.Second // what it leaves running may keep the pipes open
	if p.home != "" {
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HOME=") }), "HOME="+p.home)
	}
	err = cmd.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return stdout.kept, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s %s did not end within %s; run it by hand to see what it waits for", full, action, p.limit)
	case noLogin(string(stdout.kept)):
		return nil, errNoLogin
	}
	said := string(stderr.kept)
	if strings.TrimSpace(said) == "" && !strings.ContainsAny(string(stdout.kept), "{}") {
		said = string(stdout.kept)
	}
	return nil, fmt.Errorf("%s %s failed (%w): %s", full, action, err, orDefault(shorten(withoutURLSecrets(said), 300), "it said nothing"))
}

func noLogin(said string) bool {
	said = strings.TrimSpace(said)
	return credentials.IsErrCredentialsNotFoundMessage(said) || credentials.IsCredentialsMissingServerURLMessage(said) ||
		credentials.IsCredentialsMissingUsernameMessage(said)
}

// withoutURLSecrets hides users and passwords in addresses.
func withoutURLSecrets(text string) string {
	return urlLogin().ReplaceAllString(text, "$1[MASKED]@")
}

var urlLogin = lazy.Regexp(`(://)[^/@\s"]+@`)

// bounded keeps the first bytes of what is written to it.
type bounded struct {
	kept []byte
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(max(0, b.most-len(b.kept)), len(p))]...)
	return len(p), nil
}
