package main

import (
	"log/slog"
	"strings"
	"testing"
)

func TestALogLineIsOneLineOfPlainText(t *testing.T) {
	var out strings.Builder
	log, err := logOptions{}.logger(&out, &slog.LevelVar{})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("A machine", "id", "i-\x1b[2J", "address", "a\rb", "bad", "\xff", "name", "runner-1", "umlaut", "ä", "none", "", "words", "a b")
	want := `id="i-\x1b[2J" address="a\rb" bad="\xff" name=runner-1 umlaut=ä none="" words="a b"` + "\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("it is %q", out.String())
	}
}
