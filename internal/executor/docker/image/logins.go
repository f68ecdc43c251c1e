package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"

	"github.com/tranter-ci/tranter"
)

// hub is the registry of names that have none.
const hub = "docker.io"

// mostConfig is the size in bytes up to which a file of logins is read.
const mostConfig = 4 << 20

// Logins are where one job's pulls find their logins. The zero value has none.
type Logins struct{ found *sources }

// sources are in the order of their precedence.
type sources struct {
	mu      sync.Mutex
	list    []*source
	pending []string // warnings that no log has got yet
}

// source is one place that logins come from.
type source struct {
	name     string
	logins   map[string]registry.AuthConfig // by registry path, as pathKey makes it
	helpers  map[string]helper              // by registry path
	store    *helper                        // asked for what logins do not have; nil: none
	listed   bool                           // the store was asked for what it has
	inStore  map[string]string              // server address by registry path
	helperIn helperPlace
}

// login is what goes with a pull. The zero value is none.
type login struct {
	source string
	path   string // the registry path that it was kept under
	auth   registry.AuthConfig
}

// LoginsOf returns the logins of a job, in the order of the runner contract, section 9.7: the value of the job's variable
// DOCKER_AUTH_CONFIG (the content, where it is a file variable); the one of the runner's environment; config.json in
// .docker below home, or else .dockercfg in home; the credentials of type registry that came with the job. Of two sources
// with a login for the same registry path the first counts; a login for a longer path counts before one for a shorter.
// A source that cannot be read becomes a warning in the log of the first pull. An empty home means no files.
func LoginsOf(jobConfig, runnerConfig, home string, credentials []tranter.Credential) Logins {
	s := &sources{}
	place := helperPlace{home: home, limit: 30 * time.Second}
	s.add("$DOCKER_AUTH_CONFIG", []byte(jobConfig), parseConfig, place)
	s.add("$DOCKER_AUTH_CONFIG of the runner's environment", []byte(runnerConfig), parseConfig, place)
	s.addFiles(home, place)
	s.addCredentials(credentials)
	return Logins{found: s}
}

func (s *sources) add(name string, content []byte, parser func([]byte) (parsed, error), place helperPlace) {
	if strings.TrimSpace(string(content)) == "" {
		return
	}
	p, err := parser(content)
	if err != nil {
		s.pending = append(s.pending, fmt.Sprintf("%s is not used for logins to registries: %v", name, err))
		return
	}
	for _, fault := range p.faults {
		s.pending = append(s.pending, name+": "+fault)
	}
	s.list = append(s.list, &source{name: name, logins: p.logins, helpers: p.helpers, store: p.store, helperIn: place})
}

// addFiles reads the files of the user whose home it is.
func (s *sources) addFiles(home string, place helperPlace) {
	if home == "" {
		return
	}
	files := []struct {
		path   string
		parser func([]byte) (parsed, error)
	}{{filepath.Join(home, ".docker", "config.json"), parseConfig}, {filepath.Join(home, ".dockercfg"), parseOldConfig}}
	for _, f := range files {
		content, err := readFile(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.pending = append(s.pending, fmt.Sprintf("%s is not used for logins to registries: %v", f.path, err))
			continue
		}
		s.add(f.path, content, f.parser, place)
		return
	}
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, mostConfig+1))
	if err == nil && len(content) > mostConfig {
		return nil, fmt.Errorf("it is larger than %s", size(mostConfig))
	}
	return content, err
}

func (s *sources) addCredentials(credentials []tranter.Credential) {
	logins := map[string]registry.AuthConfig{}
	for _, c := range credentials {
		key := pathKey(c.URL)
		if c.Type != "registry" || key == "" {
			continue
		}
		if _, twice := logins[key]; !twice {
			logins[key] = registry.AuthConfig{Username: c.Username, Password: c.Password.Reveal(), ServerAddress: bare(c.URL)}
		}
	}
	if len(logins) > 0 {
		s.list = append(s.list, &source{name: "job payload (GitLab Registry)", logins: logins})
	}
}

// find returns the login for an image, and writes to log what is wrong with the sources.
func (l Logins) find(ctx context.Context, n name, log io.Writer) login {
	if l.found == nil || n.isID() {
		return login{}
	}
	s := l.found
	s.mu.Lock() // a helper is asked once, also when several images are wanted at the same time
	defer s.mu.Unlock()
	defer func() {
		for _, text := range s.pending {
			warn(log, "%s", text)
		}
		s.pending = nil
	}()
	for _, path := range prefixes(n.repository()) {
		for _, from := range s.list {
			auth, ok, err := from.login(ctx, path)
			if err != nil {
				s.pending = append(s.pending, fmt.Sprintf("%s: %v", from.name, err))
			}
			if ok {
				return login{source: from.name, path: path, auth: auth}
			}
		}
	}
	return login{}
}

// searched names what was looked through, for messages.
func (l Logins) searched() string {
	if l.found == nil || len(l.found.list) == 0 {
		return "no source of logins is set"
	}
	var names []string
	for _, s := range l.found.list {
		names = append(names, s.name)
	}
	return "looked in " + strings.Join(names, ", ")
}

// prefixes are the paths that a login for a repository may be kept under, the longest first.
func prefixes(repository string) []string {
	parts := strings.Split(repository, "/")
	parts[0] = strings.ToLower(parts[0])
	var paths []string
	for i := len(parts); i > 0; i-- {
		paths = append(paths, strings.Join(parts[:i], "/"))
	}
	return paths
}

// header is the login as a request to the engine carries it; empty: none.
func (l login) header() (string, error) {
	if l.source == "" {
		return "", nil
	}
	return authconfig.Encode(l.auth)
}

// mask removes the login's secrets from a text that comes from elsewhere.
func (l login) mask(text string) string {
	for _, secret := range []string{l.auth.Password, l.auth.IdentityToken, l.auth.RegistryToken, l.auth.Auth} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[MASKED]")
		}
	}
	return text
}

// login returns what the source has for exactly this path: what a helper for it says, what is written down, what the
// store of the source says.
func (s *source) login(ctx context.Context, path string) (registry.AuthConfig, bool, error) {
	if h, ok := s.helpers[path]; ok {
		auth, found, err := s.helperIn.get(ctx, h)
		if found || err != nil {
			if err != nil {
				delete(s.helpers, path) // one warning is enough
			}
			return auth, found, err
		}
	}
	if auth, ok := s.logins[path]; ok {
		return auth, true, nil
	}
	if s.store == nil {
		return registry.AuthConfig{}, false, nil
	}
	if !s.listed {
		s.listed = true
		servers, err := s.helperIn.list(ctx, *s.store)
		if err != nil {
			s.store = nil
			return registry.AuthConfig{}, false, err
		}
		s.inStore = servers
	}
	server, ok := s.inStore[path]
	if !ok {
		return registry.AuthConfig{}, false, nil
	}
	return s.helperIn.get(ctx, helper{program: s.store.program, server: server})
}

// pathKey is the registry path that the key of a login stands for: without scheme, the host in lower case, docker.io
// for each of its names.
func pathKey(key string) string {
	path := bare(key)
	if strings.Contains(key, "://") { // an address of the registry's API
		for _, version := range []string{"/v1", "/v2"} {
			path = strings.TrimSuffix(path, version)
		}
	}
	host, rest, nested := strings.Cut(path, "/")
	host = registryKey(host)
	if host == hub && (rest == "v1" || rest == "v2") {
		return hub
	}
	if nested && rest != "" {
		return host + "/" + rest
	}
	return host
}

// registryKey is a registry's host, and port if any, as it is compared.
func registryKey(host string) string {
	switch host = strings.ToLower(bare(host)); host {
	case "index.docker.io", "registry-1.docker.io", "docker.io":
		return hub
	default:
		return host
	}
}

// bare removes scheme, blanks and slashes around an address.
func bare(address string) string {
	address = strings.TrimSpace(address)
	if scheme, rest, ok := strings.Cut(address, "://"); ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
		address = rest
	}
	return strings.Trim(address, "/")
}
