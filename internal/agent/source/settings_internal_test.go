package source

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// What is written is what git reads.
func TestConfigFile(t *testing.T) {
	t.Parallel()
	values := []string{
		"", "plain", " spaces around ", "a # b ; c", `say "hi"`, `C:\temp\new`, "two\nlines", "tab\there", "é漢字", `\`, `"`, `\"`,
		`!f() { test "$1" = get && cat '/it'\''s/here'; }; f`, "[section]", "a=b", "-x", "~/x", "%(prefix)/x",
	}
	var c configFile
	for _, v := range values {
		c.set("tr", `https://h"o\st:80`, "key", v)
	}
	cmd := exec.CommandContext(t.Context(), "git", "config", "-f", "-", "-z", "--list")
	cmd.Stdin = strings.NewReader(c.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, c.String())
	}
	read := bytes.Split(bytes.TrimSuffix(out, []byte{0}), []byte{0})
	if len(read) != len(values) {
		t.Fatalf("git reads %q", read)
	}
	for i, v := range values {
		if want := "tr." + `https://h"o\st:80` + ".key\n" + v; string(read[i]) != want {
			t.Errorf("git reads %q, want %q", read[i], want)
		}
	}
}

func TestMessagesOfGit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ output, want string }{
		{"", ""},
		{"just this\n\n", "just this"},
		{"Cloning into 'x'...\nremote: HTTP Basic: Access denied\nfatal: Authentication failed for 'http://h/p.git/'\n", "remote: HTTP Basic: Access denied; fatal: Authentication failed for 'http://h/p.git/'"},
		{"error: 1\nerror: 2\nerror: 3\nfatal: 4\n", "error: 2; error: 3; fatal: 4"},
		{strings.Repeat("x", 3*tailSize) + "\nfatal: end", "fatal: end"},
	} {
		var l tail
		for i := range len(tt.output) { // byte by byte
			_, _ = l.Write([]byte(tt.output[i : i+1]))
		}
		if got := l.messages(); got != tt.want {
			t.Errorf("%q gives %q, want %q", tt.output, got, tt.want)
		}
		var whole tail
		_, _ = whole.Write([]byte(tt.output))
		if got := whole.messages(); got != tt.want {
			t.Errorf("%q at once gives %q", tt.output, got)
		}
	}
	g := &git{hide: []string{"s3cret", ""}}
	if got := g.clean("clone of 'https://user:pass@host/p.git' with s3cret failed, ssh://git@host/x too"); got != "clone of 'https://host/p.git' with [MASKED] failed, ssh://host/x too" {
		t.Errorf("cleaned: %q", got)
	}
}
