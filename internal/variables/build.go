package variables

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// Provided is what the runner adds to a job's variables.
type Provided struct {
	Flags       map[string]bool // resolved
	Image       string          // of the job, expanded; "" without one
	ShortToken  string
	Environment []string // the runner's environment setting: KEY=VALUE
	Dirs        tranter.Dirs
	Slots       Slots
	Timeout     time.Duration

	TLSCA           string // contents of the certificates; "" where there are none
	TLSCert, TLSKey string // paths, or contents with TLSFiles; "" where there are none
	TLSFiles        bool   // jobs can't read the runner's files: they get files of their own

	Network string // that is made for the job; "" where none is

	Shared  bool // the executor's environments are shared by jobs
	Version string
	Commit  string
	Arch    string // such as linux/amd64
}

// Slots tells jobs that run at the same time apart (runner contract, section 5.1): numbers from 0.
type Slots struct {
	Runner  int // unique among the runner's jobs: CI_CONCURRENT_ID
	Project int // unique among those of the project: CI_CONCURRENT_PROJECT_ID
}

// longestNetwork is the most characters of a network's name.
const longestNetwork = 63

// NetworkName returns the name of a job's own network (runner contract, section 9.10): slot is the job's number among those
// of its project.
func NetworkName(shortToken string, project int64, slot int, job int64) string {
	name := fmt.Sprintf("runner-%s-%d-%d-%d", shortToken, project, slot, job)
	return name[:min(len(name), longestNetwork)]
}

// Build returns the complete list of a job's variables, in the order of the runner contract, section 5.1, unexpanded.
func Build(job *tranter.Job, p Provided) List {
	var l List
	l = append(l, flagVariables(p.Flags)...)
	if p.Image != "" {
		l = append(l, provided("CI_JOB_IMAGE", p.Image))
	}
	l = append(l, provided("CI_RUNNER_SHORT_TOKEN", p.ShortToken))
	for _, kv := range p.Environment {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			l = append(l, tranter.Variable{Key: k, Value: v, Internal: true})
		}
	}
	l = append(l,
		provided("CI_BUILDS_DIR", p.Dirs.Builds),
		provided("CI_PROJECT_DIR", p.Dirs.Project),
		provided("CI_CONCURRENT_ID", strconv.Itoa(p.Slots.Runner)),
		provided("CI_CONCURRENT_PROJECT_ID", strconv.Itoa(p.Slots.Project)),
		provided("CI_SERVER", "yes"),
		provided("CI_JOB_STATUS", "running"),
		provided("CI_JOB_TIMEOUT", strconv.Itoa(int(p.Timeout/time.Second))),
	)
	l = append(l, tlsFiles(p)...)
	for _, v := range job.Variables {
		if !IsFlag(v.Key) {
			v.Internal = false
			l = append(l, v)
		}
	}
	environment := "CI_DISPOSABLE_ENVIRONMENT"
	if p.Shared {
		environment = "CI_SHARED_ENVIRONMENT"
	}
	l = append(l,
		provided(environment, "true"),
		provided("CI_RUNNER_VERSION", p.Version),
		provided("CI_RUNNER_REVISION", p.Commit),
		provided("CI_RUNNER_EXECUTABLE_ARCH", p.Arch),
	)
	l = append(l, job.SecretVariables...)
	l = append(l,
		provided("RUNNER_TEMP_PROJECT_DIR", p.Dirs.Temp),
	)
	if p.Network != "" {
		l = append(l, provided("CI_BUILD_NETWORK_NAME", p.Network))
	}
	return l
}

func provided(key, value string) tranter.Variable {
	return tranter.Variable{Key: key, Value: value, Public: true, Internal: true, Raw: true}
}

func flagVariables(values map[string]bool) List {
	var l List
	for _, f := range Flags() {
		if v, ok := values[f.Name]; ok {
			l = append(l, provided(f.Name, strconv.FormatBool(v)))
		}
	}
	return l
}

// tlsFiles returns where the job finds what the server was reached with. Where the job can read the certificate and its key
// as they are, they are not copied to where other jobs might read them.
func tlsFiles(p Provided) List {
	var l List
	if p.TLSCA != "" {
		l = append(l, tranter.Variable{Key: "CI_SERVER_TLS_CA_FILE", Value: p.TLSCA, Public: true, File: true, Internal: true, Raw: true})
	}
	if p.TLSCert != "" {
		l = append(l, tranter.Variable{Key: "CI_SERVER_TLS_CERT_FILE", Value: p.TLSCert, Public: true, File: p.TLSFiles, Internal: true, Raw: true})
	}
	if p.TLSKey != "" {
		l = append(l, tranter.Variable{Key: "CI_SERVER_TLS_KEY_FILE", Value: p.TLSKey, File: p.TLSFiles, Internal: true, Raw: true})
	}
	return l
}
