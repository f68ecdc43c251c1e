package pbs

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// What qsub says, in small letters. The first list that has a match decides.
var (
	awayWords = lazy.Regexp(`cannot connect|could not connect|connection (refused|reset|timed out)|no default server|end of file|server (is )?(busy|shutting down)|timed out|` +
		`communication failure|premature end|unable to contact slurm|no permission.*munge|please retry`)
	fullWords = lazy.Regexp(`would exceed|maximum number of jobs|job limit|violates accounting/qos policy|submit_?job|job queue full|temporarily|too many jobs|queue is not (enabled|started)|not enabled|quota`)
	// whatever else a server says of a job that it does not take
	wrongWords = lazy.Regexp(`unknown (queue|resource)|unauthorized request|bad uid|illegal|invalid|violates queue|resource limits|job rejected|access (to queue )?(is )?denied|not allowed|not permitted|` +
		`permission denied|requested node configuration|not available|usage|option|unspecified error|must be|cannot be satisfied|more processors requested|bad group|cannot locate|hook`)
	badName = lazy.Regexp(`illegal -n value|illegal attribute or resource value.*name|name.*too long|job_name`)
	// gonePhrases are what is said of jobs that have ended.
	gonePhrases = lazy.Regexp(`unknown job id|job has finished|request invalid for state of job|invalid job id|already completing or completed`)
	refusedTo   = lazy.Regexp(`unauthorized|permission|cannot connect|could not connect|kill job error`)
)

// commandMissing and above are exit codes of shells and of ssh for a command that was not found or not reached; those of PBS
// are the lower byte of an error's number, which lies there too.
const commandMissing, notRunnable, ssh = 127, 126, 255

// saysOf says whether a command has failed with words that match.
func saysOf(err error, words *regexp.Regexp) bool {
	failed, ok := errors.AsType[*batch.CommandError](err)
	if !ok || failed.ExitCode <= 0 || failed.ExitCode == commandMissing || failed.ExitCode == notRunnable || failed.ExitCode == ssh {
		return false
	}
	return words.MatchString(strings.ToLower(failed.Said))
}

// refusal tells why a job was not accepted. Whoever does not answer has not refused: then the error is as it was.
func refusal(err error) error {
	switch {
	case saysOf(err, awayWords()):
		return err
	case saysOf(err, fullWords()):
		return fmt.Errorf("%w: %w", tranter.ErrNoCapacity, err)
	case saysOf(err, wrongWords()):
		return fmt.Errorf("%w: %w", tranter.ErrRejected, err)
	default:
		return err
	}
}

// gone says whether a command has failed for nothing else than that jobs have ended. Slurm's qdel says nothing of them.
func gone(err error) bool {
	if saysOf(err, refusedTo()) {
		return false
	}
	failed, ok := errors.AsType[*batch.CommandError](err)
	return saysOf(err, gonePhrases()) || ok && failed.ExitCode > 0 && failed.ExitCode < notRunnable && failed.Said == ""
}
