package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tranter-ci/tranter"
)

var errNoShell = errors.New("no shell in the image: neither bash nor sh is in the PATH, /usr/local/bin, /usr/bin, /bin or /busybox; use an image with a shell")

// findShell returns the path of a shell. In a container bash means sh, too, where there is no bash, and both are looked for
// beyond the PATH (runner contract, section 9.3).
func findShell(p *tranter.Phase, name string) (string, error) {
	found, err := exec.LookPath(name)
	switch {
	case err == nil:
		return found, nil
	case p.Container == nil:
		return "", &tranter.ConfigError{Err: fmt.Errorf("the shell %s is not installed: %w", name, err)}
	case name != "bash" && name != "sh":
		return "", &tranter.ConfigError{Err: fmt.Errorf("the shell %s is not in the image: use an image that has it, or another shell in the runner's configuration", name)}
	}
	if found := beyondPath(name); found != "" {
		return found, nil
	}
	if name == "sh" {
		return "", &tranter.ConfigError{Err: errNoShell}
	}
	return findShell(p, "sh")
}

func beyondPath(name string) string {
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin", "/busybox"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
