package pipeline

import (
	"slices"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// variable is a variable of the file.
type variable struct {
	key   string
	value string
	raw   bool // expand: false
}

func (v variable) payload() tranter.Variable {
	return tranter.Variable{Key: v.key, Value: v.value, Public: true, Raw: v.raw}
}

func payloads(vars []variable) []tranter.Variable {
	out := make([]tranter.Variable, 0, len(vars))
	for _, v := range vars {
		out = append(out, v.payload())
	}
	return out
}

var variableName = lazy.Regexp(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// readVariables reads variables:; data are the keys that the long form may have here.
func readVariables(f field, data ...string) []variable {
	if !f.v.is(hash) {
		f.errorf("config should be a hash")
		return nil
	}
	var out []variable
	for _, p := range f.v.pairs {
		sub := field{report: f.report, v: p.val, job: f.job, path: f.path + ":" + p.key}
		if !variableName().MatchString(p.key) {
			f.report.warnf(p.at, "%s is not a name that a shell can read as a variable", p.key)
		}
		v := variable{key: p.key}
		switch {
		case p.val.isNull():
		case p.val.scalar():
			v.value = p.val.text
		case p.val.is(hash):
			v.value, v.raw = readLongVariable(sub, data)
		default:
			sub.errorf("config variable definition must be either a string or a hash")
		}
		out = append(out, v)
	}
	return out
}

func readLongVariable(f field, data []string) (value string, raw bool) {
	for _, p := range f.v.pairs {
		if !slices.Contains(data, p.key) {
			hint := unknownHint(p, data)
			if p.key == "script" {
				hint = tooFar
			}
			f.report.errorf(p.at, f.job, "%s config uses invalid data keys: %s%s", f.path, p.key, hint)
		}
	}
	if v, ok := f.sub("value"); ok {
		if v.v.scalar() {
			value = v.v.text
		} else {
			v.errorf("config value should be alphanumeric")
		}
	}
	f.text("description")
	if options := f.texts("options", false); options != nil && !slices.Contains(options, value) {
		f.errorf("config value must be present in options")
	}
	expand, given := f.flag("expand")
	return value, given && !expand
}

// withVariables puts more variables on top of a list: an equal key is replaced in place.
func withVariables(base, over []variable) []variable {
	out := slices.Clone(base)
	for _, v := range over {
		if i := slices.IndexFunc(out, func(o variable) bool { return o.key == v.key }); i >= 0 {
			out[i] = v
		} else {
			out = append(out, v)
		}
	}
	return out
}
