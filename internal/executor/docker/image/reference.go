package image

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"github.com/tranter-ci/tranter/internal/lazy"
)

var (
	idPattern       = lazy.Regexp(`^(?:sha256:)?[0-9a-f]{64}$`)
	variablePattern = lazy.Regexp(`\$\{?[A-Za-z_][A-Za-z0-9_]*\}?|%[A-Za-z_][A-Za-z0-9_]*%`)
	tagPattern      = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestPattern   = lazy.Regexp(`^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$`)
)

// Reference returns the name of an image as it is used and logged: with ":latest" where it has neither a tag nor a
// digest (runner contract, section 9.7). A registry's port counts as a tag there; such an image is pulled as latest, but
// keeps its name. The error is a *tranter.ConfigError that says what is wrong with the name.
func Reference(name string) (string, error) {
	n, err := parse(name)
	if err != nil {
		return "", err
	}
	return n.asked, nil
}

// name is the name of an image.
type name struct {
	asked string
	named reference.Named // with a tag or a digest; nil: the name is an id
}

func parse(text string) (name, error) {
	asked := strings.TrimSpace(text)
	if asked == "" {
		return name{}, configError("no image is named: set image in the job or in [runners.docker]")
	}
	if matches(idPattern, asked) {
		return name{asked: "sha256:" + strings.TrimPrefix(asked, "sha256:")}, nil
	}
	if !strings.ContainsAny(asked, ":@") {
		asked += ":latest"
	}
	named, err := reference.ParseNormalizedNamed(asked)
	if err != nil {
		return name{}, configError("%q is not the name of an image: %s", shorten(text, 300), fault(strings.TrimSpace(text), err))
	}
	return name{asked: asked, named: reference.TagNameOnly(named)}, nil
}

func (n name) isID() bool { return n.named == nil }

// String is the name as the engine understands it.
func (n name) String() string { return n.asked }

// full is the same for all names of the same image.
func (n name) full() string {
	if n.isID() {
		return n.asked
	}
	return n.named.String()
}

// repository is the name without tag and digest, with the registry before it.
func (n name) repository() string {
	if n.isID() {
		return ""
	}
	return n.named.Name()
}

func (n name) registry() string {
	if n.isID() {
		return ""
	}
	return reference.Domain(n.named)
}

func (n name) digest() string {
	if d, ok := n.named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return ""
}

func (n name) tag() string {
	if t, ok := n.named.(reference.Tagged); ok {
		return t.Tag()
	}
	return ""
}

// fault says what is wrong with a name that the parser refuses with err.
func fault(text string, err error) string {
	rest, digest, hasDigest := strings.Cut(text, "@")
	tag, hasTag := "", false
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		rest, tag, hasTag = rest[:i], rest[i+1:], true
	}
	path := rest
	if host, after, ok := strings.Cut(rest, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		path = after
	}
	for _, f := range []struct {
		is   bool
		says string
	}{
		{matches(variablePattern, text), fmt.Sprintf("the variable %s in it has no value here: define it, or correct its name", variablePattern().FindString(text))},
		{strings.Contains(text, "://"), "a name has no scheme: leave out what stands before ://"},
		{strings.ContainsAny(text, " \t\r\n"), "there is a blank in it"},
		{hasDigest && !matches(digestPattern, digest), "what follows @ is no digest such as sha256: and 64 hexadecimal digits"},
		{hasTag && tag == "", "its tag is empty: is a variable after the colon not defined?"},
		{hasTag && !matches(tagPattern, tag), "its tag is malformed: up to 128 letters, digits, underscores, dots and dashes, the first no dot or dash"},
		{emptyPart(rest), "a part of its path is empty: is a variable before or after a slash not defined?"},
		{path != strings.ToLower(path), fmt.Sprintf("its path has capital letters: write %q (CI_PROJECT_PATH_SLUG and CI_REGISTRY_IMAGE have none)", shorten(strings.ToLower(path), 200))},
		{len(path) > 255, "its path is longer than 255 characters"},
	} {
		if f.is {
			return f.says
		}
	}
	return fmt.Sprintf("%v: lower-case letters and digits, separated by one dot, dash or underscore, are what a part of it is made of", err)
}

func emptyPart(path string) bool {
	return strings.HasSuffix(path, "/") || strings.HasPrefix(path, "/") || strings.Contains(path, "//")
}

func matches(pattern func() *regexp.Regexp, text string) bool { return pattern().MatchString(text) }

// shorten makes one printable line of at most limit bytes of text from elsewhere.
func shorten(text string, limit int) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
	clean = strings.ToValidUTF8(strings.TrimSpace(clean), "?")
	if len(clean) <= limit {
		return clean
	}
	return strings.ToValidUTF8(clean[:limit], "") + "..."
}
