package config_test

import (
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
)

// TestWhoLooksAtARunnerSeesNoSecretOfItsScriptsAndVariables holds for names that tell nothing, too.
func TestWhoLooksAtARunnerSeesNoSecretOfItsScriptsAndVariables(t *testing.T) {
	c, problems := config.Parse(config.Source{Name: "config.toml", Data: []byte(`
[[runners]]
name = "one"
url = "https://gitlab.example.com"
token = "glrt-0123456789abcdef"
executor = "docker"
environment = ["MYPW=s3cret", "GREETING=a=s3cret", "DOCKER_AUTH_CONFIG={\"auths\":{\"x\":{\"auth\":\"s3cret\"}}}"]
pre_build_script = "curl -u me:s3cret https://x"
post_build_script = "s3cret"
pre_get_sources_script = "s3cret"
[runners.docker]
image = "debian"
[[runners.docker.services]]
name = "postgres"
environment = ["POSTGRES=s3cret"]
`)})
	if len(c.Runners) != 1 {
		t.Fatalf("the configuration is not read: %v", problems)
	}
	text, err := config.RenderRunner(c.Runners[0])
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "s3cret") {
		t.Errorf("a secret is shown:\n%s", text)
	}
	for _, want := range []string{"MYPW=", "GREETING=", "POSTGRES=", "pre_build_script"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not shown:\n%s", want, text)
		}
	}
}
