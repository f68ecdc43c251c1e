package job

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// CacheSigner lets a phase reach a distributed cache without credentials. It is safe for concurrent use.
type CacheSigner interface {
	// Sign fills in Remote of the phase's caches with requests that hold until the given time, if the storage allows that.
	// Caches for which it fails are left as they are; the error, without secrets, says why.
	Sign(ctx context.Context, phase *tranter.Phase, until time.Time) error
}

// UploadAborter is a CacheSigner at whose storage an upload, once begun, stays until it is completed or undone.
type UploadAborter interface {
	// Abort undoes uploads, given by the Abort requests of their parts. One that is not there any more is fine.
	Abort(ctx context.Context, begun []tranter.SignedRequest) error
}

const (
	// signLimit is how long a job waits for its distributed cache before it goes on without.
	signLimit = 15 * time.Second
	// signMargin is how long after the job's deadline requests hold: clocks differ.
	signMargin = 5 * time.Minute
	abortLimit = 30 * time.Second
)

// caches is a job's hold on its distributed cache.
type caches struct {
	signer CacheSigner // nil: there is none
	log    *slog.Logger
	warn   func(text string) // into the job's log
}

func cachesOf(r *run) caches {
	return caches{signer: r.Caches, log: r.Log.With("job", r.Record.Job.ID), warn: func(text string) {
		l := joblog.New(r.trace, r.plan.Format(), time.Now)
		l.Warning("%s", text)
		r.closeLog(l)
	}}
}

// sign has the phase's caches signed, and returns what was begun for that. That they can't be reached is no reason to fail
// a job.
func (c caches) sign(ctx context.Context, p *tranter.Phase, until time.Time) []tranter.SignedRequest {
	if c.signer == nil {
		return nil
	}
	limited, stop := context.WithTimeout(ctx, signLimit)
	defer stop()
	if err := c.signer.Sign(limited, p, until); err != nil && ctx.Err() == nil { // else the job ends here
		text := strings.ReplaceAll(err.Error(), "\n", "; ")
		c.log.Warn("A distributed cache cannot be used", "error", text)
		c.warn("The distributed cache cannot be used, only the one of this machine: " + text)
	}
	return begun(p)
}

// begun returns the uploads of a phase that may have to be undone.
func begun(p *tranter.Phase) []tranter.SignedRequest {
	var out []tranter.SignedRequest
	for _, step := range p.Steps {
		if step.Archive == nil {
			continue
		}
		for _, entry := range step.Archive.Caches {
			for _, remote := range entry.Remote {
				if up := remote.Upload; up == nil || up.Parts == nil || up.Parts.Protocol != tranter.PartsS3 || up.Parts.Abort == nil {
					continue
				}
				abort := *remote.Upload.Parts.Abort
				if !slices.ContainsFunc(out, func(o tranter.SignedRequest) bool { return o.URL == abort.URL }) {
					out = append(out, abort)
				}
			}
		}
	}
	return out
}

// abort undoes the uploads that the job's agent has not completed: the storage would keep, and charge for, their parts.
func (c caches) abort(ctx context.Context, begun []tranter.SignedRequest) {
	a, ok := c.signer.(UploadAborter)
	if !ok || len(begun) == 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), abortLimit)
	defer stop()
	if err := a.Abort(ctx, begun); err != nil {
		c.log.Warn("Uploads to the distributed cache that were not completed could not be undone", "error", err)
	}
}
