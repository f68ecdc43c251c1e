package batch

import "github.com/tranter-ci/tranter"

// Environ is the environment of the client's commands, run as an account, or as ours if that is nil: what is about CI jobs
// and what may be secret is not in it.
func (c Client) Environ(as *tranter.Account) []string { return c.environment(as, false) }

// Brief makes one line, which is not long, of what a command has said.
func Brief(text string) string { return brief(text) }
