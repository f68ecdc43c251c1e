package config

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// value returns the value of a key = value, with the bytes that it takes.
func (p *parser) value(e *unstable.Node) *node {
	parts := p.key(e.Key())
	after := parts[len(parts)-1].end
	equals := after + bytes.IndexByte(p.doc.data[after:], '=') + 1
	start := equals + len(p.doc.data[equals:]) - len(bytes.TrimLeft(p.doc.data[equals:], " \t"))
	n := p.node(e.Value(), start)
	n.valueEnd = p.base + int(e.Raw.Offset) + int(e.Raw.Length)
	return n
}

// node turns a value of the library into ours; start is used where the library has no place for it.
func (p *parser) node(v *unstable.Node, start int) *node {
	n := &node{at: start, valueAt: start}
	if v.Raw.Length > 0 {
		n.valueAt = p.base + int(v.Raw.Offset)
		n.at = n.valueAt
		n.valueEnd = n.valueAt + int(v.Raw.Length)
	}
	switch v.Kind {
	case unstable.Array:
		n.kind, n.origin = kindArray, byValue
		for it := v.Children(); it.Next(); {
			if it.Node().Kind != unstable.Comment {
				n.list = append(n.list, p.node(it.Node(), n.valueAt))
			}
		}
	case unstable.InlineTable:
		n.kind = kindTable
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				p.assign(n, p.key(it.Node().Key()), p.value(it.Node()))
			}
		}
		closeTable(n)
	default:
		p.scalar(n, v)
	}
	return n
}

// closeTable marks an inline table and the tables of its dotted keys as complete.
func closeTable(n *node) {
	n.origin = byValue
	for _, c := range n.list {
		if c.kind == kindTable {
			closeTable(c)
		}
	}
}

func (p *parser) scalar(n *node, v *unstable.Node) {
	raw := string(v.Data)
	var ok bool
	switch v.Kind {
	case unstable.String:
		n.kind, n.scalar, ok = kindString, raw, true
	case unstable.Bool:
		n.kind, n.scalar, ok = kindBool, raw == "true", true
	case unstable.Integer:
		n.kind = kindInteger
		n.scalar, ok = integer(raw)
	case unstable.Float:
		n.kind = kindFloat
		n.scalar, ok = floating(raw)
	default:
		n.kind = kindTime
		n.scalar, ok = date(raw)
	}
	if !ok {
		p.faults = append(p.faults, fault{at: n.valueAt, found: raw, text: "not " + n.kind.String() + " that can be read", hint: "Check its digits."})
	}
}

// integer reads a TOML integer.
func integer(raw string) (int64, bool) {
	digits := strings.TrimLeft(raw, "+-")
	if len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		return 0, false
	}
	value, err := strconv.ParseInt(raw, 0, 64)
	return value, err == nil
}

// floating reads a TOML float.
func floating(raw string) (float64, bool) {
	value, err := strconv.ParseFloat(strings.ReplaceAll(raw, "_", ""), 64)
	return value, err == nil
}

// date reads the TOML forms of date and time. Without a zone it is UTC; a time without a date is on the first day of year 0.
func date(raw string) (time.Time, bool) {
	raw = strings.ToUpper(strings.Replace(raw, " ", "T", 1))
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", time.DateOnly, "15:04:05.999999999", "15:04"} {
		if t, err := time.Parse(layout, raw); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
