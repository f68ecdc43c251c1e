//go:build unix

package account

import "testing"

func FuzzParsePasswd(f *testing.F) {
	f.Add("asmith:*:70001:70000:Ann:/home/asmith:/bin/sh\n", "asmith")
	f.Add("a:b:c", "a")
	f.Fuzz(func(t *testing.T, line, name string) {
		if a, err := parsePasswd(line, name); err == nil && (a.Name == "" || a.Home == "" || a.Home[0] != '/') {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzParseGroups(f *testing.F) {
	f.Add("1 2 3\n")
	f.Add("-1 4294967295")
	f.Fuzz(func(t *testing.T, text string) {
		if gs, err := parseGroups(text); err == nil && len(gs) == 0 {
			t.Error("no groups and no error")
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"-a", "a", `D\a`, "a$", "0"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if (plausible(name) || systemName(name)) && (name[0] == '-' || len(name) > 256) {
			t.Errorf("%q", name)
		}
	})
}
