package docker

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

// A service may print a line without an end; what it prints afterwards is shown all the same.
func TestLinesThatAreTooLong(t *testing.T) {
	var got []string
	use := func(line string) { got = append(got, line) }
	long := strings.Repeat("x", 3*longestLine+5)
	if err := eachLine(strings.NewReader("first\n"+long+"\r\nlast\nrest"), use); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[0] != "first" || len(got[1]) != longestLine || got[2] != "last" || got[3] != "rest" {
		t.Errorf("%d lines: %.20q", len(got), got)
	}
	if broken := errors.New("broken"); !errors.Is(eachLine(iotest.ErrReader(broken), use), broken) {
		t.Error("a broken stream counts as its end")
	}
}
