package pipeline

import (
	"encoding/json"
	"regexp"
	"strings"
)

func tiers() []string { return []string{"production", "staging", "testing", "development", "other"} }

func (d *definition) readEnvironment() {
	s, ok := d.keywords.sub("environment")
	if !ok {
		return
	}
	e := &Environment{Action: "start"}
	d.environment = e
	if s.v.is(text) {
		e.Name = s.v.text
	} else {
		if !s.isHash("name", "url", "action", "on_stop", "auto_stop_in", "deployment_tier", "kubernetes") {
			return
		}
		e.Name, e.URL, e.OnStop = s.text("name"), s.text("url"), s.text("on_stop")
		if action := s.choice("action", "start", "stop", "prepare", "verify", "access"); action != "" {
			e.Action = action
		}
		e.Tier = s.choice("deployment_tier", tiers()...)
		if v := s.v.get("auto_stop_in"); v.is(text) && !hasVariable(v.text) && v.text != "never" {
			e.AutoStopIn = s.duration("auto_stop_in", 0)
		}
	}
	if e.Name == "" {
		s.errorf("name can't be blank")
	}
	if !hasVariable(e.Name) && !environmentName.MatchString(e.Name) {
		s.errorf("name can contain only letters, digits, '-', '_', '/', '$', '{', '}', '.', and spaces, but it cannot start or end with '/'")
	}
}

var environmentName = regexp.MustCompile(`^$|^[a-zA-Z0-9_\-${}. ]([a-zA-Z0-9_\-/${}. ]*[a-zA-Z0-9_\-${}. ])?$`)

func hasVariable(s string) bool { return strings.ContainsAny(s, "$%") }

var (
	tierDevelopment = regexp.MustCompile(`(?i)dev|review|trunk`)
	tierTesting     = regexp.MustCompile(`(?i)test|tst|int|ac(?:ce|)pt|qa|qc|control|quality`)
	tierStaging     = regexp.MustCompile(`(?i)st(?:a|)g|mod(?:e|)l|pre|demo|non`)
	tierProduction  = regexp.MustCompile(`(?i)pr(?:o|)d|live`)
)

// guessTier returns the tier of an environment that gives none: by its name.
func guessTier(name string) string {
	switch {
	case tierDevelopment.MatchString(name):
		return "development"
	case tierTesting.MatchString(name):
		return "testing"
	case tierStaging.MatchString(name):
		return "staging"
	case tierProduction.MatchString(name):
		return "production"
	}
	return "other"
}

func (d *definition) readResourceGroup() {
	if s, ok := d.keywords.sub("resource_group"); ok {
		if !s.v.is(text) || s.v.text == "" {
			s.errorf("should be a string that is not empty")
			return
		}
		d.base.ResourceGroup = s.v.text
	}
}

func (d *definition) readRelease() {
	s, ok := d.keywords.sub("release")
	if !ok || !s.isHash("tag_name", "tag_message", "name", "description", "ref", "milestones", "released_at", "assets") {
		return
	}
	for _, key := range []string{"tag_name", "description"} {
		if s.text(key) == "" && !s.v.given(key) {
			s.errorf("%s can't be blank", key)
		}
	}
	d.base.Release = s.v.json()
}

func secretKeys() []string {
	return []string{"vault", "azure_key_vault", "gcp_secret_manager", "aws_secrets_manager", "aws_ssm_parameter_store", "gitlab_secrets_manager", "akeyless", "file", "token"}
}

// readTokens reads id_tokens: and secrets:.
func (d *definition) readTokens() {
	if s, ok := d.keyword("id_tokens"); ok {
		if !s.v.is(hash) {
			s.errorf("config should be a hash")
			return
		}
		d.base.IDTokens = map[string][]string{}
		for _, p := range s.v.pairs {
			token, ok := s.sub(p.key)
			if !ok || !token.isHash("aud") {
				continue
			}
			if !token.v.given("aud") {
				token.errorf("config missing required keys: aud")
			}
			d.base.IDTokens[p.key] = token.texts("aud", true)
		}
	}
	s, ok := d.keywords.sub("secrets")
	if !ok {
		return
	}
	if !s.v.is(hash) {
		s.errorf("config should be a hash")
		return
	}
	d.base.Secrets = map[string]json.RawMessage{}
	for _, p := range s.v.pairs {
		if secret, ok := s.sub(p.key); ok && secret.isHash(secretKeys()...) {
			d.base.Secrets[p.key] = secret.v.json()
		}
	}
}

func (d *definition) readPages() {
	s, ok := d.keywords.sub("pages")
	if ok && !s.v.is(boolean) && s.isHash("path_prefix", "expire_in", "publish") {
		s.text("path_prefix")
		s.text("publish")
		if s.v.get("expire_in").is(text) && s.v.get("expire_in").text != "never" {
			s.duration("expire_in", 0)
		}
	}
	d.keywords.text("publish")
}

// readJobInputs checks the inputs of a job and passes them on as they are.
func readJobInputs(f field) json.RawMessage {
	if !f.v.is(hash) {
		f.errorf("config should be a hash")
		return nil
	}
	for _, p := range f.v.pairs {
		s, ok := f.sub(p.key)
		if !ok {
			f.report.errorf(p.at, f.job, "%s:%s config must have a default", f.path, p.key)
			continue
		}
		if !s.isHash(inputKeys()...) {
			continue
		}
		if !s.v.has("default") {
			s.errorf("config must have a default")
			continue
		}
		c := inputCheck{report: f.report, name: p.key, def: s.v, at: p.at}
		c.check(s.v.get("default"), s.v.get("options"), "default")
	}
	return f.v.json()
}

func (d *definition) readTrigger() {
	t := &Trigger{}
	d.base.Trigger = t
	s, ok := d.keywords.sub("trigger")
	switch {
	case !ok:
		d.keywords.report.errorf(d.keywords.v.keyAt("trigger"), d.name, "%s trigger can't be blank", d.keywords.path)
	case s.v.is(text):
		t.Project = s.v.text
	case !s.v.is(hash):
		s.errorf("config should be a hash or a string")
	default:
		s.known([]string{"project", "branch", "strategy", "forward", "include", "inputs"})
		t.Project, t.Strategy = s.text("project"), s.choice("strategy", "depend", "mirror")
		s.text("branch")
		if forward, ok := s.sub("forward"); ok && forward.isHash("yaml_variables", "pipeline_variables") {
			forward.flag("yaml_variables")
			forward.flag("pipeline_variables")
		}
		switch {
		case s.v.given("project") && s.v.given("include"):
			s.errorf("config contains unknown keys: include (a trigger has either project or include)")
		case s.v.given("include"):
			t.Include = s.v.get("include").json()
		case !s.v.given("project"):
			s.errorf("config needs project or include")
		}
	}
}
