package docker

import (
	"fmt"
	"strings"
	"testing"
)

func TestWhatIsSaidAboutImagesComesInOrder(t *testing.T) {
	t.Parallel()
	say := func(l *lines, name string) { fmt.Fprintf(l.of(name), "of %s\n", name) }
	for name, c := range map[string]struct {
		act  func(l *lines)
		want string
	}{
		"in order": {func(l *lines) {
			say(l, "service")
			l.done("service")
			say(l, "helper")
			l.done("helper")
			say(l, "build")
		}, "of service\nof helper\nof build\n"},
		"the other way round": {func(l *lines) {
			say(l, "build")
			l.done("build")
			say(l, "helper")
			l.done("helper")
			say(l, "service")
			l.done("service")
		}, "of service\nof helper\nof build\n"},
		"what is not ordered":  {func(l *lines) { say(l, "build"); l.printf("now") }, "now\nof build\n"},
		"one that never comes": {func(l *lines) { l.done("helper"); say(l, "build") }, "of build\n"},
		"an unknown name":      {func(l *lines) { l.done("service"); l.done("helper"); l.done("build"); say(l, "other") }, "of other\n"},
		"in the middle of it":  {func(l *lines) { say(l, "helper"); l.done("service"); say(l, "helper"); l.printf("now") }, "of helper\nof helper\nnow\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			l := &lines{w: &log}
			l.order("service", "helper", "build")
			c.act(l)
			l.end()
			if log.String() != c.want {
				t.Errorf("%q, want %q", log.String(), c.want)
			}
			say(l, "build")
			if log.String() != c.want {
				t.Errorf("after the end: %q", log.String())
			}
		})
	}
	t.Run("two of one name", func(t *testing.T) {
		t.Parallel()
		var log strings.Builder
		l := &lines{w: &log}
		l.order("service", "service", "build")
		l.done("service")
		say(l, "build")
		say(l, "service")
		l.done("service")
		if want := "of service\nof build\n"; log.String() != want {
			t.Errorf("%q, want %q", log.String(), want)
		}
	})
}
