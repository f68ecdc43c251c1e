package coordinator_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// last returns the entry of the payload that holds for the key.
func last(t *testing.T, j *tranter.Job, key string) tranter.Variable {
	t.Helper()
	found := tranter.Variable{Value: "(missing)"}
	for _, v := range j.Variables {
		if v.Key == key {
			found = v
		}
	}
	return found
}

// What is public goes to services: of the user's variables only those in the file.
func TestServicesGetOnlyTheVariablesOfTheFile(t *testing.T) {
	b := started(t, coordinator.Options{})
	published := []tranter.Variable{{Key: "PROJECT", Value: "1", Public: true}}
	b.start(stages(
		script("one", "build"),
		script("two", "test", func(j *pipeline.Job) {
			j.When = pipeline.Manual
			j.Variables = []tranter.Variable{{Key: "WRITTEN", Value: "4", Public: true}}
		}),
	), func(s *coordinator.PipelineSpec) {
		s.Project = published
		s.Variables = []tranter.Variable{{Key: "GIVEN", Value: "2", Public: true}}
	})
	one := b.take()
	b.want(b.upload(one, "artifact_type=dotenv&artifact_format=gzip", ".env.gz", gz("DOTENV=3\n")), http.StatusCreated)
	b.finish(one, "success")
	b.admin("POST", fmt.Sprintf("projects/1/jobs/%d/play", one.ID+1), map[string]any{
		"job_variables_attributes": []map[string]any{{"key": "PLAYED", "value": "5"}},
	}, http.StatusOK, nil)
	two := b.take()
	for key, want := range map[string]tranter.Variable{
		"PROJECT": {Value: "1"}, "GIVEN": {Value: "2"}, "DOTENV": {Value: "3"}, "PLAYED": {Value: "5"},
		"WRITTEN": {Value: "4", Public: true}, "CI_JOB_NAME": {Value: "two", Public: true},
	} {
		if got := last(t, two, key); got.Value != want.Value || got.Public != want.Public {
			t.Errorf("%s: %+v, want %+v", key, got, want)
		}
	}
	if !published[0].Public {
		t.Error("the caller's list was changed")
	}
}

func TestVariablesThatTheFileDoesNotSet(t *testing.T) {
	b := started(t, coordinator.Options{})
	p := stages(script("one", "test", func(j *pipeline.Job) {
		j.Variables = []tranter.Variable{{Key: "GITLAB_USER_LOGIN", Value: "root"}, {Key: "CI_COMMIT_TITLE", Value: "mine"}, {Key: "WHO", Value: "$GITLAB_USER_LOGIN"}}
	}))
	p.Name = "nightly"
	b.start(p, func(s *coordinator.PipelineSpec) {
		s.Predefined = []tranter.Variable{
			{Key: "GITLAB_USER_LOGIN", Value: "ada", Public: true},
			{Key: "CI_COMMIT_TITLE", Value: "theirs", Public: true},
			{Key: "CI_API_GRAPHQL_URL", Value: "http://elsewhere/api/graphql", Public: true},
			{Key: "CI_SERVER_SHELL_SSH_HOST", Value: "elsewhere", Public: true},
		}
	})
	j := b.take()
	for key, want := range map[string]string{
		"GITLAB_USER_LOGIN": "ada", "WHO": "ada", "CI_COMMIT_TITLE": "mine", "CI_PIPELINE_NAME": "nightly",
		"CI_API_GRAPHQL_URL": b.server.URL + "/api/graphql", "CI_SERVER_SHELL_SSH_HOST": "127.0.0.1",
	} {
		if got := last(t, j, key); got.Value != want {
			t.Errorf("%s=%q, want %q", key, got.Value, want)
		}
	}
}

func TestAFileVariableOfARequest(t *testing.T) {
	var b *bench
	b = started(t, coordinator.Options{
		NewPipeline: func(ctx context.Context, p coordinator.Project, ref string, vars []tranter.Variable) (int64, error) {
			return b.c.StartPipeline(ctx, p.ID, coordinator.PipelineSpec{Pipeline: stages(script("one", "test")), Ref: ref, SHA: "a1", Variables: vars})
		},
	})
	if _, err := b.c.CreateProject("demo", ""); err != nil {
		t.Fatal(err)
	}
	b.admin("POST", "projects/1/pipeline", map[string]any{"ref": "main", "variables": []map[string]any{
		{"key": "CONFIG", "value": "text", "variable_type": "file"}, {"key": "PLAIN", "value": "x", "variable_type": "env_var"},
	}}, http.StatusCreated, nil)
	j := b.take()
	if v := last(t, j, "CONFIG"); v.Value != "text" || !v.File {
		t.Errorf("CONFIG: %+v", v)
	}
	if v := last(t, j, "PLAIN"); v.Value != "x" || v.File {
		t.Errorf("PLAIN: %+v", v)
	}
}

func TestMissingTokensAreSaid(t *testing.T) {
	var log bytes.Buffer
	b := started(t, coordinator.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	b.start(stages(script("deploy", "test", func(j *pipeline.Job) { j.IDTokens = map[string][]string{"VAULT_TOKEN": {"https://vault"}} })))
	if !strings.Contains(log.String(), "job=deploy") || !strings.Contains(log.String(), "VAULT_TOKEN") {
		t.Errorf("the log says %q", &log)
	}
}

// Runners tell servers, and the usage of their own, apart by these.
func TestServerAndRunnerKeepTheirUUIDs(t *testing.T) {
	dir := t.TempDir()
	b := started(t, coordinator.Options{Dir: dir})
	b.start(stages(script("one", "test"), script("two", "test")))
	one := b.take()
	if one.Info.InstanceID == "" || one.Info.InstanceID != one.Info.InstanceUUID || len(one.Info.InstanceUUID) != 36 {
		t.Errorf("the server is %q, %q", one.Info.InstanceID, one.Info.InstanceUUID)
	}
	if len(one.Runner.UUID) != 36 || one.Runner.UUID == one.Info.InstanceUUID {
		t.Errorf("the runner is %q", one.Runner.UUID)
	}
	b.close()
	again := open(t, coordinator.Options{Dir: dir})
	again.runner = b.runner
	two := again.take()
	if two.Info.InstanceUUID != one.Info.InstanceUUID || two.Runner.UUID != one.Runner.UUID {
		t.Errorf("after a restart they are %s and %s, before %s and %s", two.Info.InstanceUUID, two.Runner.UUID, one.Info.InstanceUUID, one.Runner.UUID)
	}
}
