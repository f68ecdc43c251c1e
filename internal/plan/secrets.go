package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// SecretsPlan says which secrets a job needs before anything else of it can be planned.
type SecretsPlan struct {
	Secrets     []tranter.ExternalSecret // by name of the variable
	Warnings    []string
	Attempts    int
	FlatBackoff bool
	FailMissing bool // a secret that is not there fails the job; else its variable is empty
	Format      tranter.LogFormat
}

// Secrets returns what to fetch for the job (runner contract, section 2.10). An error that is a *tranter.ConfigError is
// the user's, an *UnsupportedError means a provider that this runner does not know how to ask.
func Secrets(job *tranter.Job, s Settings, slots variables.Slots) (*SecretsPlan, error) {
	b := &builder{job: job, settings: s, reader: reader{timeout: job.Timeout()}}
	if err := b.resolve(slots); err != nil {
		return nil, public(b, err)
	}
	p := &SecretsPlan{FailMissing: b.flags["FF_SECRET_RESOLVING_FAILS_IF_MISSING"], FlatBackoff: !b.flags["FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY"]}
	settled := len(b.warnings) // those before are given again by Build
	p.Attempts = b.attempts("SECRETS_RETRIEVAL_ATTEMPTS")
	p.Format = b.format()
	p.Format.LimitBytes = 0
	expand := func(text string) string { return b.vars.ExpandString(text, b.dirs.Temp) }
	for _, name := range slices.Sorted(maps.Keys(job.Secrets)) {
		secret, known, err := externalSecret(name, job.Secrets[name], expand)
		switch {
		case err != nil:
			return nil, public(b, fmt.Errorf("secret %s: %w", name, err))
		case !known:
			p.Warnings = append(p.Warnings, fmt.Sprintf("Not resolved: %s has no provider that this runner knows", name))
		default:
			p.Secrets = append(p.Secrets, secret)
		}
	}
	p.Warnings = append(b.warnings[settled:], p.Warnings...)
	return p, nil
}

// The shapes of secrets in the payload.
type (
	secretSpec struct {
		File  *bool        `json:"file"`
		Vault *vaultSecret `json:"vault"`
		Own   *baoSecret   `json:"gitlab_secrets_manager"`
		GCP   any          `json:"gcp_secret_manager"`
		Azure any          `json:"azure_key_vault"`
		AWS   any          `json:"aws_secrets_manager"`
	}
	secretPlace struct {
		Engine struct {
			Name string `json:"name"`
			Path string `json:"path"`
		} `json:"engine"`
		Path  string `json:"path"`
		Field string `json:"field"`
	}
	vaultSecret struct {
		secretPlace
		Server struct {
			URL       string `json:"url"`
			Namespace string `json:"namespace"`
			Auth      struct {
				Name string         `json:"name"`
				Path string         `json:"path"`
				Data map[string]any `json:"data"`
			} `json:"auth"`
		} `json:"server"`
	}
	baoSecret struct {
		secretPlace
		Server struct {
			URL        string `json:"url"`
			InlineAuth struct {
				Path      string `json:"path"`
				JWT       string `json:"jwt"`
				Role      string `json:"role"`
				AuthMount string `json:"auth_mount"`
			} `json:"inline_auth"`
		} `json:"server"`
	}
)

// externalSecret reads one secret of the payload. It is not known when it names no provider of the contract.
func externalSecret(name string, raw any, expand func(string) string) (s tranter.ExternalSecret, known bool, err error) {
	text, err := json.Marshal(raw)
	if err != nil {
		return s, false, &tranter.ConfigError{Err: err}
	}
	var spec secretSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return s, false, &tranter.ConfigError{Err: fmt.Errorf("malformed: %w", err)}
	}
	s = tranter.ExternalSecret{Variable: name, File: spec.File == nil || *spec.File}
	switch {
	case spec.Vault != nil:
		err = fromVault(&s, spec.Vault, expand)
	case spec.Own != nil:
		err = fromGitLab(&s, spec.Own)
	case spec.GCP != nil, spec.Azure != nil, spec.AWS != nil:
		return s, false, &UnsupportedError{errors.New("it lies with a cloud's secrets manager, which this runner can't ask; only vault and gitlab_secrets_manager work")}
	default:
		return s, false, nil
	}
	return s, true, err
}

func fromVault(s *tranter.ExternalSecret, v *vaultSecret, x func(string) string) error {
	auth := x(v.Server.Auth.Name)
	if auth != "jwt" {
		return &tranter.ConfigError{Err: fmt.Errorf("the login method %q does not work: only jwt does", auth)}
	}
	s.URL, s.Namespace = x(v.Server.URL), x(v.Server.Namespace)
	s.AuthPath = "auth/" + strings.Trim(x(v.Server.Auth.Path), "/") + "/login"
	s.Role, s.JWT = x(textOf(v.Server.Auth.Data["role"])), tranter.Secret(x(textOf(v.Server.Auth.Data["jwt"])))
	s.Engine, s.Mount, s.Path, s.Field = x(v.Engine.Name), x(v.Engine.Path), x(v.Path), x(v.Field)
	return checked(s)
}

// fromGitLab reads a secret of GitLab's own manager, whose strings are not expanded.
func fromGitLab(s *tranter.ExternalSecret, v *baoSecret) error {
	auth := v.Server.InlineAuth
	s.URL, s.AuthPath, s.Role, s.JWT, s.Inline = v.Server.URL, strings.Trim(auth.Path, "/"), auth.Role, tranter.Secret(auth.JWT), true
	if s.AuthPath == "" && auth.AuthMount != "" {
		s.AuthPath = "auth/" + strings.Trim(auth.AuthMount, "/") + "/login"
	}
	s.Engine, s.Mount, s.Path, s.Field = v.Engine.Name, v.Engine.Path, v.Path, v.Field
	return checked(s)
}

func textOf(v any) string {
	s, _ := v.(string)
	return s
}

// checked finds what is missing before a server is asked.
func checked(s *tranter.ExternalSecret) error {
	u, err := url.Parse(s.URL)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return &tranter.ConfigError{Err: fmt.Errorf("the server's address %q is not usable", s.URL)}
	case s.JWT == "":
		return &tranter.ConfigError{Err: errors.New("there is no token to log in with: does the job have id_tokens, and does the secret name one?")}
	case !slices.Contains([]string{"kv-v1", "kv-v2", "generic"}, s.Engine):
		return &tranter.ConfigError{Err: fmt.Errorf("the engine %q does not work: kv-v1, kv-v2 and generic do", s.Engine)}
	case s.Path == "" || s.Field == "":
		return &tranter.ConfigError{Err: errors.New("its path or field is missing")}
	}
	return nil
}
