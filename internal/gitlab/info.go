package gitlab

import (
	"cmp"
	"fmt"
	"runtime"

	"github.com/tranter-ci/tranter"
)

// Program names this program to servers. They know GitLab Runner and compare its releases, so what they are told first
// is the name gitlab-runner and the release whose contract is kept; which program it is in truth follows as revision.
type Program struct {
	Name     string // empty: tranter
	Version  string
	Revision string // commit; may be empty
}

// What servers are told (runner contract, section 1.5).
const (
	contractName    = "gitlab-runner"
	contractVersion = "19.4.0"
)

// revision is such as "tranter-1.2.3" or "tranter-1.2.3-0123abcd".
func (p Program) revision() string {
	s := cmp.Or(p.Name, "tranter") + "-" + cmp.Or(p.Version, "dev")
	if p.Revision != "" {
		s += "-" + p.Revision[:min(8, len(p.Revision))]
	}
	return s
}

func (p Program) userAgent() string {
	return fmt.Sprintf("%s %s (%s; %s; %s/%s)", contractName, contractVersion, p.revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// info is what a server is told about the runner (runner contract, section 1.5).
type info struct {
	Name         string            `json:"name"`
	Version      string            `json:"version"`
	Revision     string            `json:"revision"`
	Platform     string            `json:"platform"`
	Architecture string            `json:"architecture"`
	Executor     string            `json:"executor"`
	Shell        string            `json:"shell"`
	Features     tranter.Features  `json:"features"`
	Config       infoConfig        `json:"config"`
	Labels       map[string]string `json:"labels,omitempty"`
}

type infoConfig struct {
	GPUs string `json:"gpus"`
}

// info adds to what the runner promises what the client and the trace see to.
func (c *Client) info(r tranter.Request) info {
	f := r.Features
	f.TraceReset, f.TraceChecksum, f.TraceSize = true, true, true
	f.Cancelable, f.CancelGracefully, f.TwoPhaseJobCommit = true, true, true
	f.VaultSecrets = true
	return info{
		Name: contractName, Version: contractVersion, Revision: c.o.Version.revision(),
		Platform: runtime.GOOS, Architecture: runtime.GOARCH,
		Executor: r.Executor, Shell: r.Shell, Features: f, Config: infoConfig{GPUs: r.GPUs}, Labels: r.Labels,
	}
}

// told returns what the server was told last.
func (c *Client) told() info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.about
}
