package slurm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// What sbatch says, in small letters, when a job is refused as it is, in the words of Slurm's own errors. The first
// list that has a match decides.
var (
	awayWords = lazy.Regexp(`unable to contact slurm|socket timed out|zero bytes|connection (refused|reset|timed out)|communication|authenticat|credential|standby mode|establish a configuration source|slurmdbd`)
	// A limit of one job never lets it in; the others count jobs, or what they have together.
	sizeWords = lazy.Regexp(`per_?job|minutesperjob|wall_?duration|(qos|assoc)min|user's size and/or time limits\):? *(exceeded|too)`)
	fullWords = lazy.Regexp(`violates accounting/qos policy|submit_?job|job queue full|temporarily unable|temporarily disabled|maxjobcount|too many jobs|` +
		`not available now|not usable now|inactive or drain|down, drained or reserved|nodes are busy|rate limit|try again later|maximum number of jobs`)
	wrongWords = lazy.Regexp(`invalid|not available|can not be satisfied|cannot be satisfied|not permitted|not allowed|permission denied|access denied|unrecognized|` +
		`ambiguous|requires an argument|unknown|does not look like a batch script|dos line breaks|too long|too large|unspecified error|must be|missing|dependency problem|` +
		`more processors requested|not valid|node count|illegal|disabled`)
)

// refusal tells why a job was not accepted. Whoever does not answer has not refused: then the error is as it was.
func refusal(err error) error {
	failed, ok := errors.AsType[*batch.CommandError](err)
	if !ok || failed.ExitCode <= 0 || failed.ExitCode >= commandMissing {
		return err
	}
	said := strings.ToLower(failed.Said)
	switch {
	case awayWords().MatchString(said):
		return err
	case sizeWords().MatchString(said):
		return fmt.Errorf("%w: %w", tranter.ErrRejected, err)
	case fullWords().MatchString(said):
		return fmt.Errorf("%w: %w", tranter.ErrNoCapacity, err)
	case wrongWords().MatchString(said):
		return fmt.Errorf("%w: %w", tranter.ErrRejected, err)
	default:
		return err
	}
}

// commandMissing and above are exit codes of shells and of ssh: the command was not found, was killed, was not reached.
const commandMissing = 126

// onlyGone says whether a cancellation has failed for nothing else than that jobs have ended.
func onlyGone(err error) bool {
	failed, ok := errors.AsType[*batch.CommandError](err)
	if !ok || failed.ExitCode <= 0 || failed.ExitCode >= commandMissing {
		return false
	}
	said := strings.ToLower(failed.Said)
	return said != "" && !strings.Contains(goneWords().ReplaceAllString(said, ""), "error")
}

var goneWords = lazy.Regexp(`(scancel: )?error: kill job error on job(step)? id [^ ]+: (invalid job id specified|job/step already completing or completed)`)
