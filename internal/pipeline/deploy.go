package pipeline

import (
	"cmp"
	"encoding/json"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
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
		e.AutoStopIn, _ = parseDuration(s.text("auto_stop_in")) // one with variables is for the server to look at
	}
	if e.Name == "" {
		s.errorf("name can't be blank")
	}
	if !hasVariable(e.Name) && !environmentName().MatchString(e.Name) {
		s.errorf("name can contain only letters, digits, '-', '_', '/', '$', '{', '}', '.', and spaces, but it cannot start or end with '/'")
	}
}

var environmentName = lazy.Regexp(`^$|^[a-zA-Z0-9_\-${}. ]([a-zA-Z0-9_\-/${}. ]*[a-zA-Z0-9_\-${}. ])?$`)

func hasVariable(s string) bool { return strings.ContainsAny(s, "$%") }

var (
	tierDevelopment = lazy.Regexp(`(?i)dev|review|trunk`)
	tierTesting     = lazy.Regexp(`(?i)test|tst|int|ac(?:ce|)pt|qa|qc|control|quality`)
	tierStaging     = lazy.Regexp(`(?i)st(?:a|)g|mod(?:e|)l|pre|demo|non`)
	tierProduction  = lazy.Regexp(`(?i)pr(?:o|)d|live`)
)

// guessTier returns the tier of an environment that gives none: by its name.
func guessTier(name string) string {
	switch {
	case tierDevelopment().MatchString(name):
		return "development"
	case tierTesting().MatchString(name):
		return "testing"
	case tierStaging().MatchString(name):
		return "staging"
	case tierProduction().MatchString(name):
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
		if strings.TrimSpace(s.text(key)) == "" && (!s.v.given(key) || s.v.get(key).is(text)) {
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

// readPages returns the directory that a pages job publishes; "" for any other job.
func (d *definition) readPages() string {
	path := d.keywords.text("publish")
	s, ok := d.keywords.sub("pages")
	pages := d.name == "pages" && !ok || ok && !s.v.isBlank()
	if ok && !s.v.is(boolean) && s.isHash("path_prefix", "expire_in", "publish") {
		s.text("path_prefix")
		path = cmp.Or(s.text("publish"), path)
		if at := s.v.get("expire_in"); !at.is(text) || !strings.EqualFold(at.text, "never") && !strings.Contains(at.text, "$") {
			s.duration("expire_in", 0)
		}
	}
	if !pages {
		if d.keywords.v.given("publish") {
			d.keywords.errorf("publish can only be used within a `pages` job")
		}
		return ""
	}
	return cmp.Or(path, "public")
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
