package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// jobRequest is what a runner tells its server about itself.
func jobRequest(c config.Config, r config.Runner) tranter.Request {
	told := tranter.Request{Executor: r.Executor, Shell: r.Shell, Labels: labels(c, r), GPUs: r.Docker.GPUs}
	if driver, ok := executors()[r.Executor]; ok {
		told.Shell, told.Features = cmp.Or(r.Shell, driver.shell()), features(c, driver)
	}
	return told
}

// reference is a token that is written as a single reference to the environment.
var reference = lazy.Regexp(`^\$(\w+|\{\w+\})$`)

// shownToken is a runner's token as it may be shown: shortened, or where it comes from if it can't be had.
func shownToken(r config.Runner) string {
	switch {
	case r.Token != "":
		return r.Token.Short()
	case reference().MatchString(r.Raw.Token.Reveal()):
		return r.Raw.Token.Reveal()
	case r.TokenFile != "":
		return r.TokenFile
	default:
		return "-"
	}
}

// runnerLabel names a runner for people.
func runnerLabel(r config.Runner) string {
	if r.Name == "" {
		return shownToken(r)
	}
	return fmt.Sprintf("%q (%s)", r.Name, shownToken(r))
}

// sameServer tells whether two addresses are of one server (contract 1.1).
func sameServer(a, b string) bool {
	trim := func(url string) string { return strings.TrimSuffix(strings.TrimRight(url, "/"), "/ci") }
	return trim(a) == trim(b)
}

// selection says which runners of a file a command is about. Empty fields match all.
type selection struct {
	name, url string
	token     tranter.Secret
	id        int64
}

// secretValue lets a flag set a Secret; what it prints is hidden.
type secretValue struct{ secret *tranter.Secret }

func (v secretValue) String() string {
	if v.secret == nil {
		return ""
	}
	return v.secret.String()
}

// Set takes any text.
func (v secretValue) Set(text string) error {
	*v.secret = tranter.Secret(text)
	return nil
}

// Type names the value in the help.
func (v secretValue) Type() string { return "string" }

// addName, addURL and addToken define the flags by which runners are selected.
func (s *selection) addName(flags *pflag.FlagSet) {
	flags.StringVarP(&s.name, "name", "n", "", "the runners of this name")
}

func (s *selection) addURL(flags *pflag.FlagSet) {
	flags.StringVarP(&s.url, "url", "u", "", "the runners of this server")
}

func (s *selection) addToken(flags *pflag.FlagSet) {
	flags.VarP(secretValue{&s.token}, "token", "t", "the runners with this token")
}

func (s selection) empty() bool { return s == selection{} }

// of returns the runners of a file that the selection is about. That none is, though something was asked for, is an error.
func (s selection) of(f runnersFile) ([]config.Runner, error) {
	var out []config.Runner
	for _, r := range f.config.Runners {
		if (s.name == "" || r.Name == s.name) && (s.url == "" || sameServer(r.URL, s.url)) &&
			(s.token == "" || r.Token == s.token) && (s.id == 0 || r.ID == s.id) {
			out = append(out, r)
		}
	}
	if len(out) == 0 && !s.empty() {
		return nil, fmt.Errorf("no runner in %s matches: \"tranter list\" shows them", f.path)
	}
	return out, nil
}

// server is the connection to a runner's GitLab, or why there is none.
func (f runnersFile) server(r config.Runner, log *slog.Logger) (*gitlab.Client, error) {
	if err := f.faults[r.Index]; err != nil {
		return nil, err
	}
	return newClient(f.config, r, systemID(f.path, log), log)
}

// verdict is what is known of a runner's token.
type verdict int

const (
	tokenValid verdict = iota
	tokenInvalid
	tokenUnclear // the server could not be asked
)

// verifyRunner asks the server about a runner's token. The error says why the token is not valid, or why that could not
// be told.
func (f runnersFile) verifyRunner(ctx context.Context, r config.Runner, log *slog.Logger) (verdict, error) {
	client, err := f.server(r, log)
	if err != nil {
		return tokenUnclear, err
	}
	_, err = client.Verify(ctx)
	switch {
	case err == nil:
		return tokenValid, nil
	case errors.Is(err, tranter.ErrForbidden):
		return tokenInvalid, err
	default:
		return tokenUnclear, err
	}
}

// sortSection puts the keys of a runner's section into the order of the reference, those that it does not know last.
func sortSection(section config.Section) config.Section {
	order := map[string]int{}
	for i, d := range config.Keys() {
		if d.Section == "[[runners]]" {
			order[shortKey(d)] = i + 1
		}
	}
	place := func(e config.Entry) int {
		if i := order[e.Key]; i > 0 {
			return i
		}
		return len(order) + 1<<20
	}
	out := slices.Clone(section)
	slices.SortStableFunc(out, func(a, b config.Entry) int { return cmp.Compare(place(a), place(b)) })
	return out
}
