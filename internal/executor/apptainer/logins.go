package apptainer

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/tranter-ci/tranter"
)

// logins are users and passwords by registry. Of several sources with one for a registry, the first counts (runner
// contract, section 9.7).
type logins map[string]login

type login struct{ user, password string }

// find returns the login for a registry, as host or host:port.
func (l logins) find(registry string) (user, password string, ok bool) {
	found, ok := l[registryKey(registry)]
	return found.user, found.password, ok
}

func (l logins) add(registry, user, password string) {
	key := registryKey(registry)
	if _, twice := l[key]; !twice && key != "" && user != "" {
		l[key] = login{user, password}
	}
}

// loginsOf returns those of a job: DOCKER_AUTH_CONFIG of its variables, then of the runner's environment, then the files
// of the user, then what came with the job. What can't be read is left out, and told of by name.
func loginsOf(configs []string, home string, credentials []tranter.Credential) (l logins, trouble []string) {
	l = logins{}
	for _, text := range configs {
		if strings.TrimSpace(text) != "" && !l.addConfig([]byte(text)) {
			trouble = append(trouble, "$DOCKER_AUTH_CONFIG")
		}
	}
	for _, file := range []string{".docker/config.json", ".apptainer/docker-config.json", ".singularity/docker-config.json"} {
		if home == "" {
			break
		}
		path := filepath.Join(home, filepath.FromSlash(file))
		data, err := readBounded(path)
		if err == nil && !l.addConfig(data) {
			trouble = append(trouble, path)
		}
	}
	for _, c := range credentials {
		if c.Type == "registry" {
			l.add(c.URL, c.Username, c.Password.Reveal())
		}
	}
	return l, trouble
}

const mostConfig = 1 << 20

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, mostConfig))
}

// addConfig adds what a file of Docker's logins has.
func (l logins) addConfig(data []byte) bool {
	var c struct {
		Auths map[string]struct {
			Auth     string `json:"auth"`
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"auths"`
	}
	if json.Unmarshal(data, &c) != nil {
		return false
	}
	for registry, a := range c.Auths {
		if plain, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && a.Auth != "" {
			a.Username, a.Password, _ = strings.Cut(string(plain), ":")
		}
		l.add(registry, a.Username, a.Password)
	}
	return true
}

// registryKey is the host of a registry's address. Docker's own has several names.
func registryKey(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	host, _, _ := strings.Cut(address, "/")
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return host
}
