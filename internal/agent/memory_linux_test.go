package agent

import "testing"

func TestReadOnlyParts(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"00400000-01000000 r-xp 00000000 fe:00 123  /usr/bin/tranter": true,
		"01000000-02000000 r--p 00c00000 fe:00 123  /usr/bin/tranter": true,
		"02000000-02100000 rw-p 01c00000 fe:00 123  /usr/bin/tranter": false,
		"7f0000000000-7f0000001000 r-xp 00000000 00:00 0  [vdso]":     false,
		"00400000-01000000 r-xp 00000000 fe:00 124  /usr/bin/other":   false,
		"c000000000-c000400000 rw-p 00000000 00:00 0":                 false,
		"x-y r-xp 0 0 0 /usr/bin/tranter":                             false,
		"":                                                            false,
	} {
		if _, _, ok := readOnly(line, "/usr/bin/tranter"); ok != want {
			t.Errorf("%q: %v", line, ok)
		}
	}
	ReleaseProgram() // and we live on
}
