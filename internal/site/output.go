package site

import (
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
)

// batchJobs is how many jobs in batch jobs run at the same time unless the file says it: the cluster is the limit.
const batchJobs = 1000

// Config returns the configuration of a manager for the jobs that it runs itself: without runners whose jobs a command is
// launched for, without those that have no token yet, and without those whose executor the file does not name. Unless
// [manager] has concurrent, all runners can be as busy as their limits allow: one job each without a limit, and in batch jobs
// as many as the cluster takes.
func Config(s Site, tokens map[string]Token) config.Config {
	c := s.Manager
	c.Runners = nil
	most := 0
	for _, r := range s.Runners {
		token, ok := tokens[r.Name]
		if !ok || token.Token == "" || r.Launch != nil || r.Section.Executor == "" {
			continue
		}
		section := r.Section
		section.URL, section.Token, section.ID = s.URL, token.Token, token.ID
		section.TokenObtainedAt, section.TokenExpiresAt = token.ObtainedAt, token.ExpiresAt
		section.Raw = config.Raw{URL: section.URL, Token: section.Token}
		if section.TLSCAFile == "" {
			section.TLSCAFile = s.TLSCAFile
		}
		section.Index = len(c.Runners)
		c.Runners = append(c.Runners, section)
		most += atOnce(&section)
	}
	if !s.concurrent {
		c.Concurrent = max(most, 1)
	}
	return c
}

// atOnce returns how many jobs a runner is to run at the same time.
func atOnce(r *config.Runner) int {
	switch b := &r.Batch; {
	case r.Limit > 0:
		return r.Limit
	case b.Scheduler != "" && b.MaxAllocations > 0:
		return b.MaxAllocations * max(b.Places, 1)
	case b.Scheduler != "":
		return batchJobs
	}
	return 1
}

// RenderConfig writes a config.toml with the runners that have a token, for run-single and for the stock runner: without keys
// that it does not know, and with our executor as programs that it starts.
func RenderConfig(s Site, tokens map[string]Token) ([]byte, error) {
	most := s.Manager.Concurrent
	if !s.concurrent {
		most = 0
		for _, r := range s.Runners {
			most += max(r.Section.Limit, 1)
		}
	}
	top := config.Section{{Key: "concurrent", Value: max(most, 1)}}
	for _, e := range s.stock {
		top = top.With(e.Key, e.Value)
	}
	var runners []config.Section
	for _, r := range s.Runners {
		token, ok := tokens[r.Name]
		if !ok || token.Token == "" || r.Section.Executor == "" {
			continue
		}
		runners = append(runners, rendered(&s, &r, token))
	}
	if len(runners) > 0 {
		top = append(top, config.Entry{Key: "runners", Value: runners})
	}
	text, err := config.Write(top)
	if err != nil {
		return nil, err
	}
	comment := "# Made of " + strings.Map(printable, s.Path) + ": change that, this file is written anew.\n"
	return append([]byte(comment), text...), nil
}

func printable(c rune) rune {
	if c < ' ' || c == 0x7f {
		return '?'
	}
	return c
}

func rendered(s *Site, r *Runner, token Token) config.Section {
	out := config.Section{{Key: "name", Value: r.Name}, {Key: "url", Value: s.URL}}
	if token.ID > 0 {
		out = append(out, config.Entry{Key: "id", Value: token.ID})
	}
	out = append(out, config.Entry{Key: "token", Value: token.Token})
	if !token.ObtainedAt.IsZero() {
		out = append(out, config.Entry{Key: "token_obtained_at", Value: token.ObtainedAt})
	}
	if !token.ExpiresAt.IsZero() {
		out = append(out, config.Entry{Key: "token_expires_at", Value: token.ExpiresAt})
	}
	if s.TLSCAFile != "" && r.given.Get("tls-ca-file") == nil {
		out = append(out, config.Entry{Key: "tls-ca-file", Value: s.TLSCAFile})
	}
	for _, e := range r.given {
		out = out.With(e.Key, e.Value)
	}
	return out
}

// Masked returns a text with the site's secrets replaced by stars: the management token, and values that come from files.
func (s Site) Masked(text string) string {
	for _, secret := range s.hidden {
		text = strings.ReplaceAll(text, secret, tranter.Secret(secret).String())
	}
	return text
}
