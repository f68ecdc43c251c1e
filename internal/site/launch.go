package site

import (
	"fmt"
	"strconv"
	"time"
)

// Launch is [launch] of one runner: a command of the site that starts runners for jobs that wait (hpc, section 1.6). Its texts
// are templates: all variables are replaced except ${CONFIG} and ${NUM_JOBS}, and dollars are doubled.
type Launch struct {
	Executable string
	Args       []string
	Workdir    string
	Stdin      string
	Timeout    time.Duration // of one command; 0: none
	GroupSize  int           // most jobs for one command; at least 1
}

// Command is a launch command, ready to be run.
type Command struct {
	Executable string        `json:"executable"`
	Args       []string      `json:"args"`
	Workdir    string        `json:"workdir,omitempty"`
	Stdin      string        `json:"stdin,omitempty"`
	Timeout    time.Duration `json:"timeout,omitempty"` // nanoseconds
	GroupSize  int           `json:"group_size"`
}

// Command fills the templates in for numJobs jobs. generatedConfig is the path of the configuration that RenderConfig made.
func (l *Launch) Command(numJobs int, generatedConfig string) (Command, error) {
	if numJobs < 1 || numJobs > l.GroupSize {
		return Command{}, fmt.Errorf("launch %d jobs with one command: group_size allows 1 to %d", numJobs, l.GroupSize)
	}
	var err error
	e := expander{
		look: func(name string) (string, answer) {
			switch name {
			case "CONFIG":
				return generatedConfig, known
			case "NUM_JOBS":
				return strconv.Itoa(numJobs), known
			}
			return "", unknown
		},
		fault: func(_, written string, _ int) { err = fmt.Errorf("launch: %q is no variable here", written) },
	}
	c := Command{Executable: e.expand(l.Executable), Workdir: e.expand(l.Workdir), Stdin: e.expand(l.Stdin), Timeout: l.Timeout, GroupSize: l.GroupSize}
	for _, arg := range l.Args {
		c.Args = append(c.Args, e.expand(arg))
	}
	return c, err
}
