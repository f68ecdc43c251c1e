package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Every key has a description, a default that can be read, and an example that parses without a problem of its own.
func TestEveryKeyIsDocumented(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Keys() {
		if d.About == "" || !strings.HasSuffix(d.About, ".") && !strings.HasSuffix(d.About, "*.") {
			t.Errorf("%s: description %q", d.Key, d.About)
		}
		if seen[strings.ToLower(d.Key)] {
			t.Errorf("%s is there twice", d.Key)
		}
		seen[strings.ToLower(d.Key)] = true
		if strings.HasPrefix(d.Type, "list of sections") || d.Type == "section" || strings.HasPrefix(d.Example, "[") {
			continue
		}
		text := d.Example
		if d.Section != header("") {
			text = "[[runners]]\n" + openHeaders(d.Key) + text
		}
		_, problems := Parse(Source{Name: d.Key, Data: []byte(text)})
		for _, p := range problems {
			if p.Severity == Error && strings.EqualFold(p.Key, d.Key) && !strings.Contains(p.Text, "not built") && p.Text != "is missing" && !strings.Contains(p.Text, "without tls") {
				t.Errorf("example of %s: %v", d.Key, p)
			}
		}
	}
	if len(seen) < 330 {
		t.Errorf("only %d keys", len(seen))
	}
}

func openHeaders(key string) string {
	section := parent(key)
	switch section {
	case "runners":
		return ""
	case "runners.docker.services", "runners.kubernetes.services", "runners.machine.autoscaling", "runners.machine.option_sets", "runners.machine.hosts", "runners.autoscaler.policy", "runners.monitoring.job_queuing_durations",
		"runners.batch.tags", "runners.apptainer.services":
		return "[[" + section + "]]\n"
	}
	return "[" + section + "]\n"
}

// All keys that the reference of GitLab Runner names in sections 11.1 to 11.8 are known.
func TestAllKeysOfTheReference(t *testing.T) {
	data, err := os.ReadFile("testdata/reference_keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, d := range Keys() {
		known[d.Key] = true
	}
	for line := range strings.Lines(string(data)) {
		section, keys, _ := strings.Cut(strings.TrimSpace(line), ":")
		for key := range strings.FieldsSeq(keys) {
			if full := strings.TrimPrefix(section+"."+key, "."); !known[full] {
				t.Errorf("%s is not known", full)
			}
		}
	}
}

func TestDefaults(t *testing.T) {
	c := Default()
	if c.Concurrent != 1 || c.CheckInterval != 3*time.Second || c.ShutdownTimeout != 30*time.Second || c.ConnectionMaxAge != 15*time.Minute || c.SessionServer.SessionTimeout != 30*time.Minute || c.LogLevel != "info" {
		t.Errorf("%+v", c)
	}
	r := DefaultRunner()
	if r.OutputLimit != 4096 || r.RequestConcurrency != 1 || r.UnhealthyInterval != time.Hour || r.FinalUpdateRetryLimit != 10 || r.Artifact.UploadTimeout != time.Hour || r.Custom.ForceKillTimeout != 10*time.Second || r.Machine.MaxRemovalAttempts != 30 || !reflect.DeepEqual(r.Docker.PullPolicy, OneOrMany{"always"}) || !r.Autoscaler.ReservationThrottling {
		t.Errorf("%+v", r)
	}
	parsed, problems := Parse(Source{Data: []byte("check_interval = 0\nshutdown_timeout = 0\n[[runners]]\nurl='https://x'\ntoken='t'\nexecutor='shell'\noutput_limit = 0\n")})
	if len(problems) != 0 || parsed.CheckInterval != 3*time.Second || parsed.Runners[0].OutputLimit != 4096 {
		t.Errorf("zero does not mean default: %v %+v", problems, parsed)
	}
}

func TestValues(t *testing.T) {
	c, _ := Parse(source(t, "testdata/samples/shell.toml"))
	r := c.Runners[0]
	if r.Token != "glrt-fromenvironmentfrome" || r.Raw.Token != "$RUNNER_TOKEN" || r.ID != 17 || r.Line != 10 || r.Index != 0 || !r.TokenExpiresAt.IsZero() {
		t.Errorf("%v %v", r.Token.Reveal(), r)
	}
	if !r.CustomBuildDir.Enabled.Or(false) || r.SafeDirectoryCheckout.Set || r.CleanGitConfig.Or(true) != true || r.FeatureFlags["FF_TIMESTAMPS"] || len(r.FeatureFlags) != 1 {
		t.Errorf("%+v", r)
	}
	c, _ = Parse(source(t, "testdata/samples/docker.toml"))
	d := c.Runners[0].Docker
	if d.ServicesLimit != (Optional[int]{3, true}) || d.WaitForServicesTimeout != -time.Second || len(d.Services) != 1 || d.Ulimit["nofile"] != "1024:4096" || len(d.ServicesDevices["nvidia/*"]) != 1 {
		t.Errorf("%+v", d)
	}
	if s := c.Runners[1].Docker.Services; len(s) != 2 || s[0].Name != "postgres:17" {
		t.Errorf("services as strings: %+v", s)
	}
	c, _ = Parse(source(t, "testdata/samples/others.toml"))
	k := c.Runners[6].Kubernetes
	if k.More["use_service_account_image_pull_secrets"] != true || k.NodeSelector["kubernetes.io/arch"] != "amd64" {
		t.Errorf("%+v", k)
	}
	c, problems := Parse(Source{Name: "/etc/r/c.toml", Data: []byte("[[runners]]\nurl='https://x'\nexecutor='shell'\ntoken_file='sub/t'\n"), ReadFile: func(string) ([]byte, error) { return []byte(" tok \n"), nil }})
	if len(problems) != 0 || c.Runners[0].Token != "tok" {
		t.Errorf("token_file: %v", problems)
	}
}

func TestStrict(t *testing.T) {
	_, problems := Parse(Source{Data: []byte("concurent = 1\n")})
	if Failed(problems, false) || !Failed(problems, true) {
		t.Error(problems)
	}
}

func TestExplain(t *testing.T) {
	for ask, want := range map[string]string{
		"runners.docker.image": "runners.docker.image", "image": "runners.docker.image", "IMAGE": "runners.docker.image",
		"docker.image": "runners.docker.image", "concurrent": "concurrent", "machinedriver": "runners.machine.MachineDriver",
		"[runners.cache.s3]": "runners.cache.s3", "limit": "runners.limit", "pre_clone_script": "runners.pre_get_sources_script", "runners": "runners",
		"Path": "runners.cache.Path", "[[runners]]": "runners",
	} {
		d, err := Explain(ask)
		if err != nil || d.Key != want {
			t.Errorf("Explain(%s) = %s, %v", ask, d.Key, err)
		}
	}
	if d, _ := Explain("image"); len(d.Also) < 2 || !d.Built || !strings.Contains(d.String(), "See also") {
		t.Errorf("%v", d)
	}
	for ask, want := range map[string]string{"imge": "runners.docker.image", "concurent": "concurrent", "runners.dcoker": "runners.docker", "runners.docker.imag": "runners.docker.image"} {
		if _, err := Explain(ask); err == nil || !strings.Contains(err.Error(), want+"?") {
			t.Errorf("Explain(%s): %v", ask, err)
		}
	}
	if _, err := Explain(""); err == nil {
		t.Error("nothing was explained")
	}
}

func TestFlags(t *testing.T) {
	byName := map[string]Flag{}
	names, envs := map[string]bool{}, map[string]bool{}
	for _, f := range Flags() {
		byName[f.Name] = f
		if names[f.Name] || f.Env != "" && envs[f.Env] {
			t.Errorf("%s or %s is there twice", f.Name, f.Env)
		}
		names[f.Name], envs[f.Env] = true, true
		if !regexp.MustCompile(`^[a-z0-9_-]+$`).MatchString(f.Name) {
			t.Errorf("name %q", f.Name)
		}
	}
	for name, env := range map[string]string{
		"url": "CI_SERVER_URL", "token": "CI_SERVER_TOKEN", "name": "RUNNER_NAME", "docker-image": "DOCKER_IMAGE", "docker-cert-path": "DOCKER_CERT_PATH",
		"docker-tlsverify": "DOCKER_TLS_VERIFY", "docker-services_privileged": "DOCKER_SERVICES_PRIVILEGED", "docker-network-mtu": "", "machine-idle-nodes": "MACHINE_IDLE_COUNT",
		"machine-machine-driver": "MACHINE_DRIVER", "custom-run-exec": "CUSTOM_RUN_EXEC", "custom-run-args": "", "ssh-known-hosts-file": "KNOWN_HOSTS_FILE", "cache-type": "CACHE_TYPE",
		"cache-max_uploaded_archive_size": "CACHE_MAXIMUM_UPLOADED_ARCHIVE_SIZE", "cache-s3-authentication_type": "CACHE_S3_AUTHENTICATION_TYPE", "cache-gcs-credentials-file": "GOOGLE_APPLICATION_CREDENTIALS",
		"cache-azure-account-key": "CACHE_AZURE_ACCOUNT_KEY", "kubernetes-context": "KUBECTL_CONTEXT", "custom_build_dir-enabled": "CUSTOM_BUILD_DIR_ENABLED", "unhealthy-interval": "",
		"job-status-final-update-retry-limit": "RUNNER_job_status_final_update_retry_limit", "env": "RUNNER_ENV", "cache-directory-path": "CACHE_DIRECTORY_PATH",
	} {
		if f, ok := byName[name]; !ok || f.Env != env {
			t.Errorf("--%s has variable %q (there: %v), want %q", name, f.Env, ok, env)
		}
	}
	if u := byName["url"]; u.Short != "u" || byName["name"].Alias != "description" || !byName["token"].Secret || !byName["docker-privileged"].Bool || !byName["docker-volumes"].List {
		t.Errorf("%+v", u)
	}
}

func TestApply(t *testing.T) {
	s, problems := Apply(map[string][]string{
		"url": {"https://gitlab.example.com"}, "token": {"glrt-x"}, "executor": {"docker"}, "description": {"d"}, "limit": {"3"},
		"docker-image": {"alpine"}, "docker-volumes": {"/cache", "/a:/b"}, "docker-pull-policy": {"never"}, "docker-privileged": {"true"}, "docker-wait-for-services-timeout": {"10"},
		"unhealthy-interval": {"90m"}, "feature-flags": {"FF_A:true", `{"FF_B": false}`}, "docker-sysctls": {"net.x=1"}, "machine-idle-scale-factor": {"1.5"},
		"cache-s3-bucket-name": {"b"}, "env": {"A=1"}, "safe-directory-checkout": {"false"}, "docker-services_devices": {`{"a/*": ["/dev/x"]}`},
	})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	e := edit(t, "")
	if err := e.AppendRunner(s); err != nil {
		t.Fatal(err)
	}
	c, problems := Parse(Source{Data: e.Bytes()})
	for _, p := range problems {
		if p.Severity == Error && !p.NotBuilt {
			t.Error(p)
		}
	}
	want := DefaultRunner()
	want.URL, want.Token, want.Executor, want.Name, want.Limit = "https://gitlab.example.com", "glrt-x", "docker", "d", 3
	want.Raw = Raw{URL: want.URL, Token: want.Token}
	want.Docker.Image, want.Docker.Volumes, want.Docker.PullPolicy, want.Docker.Privileged, want.Docker.WaitForServicesTimeout = "alpine", []string{"/cache", "/a:/b"}, OneOrMany{"never"}, true, 10*time.Second
	want.UnhealthyInterval, want.FeatureFlags, want.Docker.Sysctls, want.Machine.IdleScaleFactor = 90*time.Minute, map[string]bool{"FF_A": true, "FF_B": false}, map[string]string{"net.x": "1"}, 1.5
	want.Cache.S3.BucketName, want.Environment, want.SafeDirectoryCheckout, want.Docker.ServicesDevices = "b", []string{"A=1"}, Optional[bool]{false, true}, map[string][]string{"a/*": {"/dev/x"}}
	want.Line = c.Runners[0].Line
	if diff := cmp.Diff(want, c.Runners[0]); diff != "" {
		t.Errorf("(-want +got)\n%s\n%s", diff, e.Bytes())
	}
	if got := s.ForExecutor("shell"); got.Get("docker") != nil || got.Get("machine") != nil || got.Get("cache") == nil {
		t.Errorf("sections of other executors: %v", got)
	}
}

func TestApplyProblems(t *testing.T) {
	_, problems := Apply(map[string][]string{
		"limit": {"-1"}, "executor": {"dokcer"}, "docker-privileged": {"yes"}, "unhealthy-interval": {"60"}, "feature-flags": {"FF"}, "machine-idle-scale-factor": {"x"},
		"docker-dns": {"nohost"}, "docker-sysctls": {"{"}, "token": {""}, "nonsense": {"1"}, "docker-shm-size": {"1g"},
	})
	if len(problems) != 10 {
		t.Errorf("%d problems:\n%s", len(problems), listing(problems))
	}
}

func TestMergeTemplate(t *testing.T) {
	template := `concurrent = 99
[[runners]]
  token = "ignored"
  name = "template"
  limit = 7
  Executor = "docker"
  mystery = true
  environment = ["A=1"]
  [runners.docker]
    image = "template"
    volumes = ["/t"]
    [[runners.docker.services]]
      name = "s"
    [runners.docker.sysctls]
      a = "1"
      b = "1"
  [runners.machine]
    IdleCount = 2
`
	s := Section{{"name", "mine"}, {"token", "mine"}, {"limit", int64(0)}, {"executor", "docker"}, {"docker", Section{{"image", "mine"}, {"volumes", []string{}}, {"sysctls", Section{{"a", "2"}}}}}}
	got, problems := MergeTemplate(s, Source{Name: "t", Data: []byte(template)})
	want := Section{
		{"name", "mine"},
		{"token", "mine"},
		{"limit", int64(7)},
		{"executor", "docker"},
		{"docker", Section{{"image", "mine"}, {"volumes", []any{"/t"}}, {"sysctls", Section{{"a", "2"}, {"b", "1"}}}, {"services", []Section{{{"name", "s"}}}}}},
		{"mystery", true},
		{"environment", []any{"A=1"}},
		{"machine", Section{{"IdleCount", int64(2)}}},
	}
	if diff := cmp.Diff(want, got); diff != "" || Failed(problems, false) {
		t.Errorf("%v (-want +got)\n%s", problems, diff)
	}
	e := edit(t, "")
	if err := e.AppendRunner(got); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "concurrent = 1\n", "[[runners]]\n[[runners]]\n", "[[runners]]\nlimit = \"x\"\n", "[[runners\n"} {
		if got, problems := MergeTemplate(s, Source{Name: "t", Data: []byte(bad)}); !Failed(problems, false) || !cmp.Equal(got, s) {
			t.Errorf("template %q: %v", bad, problems)
		}
	}
}

func TestPeriods(t *testing.T) {
	for _, good := range []string{"* * * * *", "*/5 0 1,15 * mon-fri", "* * 9-17 * * mon-fri *", "0 0 0 1 1 * 2026-2030", "0 0 L * ?", "0 0 15W * *", "0 0 * * 5#3", "0 0 * * 5L", "@daily", "0 12 * january sunday", "* * * * 7", "0 0 LW * *"} {
		if text, _ := checkPeriod(good); text != "" {
			t.Errorf("%q: %s", good, text)
		}
	}
	for _, bad := range []string{"", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "* * * * mo", "* * * * * * * *", "-1 * * * *", "@never", "+1 * * * *", "1- * * * *", "* * 32W * *", "* * * * 1#6"} {
		if text, _ := checkPeriod(bad); text == "" {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestSecretsInOptionsAreHidden(t *testing.T) {
	for text, want := range map[string]string{
		"openstack-password=x":              "openstack-password=******",
		"hetzner-api-token=x=y":             "hetzner-api-token=******",
		"linode-root-pass=x":                "linode-root-pass=******",
		"amazonec2-secret-key=x":            "amazonec2-secret-key=******",
		"engine-env=DB_PASSWORD=x":          "engine-env=DB_PASSWORD=******",
		"engine-env=PATH=/bin":              "engine-env=PATH=/bin",
		"user-data=#cloud-config":           "user-data=******",
		"stackscript-data={\"a\":\"b\"}":    "stackscript-data=******",
		"amazonec2-userdata=/etc/cloud.yml": "amazonec2-userdata=/etc/cloud.yml",
		"flavor=large":                      "flavor=large",
		"password":                          "password",
		"a=b=c=d":                           "a=b=c=d",
		"":                                  "",
	} {
		if got := hidden(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
