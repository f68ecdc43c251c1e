package job

import (
	"slices"
	"strings"
	"testing"
)

func TestWhatALogSaysOfHowFarAJobHasCome(t *testing.T) {
	for name, c := range map[string]struct {
		lines   []string
		open    string
		uploads bool
		inLine  bool
	}{
		"nothing":    {},
		"one of two": {lines: []string{"section_start:1:a\r\x1b[0Ksection_start:1:b[collapsed=true]\r\x1b[0K\n", "section_end:2:a\r\x1b[0K\n"}, open: "b"},
		"again":      {lines: []string{"section_start:1:a\r", "section_start:1:a\r", "section_end:2:a\r\n"}},
		"no section": {lines: []string{"section_start:x:a section_end:1:b section_start:1:\n"}},
		"uploads":    {lines: []string{"2026-01-01T00:00:00.000000Z 00O \x1b[36;1mUploading artifacts for successful job\x1b[0;m\n"}, uploads: true},
		"in a line":  {lines: []string{"a\n", "b"}, inLine: true},
	} {
		var s sight
		for _, l := range c.lines {
			s.see([]byte(l))
		}
		if strings.Join(s.open, ",") != c.open || s.uploads != c.uploads || s.inLine != c.inLine {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func FuzzLookingAtALog(f *testing.F) {
	f.Add("section_start:1:a[x=y]\r\x1b[0K\nsection_end:2:a\r\x1b[0K")
	f.Add("section_start:1:a\nsection_start:1:b")
	f.Fuzz(func(t *testing.T, log string) {
		var s sight
		for line := range strings.Lines(log) {
			s.see([]byte(line))
		}
		sorted := slices.Sorted(slices.Values(s.open))
		if len(s.open) > mostOpen || len(slices.Compact(sorted)) != len(s.open) {
			t.Errorf("%q", s.open)
		}
		for _, name := range s.open {
			if !sectionPattern().MatchString("section_end:1:" + name) {
				t.Errorf("%q can't be ended", name)
			}
		}
		if s.inLine != (log != "" && !strings.HasSuffix(log, "\n")) {
			t.Errorf("in a line: %v", s.inLine)
		}
	})
}
