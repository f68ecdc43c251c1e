package spec

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// executorOpts is what executor_opts.docker says (runner contract, section 2.6).
type executorOpts struct{ Platform, User string }

// parseExecutorOpts reads the executor_opts of an image. Unknown keys are an error: what they ask for would be left out
// unseen. Those for another executor are accepted.
func parseExecutorOpts(raw json.RawMessage) (executorOpts, error) {
	var out executorOpts
	sections, err := members("executor_opts", raw, "docker", "kubernetes")
	if err != nil {
		return out, err
	}
	docker, err := members("executor_opts.docker", sections["docker"], "platform", "user")
	if err != nil {
		return out, err
	}
	if _, err := members("executor_opts.kubernetes", sections["kubernetes"], "user"); err != nil {
		return out, err
	}
	if p := docker["platform"]; !empty(p) {
		if err := json.Unmarshal(p, &out.Platform); err != nil {
			return out, fmt.Errorf("executor_opts.docker.platform is not a string: %s", cut(string(p), longestName))
		}
	}
	out.User, err = userOption(docker["user"])
	return out, err
}

// userOption reads a user, which is a string or a whole number.
func userOption(raw json.RawMessage) (string, error) {
	if empty(raw) {
		return "", nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var number int64
	if json.Unmarshal(raw, &number) != nil {
		return "", fmt.Errorf("executor_opts.docker.user is neither a string nor a whole number: %s", cut(string(raw), longestName))
	}
	return fmt.Sprint(number), nil
}

// members returns the members of a JSON object that may have those keys only.
func members(name string, raw json.RawMessage, known ...string) (map[string]json.RawMessage, error) {
	if empty(raw) {
		return nil, nil
	}
	var out map[string]json.RawMessage
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("%s is not an object: %s", name, cut(string(raw), longestName))
	}
	for _, key := range slices.Sorted(maps.Keys(out)) {
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("%s has the unknown key %q; known are %s", name, cut(key, longestName), strings.Join(known, ", "))
		}
	}
	return out, nil
}

func empty(raw json.RawMessage) bool {
	text := strings.TrimSpace(string(raw))
	return text == "" || text == "null"
}

// parsePlatform reads "os/architecture" or "os/architecture/variant"; "" is the engine's own.
func parsePlatform(text string) (*ocispec.Platform, error) {
	if text == "" {
		return nil, nil
	}
	parts := strings.Split(strings.ToLower(text), "/")
	if len(parts) < 2 || len(parts) > 3 || slices.ContainsFunc(parts, func(p string) bool { return !plainWord(p) }) {
		return nil, fmt.Errorf("%q is not a platform: write OS/ARCHITECTURE, as \"linux/arm64\"", cut(text, longestName))
	}
	p := &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386":
		p.Architecture = "386"
	}
	return p, nil
}

// plainWord says whether text is made of letters, digits and ._- only.
func plainWord(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
}
