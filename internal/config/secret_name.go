package config

import (
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

var secretWord = lazy.Regexp(`(?i)token|passw|[-_.]pass$|secret|credential|private|access.?key|api.?key|account.?key|auth.?config|dsn`)

var userData = lazy.Regexp(`(?i)user.?data|script.?data`)

// secretName tells whether something of this name is likely to be secret.
func secretName(name string) bool { return secretWord().MatchString(name) }

// hidden returns text with the value of NAME=VALUE replaced by stars, if the name is that of a secret. The value may be
// such a pair again, and user data of a machine, which often has secrets in it, is one unless it is the name of a file.
func hidden(text string) string {
	name, value, _ := strings.Cut(text, "=")
	if inner, of, pair := strings.Cut(value, "="); pair && secretName(inner) && !secretName(name) {
		return name + "=" + inner + "=" + tranter.Secret(of).String()
	}
	if secretName(name) && value != "" || userData().MatchString(name) && (strings.HasPrefix(value, "#") || strings.ContainsAny(value, "\n{")) {
		return name + "=" + tranter.Secret(value).String()
	}
	return text
}
