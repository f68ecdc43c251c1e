// Package conformance holds the tests that drive the built program against a local GitLab as its users would: every stage
// of a job's life, every reason to fail, signals, crashes and bad input. It has no code of its own.
package conformance
