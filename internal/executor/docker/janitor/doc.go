// Package janitor keeps an engine tidy: it removes what jobs have left behind (Sweep), makes room by removing the images
// and cache volumes that were not used for longest (Uses, Plan, Guard, Prune), and looks after the registry mirror
// (EnsureMirror).
//
// It touches only what carries our labels or what a log of uses names, and it does not run jobs. The docker executor and
// the command "tranter docker" use it.
package janitor

import (
	"strconv"
	"time"
)

// Labels that decide what may be removed. Package spec writes them; contract 9.8 has those of GitLab Runner.
const (
	labelOwner     = "io.tranter.owner"     // the manager that has made it
	labelJob       = "io.tranter.job"       // tranter.SessionSpec.Name
	labelExpires   = "io.tranter.expires"   // Unix time, in seconds
	labelTemporary = "io.tranter.temporary" // "1": a volume that goes with its job
	labelType      = "io.tranter.type"
	labelStockType = "com.gitlab.gitlab-runner.type"
	labelOptions   = "io.tranter.options" // hash of what a mirror was made from

	typeAgent  = "agent"
	typeMirror = "mirror"
	typeCache  = "cache"
)

// expiry is when a thing with these labels is nobody's any more; false if that is not said, or not in a way that can be
// understood.
func expiry(labels map[string]string) (time.Time, bool) {
	seconds, err := strconv.ParseInt(labels[labelExpires], 10, 64)
	if err != nil || seconds <= 0 {
		return time.Time{}, false
	}
	return time.Unix(seconds, 0), true
}
