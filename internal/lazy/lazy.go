// Package lazy makes values when they are needed first. This program starts once per job, and most of the times it needs
// few of its patterns: to compile all of them at once took a tenth of what starting costs.
package lazy

import (
	"regexp"
	"sync"
)

// Regexp returns a function that returns the compiled pattern. It panics when it is called if the pattern is malformed.
func Regexp(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
