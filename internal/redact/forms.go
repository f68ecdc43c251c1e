package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Encoded forms are masked of phrases between these lengths in bytes: shorter ones would mask ordinary text; longer ones
// are no credentials.
const (
	minEncoded = 8
	maxEncoded = 16 << 10
)

// Of phrases that are longer than usual, as many are masked in encoded forms as the budget in bytes allows: it bounds the
// memory.
const (
	usual  = 512
	budget = 2 << 20
)

// forms returns the phrases and their encoded forms, each once, none empty.
func forms(phrases []string) [][]byte {
	seen := map[string]bool{}
	total := 0
	var all [][]byte
	add := func(s string) {
		if s != "" && !seen[s] {
			seen[s] = true
			total += len(s)
			all = append(all, []byte(s))
		}
	}
	for _, p := range phrases {
		add(p)
		unix := strings.ReplaceAll(p, "\r\n", "\n")
		add(unix)
		add(strings.ReplaceAll(unix, "\n", "\r\n"))
		if len(p) < minEncoded || len(p) > maxEncoded || len(p) > usual && total > budget {
			continue
		}
		for _, e := range encoded(p) {
			add(e)
		}
	}
	slices.SortFunc(all, bytes.Compare) // the automaton does not depend on the order in which phrases are given
	return all
}

// encoded returns what a phrase becomes when common programs put it into an address, a JSON text or base64.
func encoded(p string) []string {
	var all []string
	component := strings.ReplaceAll(url.QueryEscape(p), "+", "%20") // RFC 3986: all but letters, digits and -._~
	for _, e := range []string{
		component, url.QueryEscape(p), url.PathEscape(p),
		strings.NewReplacer("%2F", "/").Replace(component),                                                 // Python's quote
		strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(component), // JavaScript's encodeURIComponent
	} {
		all = append(all, e, lowerHex(e))
	}
	for _, html := range []bool{false, true} {
		var quoted bytes.Buffer
		e := json.NewEncoder(&quoted)
		e.SetEscapeHTML(html)
		if err := e.Encode(p); err == nil {
			all = append(all, quoted.String()[1:quoted.Len()-2]) // without quotes and line feed
		}
	}
	all = append(all, quotedByShells(p)...)
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 { // the phrase may stand anywhere in what was encoded
			all = append(all, aligned(enc, p, shift))
		}
	}
	return all
}

// quotedByShells returns how shells show a value when they trace commands or list variables: in single quotes, in two
// ways, in double quotes, and as $'...'.
func quotedByShells(p string) []string {
	var ansi strings.Builder
	for _, r := range p {
		switch {
		case r == '\n':
			ansi.WriteString(`\n`)
		case r == '\t':
			ansi.WriteString(`\t`)
		case r == '\r':
			ansi.WriteString(`\r`)
		case r == '\'' || r == '\\':
			ansi.WriteString(`\` + string(r))
		case r < ' ':
			fmt.Fprintf(&ansi, `\%03o`, r)
		default:
			ansi.WriteRune(r)
		}
	}
	return []string{
		strings.ReplaceAll(p, "'", `'\''`), strings.ReplaceAll(p, "'", `'"'"'`),
		strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(p), ansi.String(),
	}
}

// lowerHex returns a percent-encoded text with small letters in its codes.
func lowerHex(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			b[i+1], b[i+2] = lower(b[i+1]), lower(b[i+2])
		}
	}
	return string(b)
}

// aligned returns the characters that depend on p alone in the base64 encoding of a text in which shift (modulo 3) bytes
// stand before p.
func aligned(enc *base64.Encoding, p string, shift int) string {
	whole := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + p))
	start := (shift*8 + 5) / 6
	end := len(whole)
	if (shift+len(p))%3 != 0 {
		end-- // the last character also depends on what follows
	}
	return whole[start:end]
}
