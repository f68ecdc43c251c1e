package redact

import (
	"maps"
	"slices"
	"strings"
)

// personal begins GitLab's personal access tokens, which are always masked.
const personal = "glpat-"

// defaultPrefixes begin GitLab's other tokens (runner contract, section 4.2). All of them count, and all that the
// coordinator adds.
func defaultPrefixes() []string {
	return []string{
		"gloas-", "gldt-", "glrt-", "glcbt-", "glrtr-", "glptt-", "glft-", "glimt-", "glagent-", "glsoat-", "glffct-",
		"_gitlab_session=", "gltok-",
	}
}

// queryParameters carry credentials in addresses; their case does not matter.
func queryParameters() []string {
	return []string{
		"private_token", "authenticity_token", "rss_token", "x-amz-signature", "x-amz-credential", "x-amz-security-token",
	}
}

// tokenRules find what stands before a credential. Patterns are matched in lower case.
type tokenRules struct {
	machine *machine
	exact   map[string]bool // prefixes whose case matters
	longest int
}

func newTokenRules(rules Rules) *tokenRules {
	r := &tokenRules{exact: map[string]bool{}}
	prefixes := append([]string{personal}, rules.TokenPrefixes...)
	if !rules.FewTokens {
		prefixes = append(prefixes, defaultPrefixes()...)
	}
	patterns := map[string]bool{}
	for _, p := range prefixes {
		if p != "" {
			r.exact[p], patterns[strings.ToLower(p)] = true, true
		}
	}
	for _, q := range queryParameters() {
		patterns["?"+q+"="], patterns["&"+q+"="] = true, true
	}
	var sorted [][]byte
	for _, p := range slices.Sorted(maps.Keys(patterns)) {
		sorted = append(sorted, []byte(p))
		r.longest = max(r.longest, len(p))
	}
	r.machine = newMachine(sorted, true)
	return r
}

// tokenWriter masks what follows a prefix. The prefixes themselves stay visible, so nothing is ever held back.
type tokenWriter struct {
	rules  *tokenRules
	state  int32
	recent []byte // the last bytes, to compare the case of a prefix
	mode   tokenMode
	masked bool // the mask for the current credential has been written
}

type tokenMode int

const (
	outside tokenMode = iota
	inToken
	inParameter
)

// append masks p and appends the result to out.
func (t *tokenWriter) append(out, p []byte) []byte {
	for {
		n := t.visible(p)
		out, p = append(out, p[:n]...), p[n:]
		if len(p) == 0 {
			return out
		}
		n = 0
		for n < len(p) && t.covers(p[n]) {
			n++
		}
		if n > 0 && !t.masked {
			out = append(out, Mask...)
			t.masked = true
		}
		if p = p[n:]; len(p) == 0 {
			return out
		}
		t.mode, t.state = outside, 0 // the byte that ends a credential may begin a prefix
	}
}

// visible follows p as far as it is to be seen, and returns that far: to the end of a prefix or of p.
func (t *tokenWriter) visible(p []byte) int {
	m := t.rules.machine
	for i := 0; i < len(p); i++ {
		if t.mode != outside {
			return i
		}
		if t.state == 0 {
			if i += m.skip(p[i:]); i == len(p) {
				break
			}
			t.recent = t.recent[:0]
		}
		t.step(p[i])
	}
	return len(p)
}

// mask appends what stands for a phrase to out. Within a credential it is a part of it.
func (t *tokenWriter) mask(out []byte) []byte {
	if t.mode == outside {
		t.state = 0
		return append(out, Mask...)
	}
	if t.masked {
		return out
	}
	t.masked = true
	return append(out, Mask...)
}

// step follows a visible byte and notices the end of a prefix.
func (t *tokenWriter) step(b byte) {
	m := t.rules.machine
	if len(t.recent) >= 2*t.rules.longest {
		t.recent = t.recent[:copy(t.recent, t.recent[len(t.recent)-t.rules.longest:])]
	}
	t.recent = append(t.recent, b)
	t.state = m.next(t.state, lower(b))
	length := int(m.states[t.state].longest)
	if length == 0 || length > len(t.recent) {
		return
	}
	prefix := string(t.recent[len(t.recent)-length:])
	switch {
	case prefix[0] == '?' || prefix[0] == '&':
		t.mode, t.masked = inParameter, false
	case t.rules.exact[prefix]:
		t.mode, t.masked = inToken, false
	}
}

// covers says whether b belongs to the credential that is being masked.
func (t *tokenWriter) covers(b byte) bool {
	if t.mode == inParameter {
		return b > ' ' && b != 0x7f && b != '?' && b != '&'
	}
	return b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || strings.IndexByte("-._=", b) >= 0
}

func lower(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}
