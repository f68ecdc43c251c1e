package pipeline

import (
	"encoding/json"
	"strconv"
	"strings"
)

// kind is the type of a value, as Ruby would have it.
type kind int

const (
	null kind = iota
	boolean
	integer
	float
	text
	list
	hash
	reference // !reference [job, key]: its path is in items
)

func (k kind) String() string {
	return [...]string{"null", "a boolean", "an integer", "a number", "a string", "an array", "a hash", "a !reference"}[k]
}

// value is a parsed YAML value with its place. Values are never changed once they are read: what merges, makes new ones.
type value struct {
	kind  kind
	text  string // of a scalar: Ruby's text form
	items []*value
	pairs []pair
	index map[string]int
	at    position
}

type pair struct {
	key string
	at  position
	val *value
}

func newHash(at position) *value { return &value{kind: hash, at: at, index: map[string]int{}} }

func newText(s string, at position) *value { return &value{kind: text, text: s, at: at} }

// set adds a pair or replaces its value; the place in the order stays. Only for a value under construction.
func (v *value) set(key string, at position, val *value) {
	if i, ok := v.index[key]; ok {
		v.pairs[i].val, v.pairs[i].at = val, at
		return
	}
	v.index[key] = len(v.pairs)
	v.pairs = append(v.pairs, pair{key: key, at: at, val: val})
}

// get returns the value of a key, or nil. A nil value and a value that is no hash have no keys.
func (v *value) get(key string) *value {
	if v == nil || v.kind != hash {
		return nil
	}
	if i, ok := v.index[key]; ok {
		return v.pairs[i].val
	}
	return nil
}

// has reports whether the key is there, maybe with null.
func (v *value) has(key string) bool { return v.get(key) != nil }

// given reports whether the key is there with more than null.
func (v *value) given(key string) bool { return !v.get(key).isNull() }

// keyAt returns the place of a key.
func (v *value) keyAt(key string) position {
	if v != nil && v.kind == hash {
		if i, ok := v.index[key]; ok {
			return v.pairs[i].at
		}
	}
	if v == nil {
		return position{}
	}
	return v.at
}

func (v *value) is(k kind) bool { return v != nil && v.kind == k }

func (v *value) isNull() bool { return v == nil || v.kind == null }

// isBlank is Ruby's blank?: nothing, false, and what is empty.
func (v *value) isBlank() bool {
	switch {
	case v.isNull(), v.is(boolean) && !v.isTrue():
		return true
	case v.is(text):
		return strings.TrimSpace(v.text) == ""
	}
	return (v.is(list) || v.is(hash)) && len(v.items)+len(v.pairs) == 0
}

func (v *value) isTrue() bool { return v.is(boolean) && v.text == "true" }

// scalar reports whether the value has a text form that a variable may hold.
func (v *value) scalar() bool {
	return v != nil && (v.kind == text || v.kind == integer || v.kind == float || v.kind == boolean)
}

// number returns the value of an integer.
func (v *value) number() (int, bool) {
	if !v.is(integer) {
		return 0, false
	}
	n, err := strconv.Atoi(v.text)
	return n, err == nil
}

// copyHash returns a hash with the same pairs, to add to.
func (v *value) copyHash() *value {
	c := newHash(v.at)
	for _, p := range v.pairs {
		c.set(p.key, p.at, p.val)
	}
	return c
}

// merged returns base with over put on it: hashes are merged key by key, all else is replaced.
func merged(base, over *value) *value {
	if !base.is(hash) || !over.is(hash) {
		return over
	}
	out := base.copyHash()
	out.at = over.at
	for _, p := range over.pairs {
		if old := out.get(p.key); old != nil {
			out.set(p.key, p.at, merged(old, p.val))
		} else {
			out.set(p.key, p.at, p.val)
		}
	}
	return out
}

// json returns the value as JSON; hashes keep their order.
func (v *value) json() json.RawMessage {
	var b strings.Builder
	v.writeJSON(&b)
	return json.RawMessage(b.String())
}

func (v *value) writeJSON(b *strings.Builder) {
	if v == nil {
		b.WriteString("null")
		return
	}
	switch v.kind {
	case null:
		b.WriteString("null")
	case boolean, integer:
		b.WriteString(v.text)
	case float:
		writeJSONFloat(b, v.text)
	case text:
		writeJSONText(b, v.text)
	case list, reference:
		b.WriteByte('[')
		for i, item := range v.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.writeJSON(b)
		}
		b.WriteByte(']')
	case hash:
		b.WriteByte('{')
		for i, p := range v.pairs {
			if i > 0 {
				b.WriteByte(',')
			}
			writeJSONText(b, p.key)
			b.WriteByte(':')
			p.val.writeJSON(b)
		}
		b.WriteByte('}')
	}
}

func writeJSONText(b *strings.Builder, s string) {
	quoted, _ := json.Marshal(s) // a string always has a JSON form
	b.Write(quoted)
}

func writeJSONFloat(b *strings.Builder, s string) {
	if _, err := strconv.ParseFloat(s, 64); err != nil || strings.ContainsAny(s, "IN") {
		writeJSONText(b, s)
		return
	}
	b.WriteString(s)
}

// inspect shows a short form of the value for messages.
func (v *value) inspect() string {
	s := string(v.json())
	if len(s) > 60 {
		s = s[:57] + "..."
	}
	return s
}
