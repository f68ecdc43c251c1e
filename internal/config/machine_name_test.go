package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
)

func TestNamesOfMachinesAreNamesOfHosts(t *testing.T) {
	for name, want := range map[string]string{
		"ci-%s": "", "%s": "", "a.%s.example": "", strings.Repeat("a", 28) + "%s": "",
		strings.Repeat("a", 29) + "%s": "warning: runners.machine.MachineName: makes names of more than 63",
		"ci-%s-":                       "error: runners.machine.MachineName: makes names that no host may have",
		"ci-%s.":                       "no host may have", "ci..%s": "no host may have", "ci-.%s": "no host may have", "ci.-%s": "no host may have",
		"../%s": "can't be part", "%s/x": "can't be part", "-%s": "can't be part", "ci %s": "can't be part", "ci%s\n": "can't be part",
	} {
		text := fmt.Sprintf("concurrent = 1\n[[runners]]\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-abcdefghijkl\"\nexecutor = \"docker+machine\"\nlimit = 3\n"+
			"[runners.docker]\nimage = \"alpine\"\n[runners.machine]\nMachineDriver = \"lab\"\nMachineName = %q\n", name)
		_, problems := config.Parse(config.Source{Name: "config.toml", Data: []byte(text)})
		var said []string
		for _, p := range problems {
			if strings.Contains(p.Key, "MachineName") {
				said = append(said, p.String())
			}
		}
		got := strings.Join(said, "\n")
		if want == "" && got != "" || !strings.Contains(got, want) || len(said) > 1 {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
