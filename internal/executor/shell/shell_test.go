package shell_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
	"github.com/tranter-ci/tranter/internal/executor/shell"
)

func TestMain(m *testing.M) { os.Exit(executortest.Main(m)) }

// subject is the executor with jobs running as the given user.
func subject(agent []string, user string) executortest.Subject {
	return executortest.Subject{
		Alive: alive,
		New: func(t *testing.T) tranter.Executor {
			t.Helper()
			e, err := shell.New(shell.Options{Agent: agent, User: user, Secret: []string{"glrt-runner"}})
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	executortest.Run(t, subject([]string{os.Args[0]}, ""))
}

func TestConformanceBash(t *testing.T) {
	t.Parallel()
	s := subject([]string{os.Args[0]}, "")
	s.Shell = "bash"
	executortest.Run(t, s)
}

func TestUnknownUser(t *testing.T) {
	t.Parallel()
	var config *tranter.ConfigError
	_, err := shell.New(shell.Options{User: "no-such-user-here"})
	if !errors.As(err, &config) || !strings.Contains(err.Error(), "no-such-user-here") {
		t.Errorf("error %v", err)
	}
}

// What the manager knows is not for jobs.
func TestEnvironmentOfJobs(t *testing.T) {
	t.Setenv("TRANTER_CONFIG", "x")
	t.Setenv("CI_SERVER_TOKEN", "x")
	t.Setenv("NOTIFY_SOCKET", "x")
	t.Setenv("OWN_NAME_FOR_IT", "the token is glrt-runner")
	t.Setenv("FOR_JOBS", "yes")
	j := executortest.Open(t, subject([]string{os.Args[0]}, ""))
	_, log := j.Run("env")
	for _, unwanted := range []string{"TRANTER_CONFIG", "CI_SERVER_TOKEN", "NOTIFY_SOCKET", "OWN_NAME_FOR_IT", "glrt-runner"} {
		if strings.Contains(log, unwanted) {
			t.Errorf("%s is in the environment of a job:\n%s", unwanted, log)
		}
	}
	if !strings.Contains(log, "\nFOR_JOBS=yes\n") {
		t.Errorf("what the administrator has set for jobs is missing:\n%s", log)
	}
	if !strings.Contains(j.Log.String(), "Using Shell") {
		t.Errorf("the executor says %q", j.Log)
	}
}
