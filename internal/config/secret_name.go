package config

import (
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

var secretWord = lazy.Regexp(`(?i)token|passw|secret|credential|private|access.?key|api.?key|account.?key|dsn`)

// secretName tells whether something of this name is likely to be secret.
func secretName(name string) bool { return secretWord().MatchString(name) }

// hidden returns text with the value of NAME=VALUE replaced by stars, if the name is that of a secret.
func hidden(text string) string {
	name, value, ok := strings.Cut(text, "=")
	if !ok || !secretName(name) {
		return text
	}
	return name + "=" + tranter.Secret(value).String()
}
