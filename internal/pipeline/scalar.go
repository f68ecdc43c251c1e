package pipeline

import (
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// Plain scalars are read as Ruby's YAML library reads them, which is what GitLab has: YAML 1.1 with its own ideas about
// numbers. "yes" is a boolean, 0755 is octal, 12:30 is 750, and 1e3 is a string.
var (
	rubyInteger    = lazy.Regexp(`^(?:[-+]?0b[01_,]+|[-+]?0[0-7_,]+|[-+]?(?:0|[1-9](?:[0-9]|,[0-9]|_[0-9])*)|[-+]?0x[0-9a-fA-F_,]+)$`)
	rubyFloat      = lazy.Regexp(`^[-+]?(?:[0-9][0-9_,]*)?\.[0-9]*(?:[eE][+-][0-9]+)?$`)
	rubyBase60     = lazy.Regexp(`^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9]){1,2}$`)
	rubyBase60Frac = lazy.Regexp(`^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9]){1,2}\.[0-9_]*$`)
	rubyDate       = lazy.Regexp(`^\d{4}-(?:1[012]|0\d|\d)-(?:[12]\d|3[01]|0\d|\d)$`)
	rubyTime       = lazy.Regexp(`^-?\d{4}-\d{1,2}-\d{1,2}(?:[Tt]|\s+)\d{1,2}:\d\d:\d\d(?:\.\d*)?(?:\s*(?:Z|[-+]\d{1,2}:?(?:\d\d)?))?$`)
)

// scalarOf reads a plain scalar. class is "Date" or "Time" for what GitLab refuses to read.
func scalarOf(s string, at position) (v *value, class string) {
	if v := wordScalar(s, at); v != nil {
		return v, ""
	}
	plain := newText(s, at)
	if !strings.ContainsAny(s[:1], "0123456789+-.") {
		return plain, ""
	}
	switch {
	case rubyDate().MatchString(s):
		return plain, "Date"
	case rubyTime().MatchString(s):
		return plain, "Time"
	case rubyBase60().MatchString(s), rubyBase60Frac().MatchString(s):
		return base60(s, at), ""
	case rubyInteger().MatchString(s):
		if n, ok := parseInteger(s); ok {
			return &value{kind: integer, text: n, at: at}, ""
		}
	case rubyFloat().MatchString(s) && strings.Trim(s, "+-") != ".":
		if f, err := strconv.ParseFloat(strings.NewReplacer(",", "", "_", "").Replace(s), 64); err == nil {
			return &value{kind: float, text: rubyFloatText(f), at: at}, ""
		}
	}
	return plain, ""
}

// wordScalar reads the words that stand for null, booleans and odd numbers, and symbols, which count as strings without
// their colon; nil: it is none of them.
func wordScalar(s string, at position) *value {
	if len(s) > 1 && s[0] == ':' {
		return newText(strings.Trim(s[1:], `"'`), at)
	}
	switch strings.ToLower(s) {
	case "", "~", "null":
		return &value{kind: null, at: at}
	case "yes", "true", "on":
		return &value{kind: boolean, text: "true", at: at}
	case "no", "false", "off":
		return &value{kind: boolean, text: "false", at: at}
	case ".inf":
		return &value{kind: float, text: "Infinity", at: at}
	case "-.inf":
		return &value{kind: float, text: "-Infinity", at: at}
	case ".nan":
		return &value{kind: float, text: "NaN", at: at}
	}
	return nil
}

func parseInteger(s string) (string, bool) {
	digits := strings.NewReplacer(",", "", "_", "").Replace(s)
	sign, body := "", digits
	if strings.HasPrefix(digits, "-") || strings.HasPrefix(digits, "+") {
		sign, body = strings.TrimPrefix(digits[:1], "+"), digits[1:]
	}
	base := 10
	switch {
	case strings.HasPrefix(body, "0b"):
		base, body = 2, body[2:]
	case strings.HasPrefix(body, "0x"):
		base, body = 16, body[2:]
	case len(body) > 1 && body[0] == '0':
		base, body = 8, body[1:]
	}
	// A long hexadecimal number costs time that grows faster than its length.
	if len(body) > 4096 {
		return "", false
	}
	n, ok := new(big.Int).SetString(sign+body, base)
	if !ok {
		return "", false
	}
	return n.String(), true
}

func base60(s string, at position) *value {
	negative := strings.HasPrefix(s, "-")
	total := 0.0
	for part := range strings.SplitSeq(strings.TrimLeft(s, "+-"), ":") {
		f, _ := strconv.ParseFloat(strings.TrimSuffix(strings.ReplaceAll(part, "_", ""), "."), 64) // the pattern admits digits only
		total = total*60 + f
	}
	if negative {
		total = -total
	}
	if strings.Contains(s, ".") {
		return &value{kind: float, text: rubyFloatText(total), at: at}
	}
	return &value{kind: integer, text: strconv.FormatFloat(total, 'f', 0, 64), at: at}
}

// rubyFloatText is Ruby's Float#to_s: 1.10 is "1.1", 2.0 is "2.0", and exponents start at 1e16 and below 1e-4.
func rubyFloatText(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case math.IsNaN(f):
		return "NaN"
	}
	if size := math.Abs(f); size != 0 && (size >= 1e16 || size < 1e-4) {
		s := strconv.FormatFloat(f, 'e', -1, 64)
		mantissa, exponent, _ := strings.Cut(s, "e")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		return mantissa + "e" + exponent
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
