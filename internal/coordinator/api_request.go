package coordinator

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/tranter-ci/tranter"
)

// request hands out a job, or holds the call until there is one (gitlab-server 1.3).
func (a *runnerAPI) request(w http.ResponseWriter, r *http.Request) {
	body, ok := a.read(w, r)
	if !ok {
		return
	}
	w.Header().Set("Gitlab-Ci-Builds-Polling", "yes")
	wait := time.NewTimer(max(a.c.options.LongPoll, 0))
	defer wait.Stop()
	for {
		var changed <-chan struct{}
		a.with(w, body, func(rn *runner) reply {
			var send reply
			send, changed = a.offer(r, rn, body)
			return send
		})
		if changed == nil {
			return
		}
		select {
		case <-changed:
			continue
		case <-wait.C:
		case <-r.Context().Done():
		case <-a.c.closing:
		}
		w.Header().Set("X-GitLab-Last-Update", body.LastUpdate)
		w.WriteHeader(http.StatusNoContent)
		return
	}
}

// offer answers with a job or with 204, unless the runner knows already that there is nothing for it: then it returns
// what to wait for.
func (a *runnerAPI) offer(r *http.Request, rn *runner, body runnerBody) (reply, <-chan struct{}) {
	b := a.c.book
	m := b.meet(rn, body.SystemID, body.Info)
	value := rn.queue
	if body.LastUpdate == value && a.c.options.LongPoll > 0 {
		return nil, b.changed
	}
	if !rn.Spec.Paused && body.LastUpdate != value && r.Context().Err() == nil {
		if payload := b.hand(rn, m, a.c.base(r), a.c.options.JobTimeout); payload != nil {
			return replyJSON(http.StatusCreated, payload), nil
		}
	}
	return func(w http.ResponseWriter) {
		w.Header().Set("X-GitLab-Last-Update", value)
		w.WriteHeader(http.StatusNoContent)
	}, nil
}

// hand finds a job for the runner, and starts it.
func (b *book) hand(rn *runner, m *Manager, base string, timeout time.Duration) *tranter.Job {
	var mine []*job
	for _, j := range b.pending() {
		if rn.takes(j) {
			mine = append(mine, j)
		}
	}
	for depth, j := range mine {
		if lacking := unsupported(j, m.Info.Features); lacking != "" {
			b.fail(j, runnerUnsupported, "the runner does not support "+lacking)
			continue
		}
		b.move(j, Running)
		j.Hold = hold{
			Runner: rn.ID, System: m.SystemID, Graceful: m.Info.Features.CancelGracefully, Reset: m.Info.Features.TraceReset,
			Timeout: b.timeout(rn, j, timeout),
		}
		p, err := b.payload(j, rn, base)
		if err != nil {
			b.log.Error("a job could not be handed out", slog.Int64("job", j.ID), slog.Any("error", err))
			b.fail(j, schedulerFailure, err.Error())
			continue
		}
		p.Info.QueueSize, p.Info.QueueDepth = int64(len(mine)), int64(depth)
		if b.settle() != nil {
			return nil // it is pending again after a restart; a silent runner loses it
		}
		return p
	}
	_ = b.settle() // logged
	return nil
}

func (b *book) timeout(rn *runner, j *job, fallback time.Duration) time.Duration {
	t := j.Spec.Timeout
	if t <= 0 {
		t = j.run.Timeout
	}
	if j.Raw != nil && j.Raw.Runner.Timeout > 0 {
		t = time.Duration(j.Raw.Runner.Timeout) * time.Second
	}
	if t <= 0 {
		t = fallback
	}
	if limit := rn.Spec.MaximumTimeout; limit > 0 {
		t = min(t, limit)
	}
	return t
}

// unsupported names what the job needs and the runner does not promise (gitlab-server 2.2, features demanded).
func unsupported(j *job, f tranter.Features) string {
	if j.Raw != nil {
		return ""
	}
	s := &j.Spec
	reports, exclude, fallback := false, false, false
	for _, a := range s.Artifacts {
		reports = reports || a.Type != "" && a.Type != archiveType
		exclude = exclude || len(a.Exclude) > 0
	}
	for _, c := range s.Cache {
		fallback = fallback || len(c.FallbackKeys) > 0
	}
	for _, demand := range []struct {
		needed, have bool
		what         string
	}{
		{reports, f.UploadMultipleArtifacts, "artifacts:reports"},
		{exclude, f.ArtifactsExclude, "artifacts:exclude"},
		{given(s.Release), f.MultiBuildSteps, "release"},
		{len(s.AllowFailureCodes) > 0 || len(s.Retry.ExitCodes) > 0, f.ReturnExitCode, "exit_codes"},
		{fallback, f.FallbackCacheKeys, "cache:fallback_keys"},
		{given(s.Inputs), f.JobInputs, "inputs"},
	} {
		if demand.needed && !demand.have {
			return fmt.Sprintf("what %s needs", demand.what)
		}
	}
	return ""
}
