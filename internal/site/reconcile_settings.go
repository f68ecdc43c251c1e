package site

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/tranter-ci/tranter/internal/config"
)

// Mark is how a runner is known to be of a site file and a state directory: the last line of its maintenance note. It
// is what a runner is found by whose creation was answered, but not to us.
type Mark struct{ Site, Runner, Owner string }

const (
	markBegin = "[tranter "
	markEnd   = "]"
)

// String is the mark as it stands in a note.
func (m Mark) String() string {
	return markBegin + "site=" + url.QueryEscape(m.Site) + " runner=" + url.QueryEscape(m.Runner) + " owner=" + url.QueryEscape(m.Owner) + markEnd
}

// ReadMark finds the mark in a note.
func ReadMark(note string) (Mark, bool) {
	inside, _, ok := cutMark(note)
	if !ok {
		return Mark{}, false
	}
	var m Mark
	for field := range strings.FieldsSeq(inside) {
		key, value, _ := strings.Cut(field, "=")
		text, err := url.QueryUnescape(value)
		if err != nil {
			return Mark{}, false
		}
		switch key {
		case "site":
			m.Site = text
		case "runner":
			m.Runner = text
		case "owner":
			m.Owner = text
		}
	}
	return m, m.Site != "" && m.Runner != "" && m.Owner != ""
}

// cutMark takes the last mark out of a note: what is in it, and the note without it.
func cutMark(note string) (inside, rest string, ok bool) {
	from := strings.LastIndex(note, markBegin)
	if from < 0 {
		return "", strings.TrimSpace(note), false
	}
	inside, after, ok := strings.Cut(note[from+len(markBegin):], markEnd)
	if !ok {
		return "", strings.TrimSpace(note), false
	}
	return inside, strings.TrimSpace(strings.TrimSpace(note[:from]) + "\n" + strings.TrimSpace(after)), true
}

// note is the maintenance note that a runner is to have. A text that the file does not give stays.
func (r *reconciliation) note(want *Runner, now string) string {
	text := strings.TrimSpace(want.MaintenanceNote)
	if text == "" {
		if _, _, marked := cutMark(now); marked && strings.HasSuffix(now, r.mark(want)) {
			return now
		}
		_, text, _ = cutMark(now)
	}
	mark := r.mark(want)
	if room := maxNote - len(mark) - 1; len([]rune(text)) > room {
		text = string([]rune(text)[:max(room, 0)])
	}
	return strings.TrimLeft(text+"\n"+mark, "\n")
}

func (r *reconciliation) mark(want *Runner) string {
	return Mark{r.site.Name, want.Name, r.facts.Owner}.String()
}

// initial are the settings of a runner that is made.
func (r *reconciliation) initial(want *Runner) Settings {
	tags, note := slices.Clone(want.Tags), r.note(want, "")
	s := Settings{
		Description: &want.Description, Tags: &tags, MaintenanceNote: &note,
		Paused: new(want.Paused.Or(false)), Locked: new(want.Locked.Or(len(want.Projects) == 0)), RunUntagged: new(want.RunUntagged.Or(false)),
	}
	if want.AccessLevel != "" {
		s.AccessLevel = &want.AccessLevel
	}
	if want.MaximumTimeout != 0 {
		s.MaximumTimeout = &want.MaximumTimeout
	}
	return s
}

// creation plans a new runner, and shows what it will be.
func (r *reconciliation) creation(want *Runner, reason string) Step {
	s := Step{Kind: Create, Runner: want.Name, Scope: want.Scope, Reason: reason, Set: r.initial(want), Assign: want.Projects}
	s.Lock = *s.Set.Locked
	if len(s.Assign) > 0 {
		s.Set.Locked = new(false)
	}
	c := &comparison{}
	c.note("description", "", want.Description)
	c.note("tags", "", strings.Join(want.Tags, ", "))
	c.note("paused", "", yesNo(*s.Set.Paused))
	c.note("locked", "", yesNo(s.Lock))
	c.note("run_untagged", "", yesNo(*s.Set.RunUntagged))
	if want.AccessLevel != "" {
		c.note("access_level", "", want.AccessLevel)
	}
	if want.MaximumTimeout != 0 {
		c.note("maximum_timeout", "", length(want.MaximumTimeout))
	}
	if want.MaintenanceNote != "" {
		c.note("maintenance_note", "", want.MaintenanceNote)
	}
	for _, p := range want.Projects {
		c.note("serves", "", p.String())
	}
	s.Changes = c.changes
	return s
}

// comparison collects what differs.
type comparison struct {
	set     Settings
	changes []Change
}

func (c *comparison) note(setting, from, to string) {
	c.changes = append(c.changes, Change{setting, oneLine(from), oneLine(to)})
}

// oneLine makes text of the server safe to print.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	const most = 200
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return s
}

func (c *comparison) text(setting, from, to string) *string {
	if from == to {
		return nil
	}
	c.note(setting, from, to)
	return &to
}

// flag compares a setting that is only managed if the file gives it.
func (c *comparison) flag(setting string, from bool, to config.Optional[bool]) *bool {
	want := to.Or(from)
	if want == from {
		return nil
	}
	c.note(setting, yesNo(from), yesNo(want))
	return &want
}

func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// changes plans to change what differs from the file. It tells whether anything does.
func (r *reconciliation) changes(want *Runner, actual Actual, scope Scope) bool {
	c := &comparison{}
	c.set.Description = c.text("description", actual.Description, want.Description)
	if !sameTags(actual.Tags, want.Tags) {
		tags := slices.Clone(want.Tags)
		c.set.Tags = &tags
		c.note("tags", strings.Join(sortedTags(actual.Tags), ", "), strings.Join(sortedTags(tags), ", "))
	}
	c.set.Paused = c.flag("paused", actual.Paused, want.Paused)
	c.set.Locked = c.flag("locked", actual.Locked, want.Locked)
	c.set.RunUntagged = c.flag("run_untagged", actual.RunUntagged, want.RunUntagged)
	c.set.AccessLevel = c.text("access_level", actual.AccessLevel, cmp.Or(want.AccessLevel, actual.AccessLevel))
	if want.MaximumTimeout != 0 && want.MaximumTimeout != actual.MaximumTimeout {
		c.set.MaximumTimeout = &want.MaximumTimeout
		c.note("maximum_timeout", length(actual.MaximumTimeout), length(want.MaximumTimeout))
	}
	c.set.MaintenanceNote = c.text("maintenance_note", actual.MaintenanceNote, r.note(want, actual.MaintenanceNote))
	s := Step{Kind: Update, Runner: want.Name, ID: actual.ID, Scope: scope, Changes: c.changes, Set: c.set, Assign: missing(want, actual)}
	s.Lock = want.Locked.Or(actual.Locked)
	for _, p := range s.Assign {
		s.Changes = append(s.Changes, Change{"serves", "", p.String()})
	}
	if len(s.Changes) == 0 {
		return false
	}
	r.step(s)
	return true
}

func length(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// missing are the further projects of the file that a runner does not serve yet.
func missing(want *Runner, actual Actual) (out []Scope) {
	for _, p := range want.Projects {
		if !slices.ContainsFunc(actual.Projects, func(path string) bool { return strings.EqualFold(path, p.Path) }) {
			out = append(out, p)
		}
	}
	return out
}

func sortedTags(tags []string) []string {
	out := slices.Clone(tags)
	slices.Sort(out)
	return slices.Compact(out)
}

func sameTags(a, b []string) bool { return slices.Equal(sortedTags(a), sortedTags(b)) }
