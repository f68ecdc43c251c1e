package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// Encoded forms are masked of phrases between these lengths in bytes: shorter ones would mask ordinary text, longer ones
// (whole key files) would make the automaton large.
const (
	minEncoded = 8
	maxEncoded = 1024
)

// forms returns the phrases and their encoded forms, each once, none empty.
func forms(phrases []string) [][]byte {
	seen := map[string]bool{}
	var all [][]byte
	add := func(s string) {
		if s != "" && !seen[s] {
			seen[s] = true
			all = append(all, []byte(s))
		}
	}
	for _, p := range phrases {
		add(p)
		if strings.Contains(p, "\n") && !strings.Contains(p, "\r") {
			add(strings.ReplaceAll(p, "\n", "\r\n"))
		}
		if len(p) < minEncoded || len(p) > maxEncoded {
			continue
		}
		for _, e := range encoded(p) {
			add(e)
		}
	}
	slices.SortFunc(all, bytes.Compare) // the automaton does not depend on the order in which phrases are given
	return all
}

func encoded(p string) []string {
	all := []string{url.QueryEscape(p), url.PathEscape(p)}
	if quoted, err := json.Marshal(p); err == nil {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 { // the phrase may stand anywhere in what was encoded
			all = append(all, aligned(enc, p, shift))
		}
	}
	return all
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
