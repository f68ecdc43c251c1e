package custom

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/driver"
	"github.com/tranter-ci/tranter/internal/variables"
)

// environ is what the driver's programs find in their environment besides what the manager has in its own (runner
// contract, section 10.2).
type environ struct {
	temp      string
	variables variables.List // expanded; a file variable holds its content
	job       *tranter.Job
	jobEnv    map[string]string
}

func exitFile(temp string) string { return filepath.Join(temp, "build_exit_code") }

func (e environ) responseFile() string { return filepath.Join(e.temp, "response.json") }

// list returns the environment. Of several entries with one name, the last one holds.
func (e environ) list() []string {
	out := []string{
		"TMPDIR=" + e.temp,
		"BUILD_FAILURE_EXIT_CODE=" + strconv.Itoa(driver.BuildFailure),
		"SYSTEM_FAILURE_EXIT_CODE=" + strconv.Itoa(driver.SystemFailure),
		"BUILD_EXIT_CODE_FILE=" + exitFile(e.temp),
		"JOB_RESPONSE_FILE=" + e.responseFile(),
	}
	add := func(key, value string) {
		if key != "" && !strings.ContainsAny(key, "=\x00") && !strings.ContainsRune(value, 0) {
			out = append(out, key+"="+value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(e.jobEnv)) {
		add(key, e.jobEnv[key])
	}
	for _, v := range e.variables.Effective() {
		add("CUSTOM_ENV_"+v.Key, v.Value)
	}
	add("CUSTOM_ENV_CI_JOB_SERVICES", e.services())
	return out
}

// service is one of the job's services as drivers know it.
type service struct {
	Name       string            `json:"name"`
	Alias      string            `json:"alias"`
	Entrypoint []string          `json:"entrypoint"`
	Command    []string          `json:"command"`
	Variables  map[string]string `json:"variables"`
}

// services returns the job's services as JSON, or "" without any.
func (e environ) services() string {
	if len(e.job.Services) == 0 {
		return ""
	}
	out := make([]service, 0, len(e.job.Services))
	for _, s := range e.job.Services {
		one := service{Name: e.expand(s.Name), Entrypoint: s.Entrypoint, Command: s.Command, Variables: map[string]string{}}
		aliases := strings.FieldsFunc(e.expand(s.Alias), func(c rune) bool { return c == ' ' || c == ',' })
		if len(aliases) > 0 {
			one.Alias = aliases[0]
		}
		all := append(slices.Clone(e.variables), s.Variables...)
		for _, v := range s.Variables {
			value := v.Value
			if !v.Raw {
				value = all.ExpandString(value, "")
			}
			one.Variables[v.Key] = value
		}
		out = append(out, one)
	}
	data, _ := json.Marshal(out)
	return string(data)
}

func (e environ) expand(s string) string { return e.variables.ExpandString(s, "") }

// writeResponse writes the job's payload, with image names expanded, for drivers that want more than variables.
func (e environ) writeResponse() error {
	job := *e.job
	job.Image.Name = e.expand(job.Image.Name)
	job.Services = slices.Clone(job.Services)
	for i := range job.Services {
		job.Services[i].Name = e.expand(job.Services[i].Name)
	}
	data, err := json.Marshal(&job)
	if err == nil {
		err = os.WriteFile(e.responseFile(), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the job's payload for the driver: %w", err)
	}
	return nil
}
