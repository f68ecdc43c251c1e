package conformance

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/vault/vaulttest"
)

// kv is a secret as GitLab hands it out.
func kv(url, path, field string, file bool) map[string]any {
	return map[string]any{"file": file, "vault": map[string]any{
		"server": map[string]any{"url": url, "auth": map[string]any{
			"name": "jwt", "path": "jwt", "data": map[string]any{"jwt": "$ID_TOKEN", "role": "$ROLE"},
		}},
		"engine": map[string]any{"name": "kv-v2", "path": "kv"}, "path": path, "field": field,
	}}
}

func secretJob(url string, commands ...string) tranter.Job {
	job := with(script(commands...), "ROLE", "ci", "SECRETS_RETRIEVAL_ATTEMPTS", "2", "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "false")
	job.Variables = append(job.Variables, tranter.Variable{Key: "ID_TOKEN", Value: "an.id.token", Masked: true})
	job.Secrets = map[string]any{"PASSWORD": kv(url, "app/db", "password", false), "KEY": kv(url, "app/db", "key", true)}
	job.Features.FailureReasons = known
	return job
}

func vaultServer(t *testing.T) *vaulttest.Server {
	v := vaulttest.New(t)
	v.Allow("an.id.token", "ci")
	v.Put("kv/data/app/db", map[string]any{"password": "hunter2 $HOME", "key": "line-one\nline-two"})
	return v
}

func TestSecretsOfVault(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	v := vaultServer(t)
	v.Fail(503) // made up for by the second attempt
	r.start()
	id := r.Enqueue(secretJob(v.URL,
		`echo "password: $PASSWORD"; printf %s "$PASSWORD" | tr a-z A-Z`,
		`echo "token: $ID_TOKEN"; cat "$KEY"; stat -c %a "$KEY"; tr a-z A-Z < "$KEY"`))
	if got := r.Wait(id); got.Status != coordinator.Success {
		t.Errorf("status %s", got.Status)
	}
	log := plain(r.Log(id))
	for _, want := range []string{"Resolving secrets", "password: [MASKED]", "HUNTER2 $HOME", "token: [MASKED]", "600", "LINE-TWO"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	for _, bad := range []string{"hunter2", "line-one", "line-two", "an.id.token"} {
		if strings.Contains(log+r.output.String(), bad) {
			t.Errorf("%q can be seen", bad)
		}
	}
	if n := v.Tokens(); n != 0 {
		t.Errorf("%d tokens of the server are left", n)
	}
}

func TestSecretsThatCannotBeHad(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.start()
	for name, c := range map[string]struct {
		change func(*vaulttest.Server, *tranter.Job)
		reason tranter.FailureReason
		status coordinator.Status
	}{
		"missing": {func(v *vaulttest.Server, _ *tranter.Job) { v.Put("kv/data/app/db", nil) }, tranter.RunnerConfigurationError, coordinator.Failed},
		"refused": {func(_ *vaulttest.Server, j *tranter.Job) { *j = with(*j, "ROLE", "other") }, tranter.RunnerConfigurationError, coordinator.Failed},
		"down":    {func(v *vaulttest.Server, _ *tranter.Job) { v.Fail(503, 503, 503, 503) }, tranter.ExternalDependencyFailure, coordinator.Failed},
		"provider": {func(_ *vaulttest.Server, j *tranter.Job) {
			j.Secrets["X"] = map[string]any{"aws_secrets_manager": map[string]any{}}
		}, tranter.RunnerSystemFailure, coordinator.Failed},
		"unknown": {func(_ *vaulttest.Server, j *tranter.Job) {
			j.Secrets["X"] = map[string]any{"akeyless": map[string]any{}}
		}, "", coordinator.Success},
		"optional": {func(v *vaulttest.Server, j *tranter.Job) {
			v.Put("kv/data/app/db", nil)
			*j = with(*j, "FF_SECRET_RESOLVING_FAILS_IF_MISSING", "false")
		}, "", coordinator.Success},
	} {
		t.Run(name, func(t *testing.T) {
			v := vaultServer(t)
			job := secretJob(v.URL, fmt.Sprintf("touch %s", r.path("ran-"+name)))
			c.change(v, &job)
			id := r.Enqueue(job)
			if got := r.Wait(id); got.Status != c.status || got.Reason != c.reason {
				t.Errorf("got %s %q, want %s %q; log:\n%s", got.Status, got.Reason, c.status, c.reason, plain(r.Log(id)))
			}
			if !strings.HasPrefix(plain(r.Log(id)), "Running with tranter") {
				t.Errorf("the log has no head:\n%s", r.Log(id))
			}
		})
	}
}

// The manager is killed while a job runs that has secrets: the job keeps them, and the server is not asked again.
func TestSecretsOutliveTheManager(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	v := vaultServer(t)
	r.start()
	id := r.Enqueue(secretJob(v.URL, "touch "+r.path("running"), "while ! [ -e "+r.path("go")+" ]; do sleep 0.05; done", `echo "password: $PASSWORD"`))
	r.file(r.path("running"))
	before := len(v.Requests())
	r.kill()
	r.start()
	if err := os.WriteFile(r.path("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.Wait(id); got.Status != coordinator.Success {
		t.Errorf("status %s", got.Status)
	}
	if log := plain(r.Log(id)); !strings.Contains(log, "password: [MASKED]") || strings.Contains(log, "hunter2") {
		t.Errorf("log:\n%s", log)
	}
	if n := len(v.Requests()); n != before {
		t.Errorf("the server was asked again: %v", v.Requests()[before:])
	}
}
