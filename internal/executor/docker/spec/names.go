package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// longestName is the most characters of what may become a host name.
const longestName = 63

var notInHostname = lazy.Regexp(`[^-a-z0-9]`)

// UniqueName returns the name that tells jobs apart that run on one engine at the same time: slot is the job's number
// among those of its project (runner contract, section 9.5).
func UniqueName(shortToken string, project int64, slot int) string {
	name := strings.ToLower(fmt.Sprintf("runner-%s-project-%d-concurrent-%d", shortToken, project, slot))
	return cut(notInHostname().ReplaceAllString(name, ""), longestName)
}

// VolumeBase returns what the names of a slot's cache volumes begin with. The stock runner finds its volumes by the same
// name (runner contract, section 9.9).
func VolumeBase(r Runner, project int64, slot int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s-%s-%d-%d", r.Token.Reveal(), r.SystemID, project, slot))
	return "runner-" + hex.EncodeToString(sum[:16])
}

// serviceName returns the name of a service's container. Its image's name may be of any length.
func serviceName(prefix, slug string, index int) string {
	return fmt.Sprintf("%s-%s-%d", prefix, cut(slug, longestName), index)
}

func cut(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}
