package config

import (
	"reflect"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// MergeTemplate puts the [[runners]] section of a template file underneath a section: its values count where the
// section has none, or a zero one (contract 12.4). The template must have exactly one [[runners]]; its token, its
// token_file and its global keys are ignored.
func MergeTemplate(s Section, template Source) (Section, []Problem) {
	doc, faults := parseTOML(template.Data)
	d := newDecoder(template, faults)
	var scratch Config
	d.table(d.schema, doc.root, reflect.ValueOf(&scratch).Elem(), -1)
	runners := sectionNodes(doc.root)
	if len(runners) != 1 {
		d.report(Error, doc.root.nearest("runners"), "runners", "a template has exactly one [[runners]] section; this has "+counted(len(runners), "", ""), "Split it into files.")
	}
	sortProblems(d.problems)
	if Failed(d.problems, false) {
		return s, d.problems
	}
	under := sectionOf(runners[0]).Without("token", "token_file")
	return mergeUnder(s, under), d.problems
}

// mergeUnder fills what is missing or zero in s from under.
func mergeUnder(s, under Section) Section {
	for _, e := range under {
		mine := s.Get(e.Key)
		if sub, ok := e.Value.(Section); ok {
			if below, ok := asSection(mine); ok {
				s = s.With(keyOf(s, e.Key), mergeUnder(below, sub))
				continue
			}
		}
		if isZero(mine) {
			s = s.With(keyOf(s, e.Key), e.Value)
		}
	}
	return s
}

// keyOf returns the spelling of a key that s has already.
func keyOf(s Section, key string) string {
	for _, e := range s {
		if strings.EqualFold(e.Key, key) {
			return e.Key
		}
	}
	return key
}

// asSection returns a value that is a section, or that may become one.
func asSection(v any) (Section, bool) {
	switch v := v.(type) {
	case Section:
		return v, true
	case map[string]string:
		return sectionFromMap(v), true
	case map[string]bool:
		return sectionFromMap(v), true
	case map[string]any:
		return sectionFromMap(v), true
	}
	return nil, false
}

func isZero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case time.Time:
		return v.IsZero()
	case tranter.Secret:
		return v == ""
	}
	r := reflect.ValueOf(v)
	if r.Kind() == reflect.Slice || r.Kind() == reflect.Map {
		return r.Len() == 0
	}
	return r.IsZero()
}
