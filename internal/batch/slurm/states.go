package slurm

import (
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// state translates one of Slurm's states; there may be more behind it, such as "by 1000" or flags.
func state(native string) tranter.BatchState {
	word, _, _ := strings.Cut(native, " ")
	word, _, _ = strings.Cut(word, "+")
	switch word {
	case "PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD":
		return tranter.BatchQueued
	case "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT", "POWER_UP_NODE", "UPDATE_DB", "EXPEDITING":
		return tranter.BatchRunning
	case "COMPLETED":
		return tranter.BatchCompleted
	case "FAILED", "LAUNCH_FAILED", "RECONFIG_FAIL":
		return tranter.BatchFailed
	case "CANCELLED", "REVOKED":
		return tranter.BatchCancelled
	case "TIMEOUT", "DEADLINE":
		return tranter.BatchTimedOut
	case "NODE_FAIL", "BOOT_FAIL":
		return tranter.BatchNodeLost
	case "PREEMPTED":
		return tranter.BatchPreempted
	case "OUT_OF_MEMORY":
		return tranter.BatchOutOfMemory
	default:
		return tranter.BatchUnknown
	}
}

// neverReasons are those for which a job waits in vain (hpc, section 5.4). A hold by the user is not among them: somebody
// means to take it away.
var neverReasons = lazy.Regexp(`^(PartitionConfig|PartitionTimeLimit|PartitionNodeLimit|BadConstraints|JobHeldAdmin|JobHoldMaxRequeue|DependencyNeverSatisfied|` +
	`DeadLine|Deadline|ReservationDeleted|AccountNotAllowed|QOSNotAllowed|Invalid[A-Za-z]+|(QOS|Assoc)Min[A-Za-z]+|(QOS|Assoc)Max[A-Za-z]*PerJob[A-Za-z]*|` +
	`(QOS|Assoc)Max(WallDuration|CpuMinutes|CPUMinutes)PerJob[A-Za-z]*|MaxMemPerLimit|(QOS|Assoc)MaxMemoryPerJob|launch failed requeued held|job requeued in held state|` +
	`Requested node configuration is not available)$`)

// never says whether a reason to wait does not pass by itself.
func never(reason string) bool {
	return neverReasons().MatchString(strings.ReplaceAll(strings.Trim(reason, "()"), "_", " "))
}

// known leaves nothing of the words that Slurm has for nothing.
func known(text string) string {
	switch text = strings.TrimSpace(text); text {
	case "N/A", "Unknown", "None", "NONE", "(null)", "None assigned", "n/a":
		return ""
	default:
		return text
	}
}

// instant reads a time: seconds since 1970, or a local one where our wish for those did not arrive.
func instant(text string) time.Time {
	text = known(text)
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && seconds > 0 && seconds < 1<<40 {
		return time.Unix(seconds, 0)
	}
	t, err := time.ParseInLocation("2006-01-02T15:04:05", text, time.Local)
	if err != nil {
		return time.Time{}
	}
	return t
}

// count reads a number; what is absurd is Slurm's way to say that it does not know.
func count(text string) int {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 || n >= 1<<31 {
		return 0
	}
	return int(n)
}

// exit reads CODE:SIGNAL.
func exit(text string) (code, signal int) {
	before, after, _ := strings.Cut(text, ":")
	return count(before), count(after)
}

// size reads an amount of memory such as 1234K or 1.50G.
func size(text string) int64 {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0
	}
	unit := int64(1)
	if i := strings.IndexByte("KMGTP", text[len(text)-1]); i >= 0 {
		unit <<= 10 * (i + 1)
		text = text[:len(text)-1]
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n*float64(unit) < 1<<62) {
		return 0
	}
	return int64(n * float64(unit))
}
