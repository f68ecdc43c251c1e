package config

import (
	"cmp"
	"math/big"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // for systems without time zones of their own, such as small images

	"github.com/tranter-ci/tranter/internal/lazy"
)

// checks returns the checks that a tag can name. Each returns what is wrong with a text, or nothing, and what to do.
func checks() map[string]func(text string) (problem, hint string) {
	return map[string]func(string) (string, string){
		"period":   checkPeriod,
		"regexp":   checkRegexp,
		"size":     checkSize,
		"rational": checkRational,
		"ip":       checkIP,
		"ulimit":   checkUlimit,
		"mirror":   checkMirror,
		"volume":   checkVolume,
		"device":   checkDevice,
		"ssh":      checkSSH,
		"url":      checkURL,
		"pair":     checkPair,
		"subnet":   checkSubnet,
		"zone":     checkZone,
		"mount":    checkMount,
		"pattern":  checkPattern,

		"memory":         checkMemory,
		"range":          checkRange,
		"memory_range":   checkMemoryRange,
		"duration_range": checkDurationRange,
	}
}

func checkRegexp(text string) (problem, hint string) {
	if _, err := regexp.Compile(text); err != nil {
		return "is not a regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "), "Use the syntax of Go (RE2); write a backslash in '...' quotes."
	}
	return "", ""
}

var size = lazy.Regexp(`(?i)^(-1|\d+(\.\d+)? ?([kmgtp]i?)?b?)$`)

func checkSize(text string) (problem, hint string) {
	if !size().MatchString(text) {
		return "is not a size", "Write a number with b, k, m or g: \"512m\"."
	}
	return "", ""
}

func checkRational(text string) (problem, hint string) {
	// A long exponent would make a number that takes minutes to work out.
	x, ok := new(big.Rat).SetString(text)
	if len(text) > 20 || strings.ContainsAny(text, "eEpP") || !ok || x.Sign() < 0 {
		return "is not a number of processors", "Write \"2\" or \"1.5\"."
	}
	return "", ""
}

func checkIP(text string) (problem, hint string) {
	if _, err := netip.ParseAddr(text); err != nil {
		return "is not an IP address", "Names are not possible here."
	}
	return "", ""
}

func checkUlimit(text string) (problem, hint string) {
	soft, hard, two := strings.Cut(text, ":")
	_, err := strconv.ParseInt(soft, 10, 64)
	if two && err == nil {
		_, err = strconv.ParseInt(hard, 10, 64)
	}
	if err != nil {
		return "is not a limit", "Write SOFT or SOFT:HARD, as \"1024:4096\"."
	}
	return "", ""
}

// checkMirror checks what registry_mirror says.
func checkMirror(text string) (problem, hint string) {
	if text == "start" || isServer(text) {
		return "", ""
	}
	return "is neither start nor the address of a server", "Write it with http:// or https://, or \"start\"."
}

// checkVolume checks what can be told of a volume before the variables of a job are put into it.
func checkVolume(text string) (problem, hint string) {
	if parts := strings.Split(text, ":"); parts[0] == "" || len(parts) > 1 && parts[1] == "" {
		return "is not a volume", "Write CONTAINER_PATH or HOST_PATH:CONTAINER_PATH, with :ro and the like after it."
	}
	return "", ""
}

func checkDevice(text string) (problem, hint string) {
	isAccess := func(s string) bool { return s != "" && len(s) <= 3 && strings.Trim(s, "rwm") == "" }
	parts := strings.Split(text, ":")
	inside, access := parts[0], "rwm"
	switch {
	case len(parts) == 2 && isAccess(parts[1]):
	case len(parts) == 2:
		inside = parts[1]
	case len(parts) == 3:
		inside, access = parts[1], parts[2]
	}
	if len(parts) > 3 || parts[0] == "" || !path.IsAbs(inside) || !isAccess(access) {
		return "is not a device", "Write HOST, HOST:CONTAINER or HOST:CONTAINER:PERMISSIONS, as \"/dev/kvm:/dev/kvm:rwm\"."
	}
	return "", ""
}

// checkSSH checks the address of a host that is logged in to.
func checkSSH(text string) (problem, hint string) {
	const form = "Write ssh://USER@HOST, with :PORT if that is not 22."
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "ssh" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "is not the address of an SSH server", form
	}
	if _, ok := u.User.Password(); ok {
		return "has a password", "Log in with a key: name its file in identity_file."
	}
	if port, err := strconv.ParseUint(cmp.Or(u.Port(), "22"), 10, 16); err != nil || port == 0 {
		return "has no valid port", form
	}
	return "", ""
}

func checkURL(text string) (problem, hint string) {
	if !isServer(text) {
		return "is not an address of the web", "Write it with http:// or https://."
	}
	return "", ""
}

func checkPair(text string) (problem, hint string) {
	if name, _, ok := strings.Cut(text, "="); !ok || name == "" {
		return "is not of the form KEY=VALUE", "Write \"KEY=VALUE\"."
	}
	return "", ""
}

func checkSubnet(text string) (problem, hint string) {
	if p, err := netip.ParsePrefix(text); err != nil || p.Masked() != p {
		return "is not a range of addresses", "Write it as \"172.31.0.0/24\"."
	}
	return "", ""
}

// checkZone checks the name of a time zone; which ones there are is for the system to say.
func checkZone(text string) (problem, hint string) {
	if _, err := time.LoadLocation(text); err != nil {
		return "is not a time zone that is known here", "Write a name such as \"Europe/Berlin\", \"UTC\" or \"Local\"."
	}
	return "", ""
}
