package main

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestMessagesOfTheTroubleshootingPageExist looks for each message of docs/troubleshooting.md in the program: all that is between
// the places that differ has to be in one of its texts.
func TestMessagesOfTheTroubleshootingPageExist(t *testing.T) {
	texts := programTexts(t)
	seen := 0
	for line := range strings.Lines(pages(t)["../../docs/troubleshooting.md"]) {
		row, ok := strings.CutPrefix(line, "| `")
		message, _, closed := strings.Cut(row, "` |")
		if !ok || !closed {
			continue
		}
		seen++
		longest := 0
		for part := range strings.SplitSeq(message, "…") {
			part = strings.TrimSpace(part)
			longest = max(longest, len(part))
			if !strings.Contains(texts, part) {
				t.Errorf("no text of the program has %q, of the message %q", part, message)
			}
		}
		if longest < 10 {
			t.Errorf("%q: too little of it is fixed to be found", message)
		}
	}
	if seen < 70 {
		t.Errorf("only %d messages were found", seen)
	}
}

// programTexts are all texts in the program's source, without tests, each on its own.
func programTexts(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"../../cmd/tranter", "../../internal", "../.."} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && dir == "../.." && path != dir {
				return fs.SkipDir // those that count have their turn
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err == nil {
				addTexts(&all, source)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// addTexts adds the texts of a source file; those that are joined with + are one.
func addTexts(to *strings.Builder, source []byte) {
	files := token.NewFileSet()
	var s scanner.Scanner
	s.Init(files.AddFile("", files.Base(), len(source)), source, nil, 0)
	joined := false
	for {
		_, kind, literal := s.Scan()
		switch kind {
		case token.EOF:
			to.WriteString("\n")
			return
		case token.STRING:
			text, err := strconv.Unquote(literal)
			if err != nil {
				continue
			}
			if !joined {
				to.WriteString("\x00")
			}
			to.WriteString(text)
			joined = true
		case token.ADD:
		default:
			joined = false
		}
	}
}

// What the checks of documents are for is found by them.
func TestMistakesInCommandsOfDocumentsAreFound(t *testing.T) {
	c := newShellCheck(t)
	for _, line := range []string{
		"tranter machien ls", "tranter machine lss", "tranter run --confg x", "tranter job why", "tranter events --level", "make no-such-target",
		"docker run tranter up --no-such-flag", "cat deploy/no/such.yml", "sudo tranter drain now",
	} {
		if c.command(strings.Fields(line)) == nil {
			t.Errorf("%s: no mistake is found", line)
		}
	}
	for _, line := range []string{"tranter machine ls --state idle", "bin/tranter run --help", "make test", "promtool test rules deploy/prometheus/rules_test.yml", "tranter completion bash"} {
		if err := c.command(strings.Fields(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
