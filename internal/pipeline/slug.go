package pipeline

import (
	"crypto/sha256"
	"math/big"
	"strings"
)

func dashed(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
}

// Slug is GitLab's form of a name for hosts and URLs: lower case, at most 63 letters, digits and dashes, no dash at
// either end (gitlab-server 5.5).
func Slug(s string) string {
	out := dashed(s)
	if len(out) > 63 {
		out = out[:63]
	}
	return strings.Trim(out, "-")
}

// EnvironmentSlug is GitLab's short form of the name of an environment: at most 24 characters, unique by a suffix of the
// name's SHA-256 unless the name is its own slug (gitlab-server 5.5).
func EnvironmentSlug(name string) string {
	out := dashed(name)
	if out == "" || out[0] < 'a' || out[0] > 'z' {
		out = "env-" + out
	}
	for strings.Contains(out, "--") {
		out = strings.ReplaceAll(out, "--", "-")
	}
	if len(out) <= 24 && out == name {
		return strings.TrimSuffix(out, "-")
	}
	sum := sha256.Sum256([]byte(name))
	suffix := new(big.Int).SetBytes(sum[:]).Text(36)
	suffix = suffix[max(0, len(suffix)-6):]
	if len(out) > 17 {
		out = out[:17]
	}
	return strings.TrimSuffix(out, "-") + "-" + suffix
}
