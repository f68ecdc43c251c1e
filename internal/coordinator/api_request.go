package coordinator

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// maxRequest is how large a runner's request for a job may be: GitLab's front end allows no more.
const maxRequest = 32 << 10

// request hands out a job, or holds the call until there is one (gitlab-server 1.3).
func (a *runnerAPI) request(w http.ResponseWriter, r *http.Request) {
	body, ok := a.readUpTo(w, r, maxRequest)
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
		replyNoJob(body.LastUpdate)(w)
		return
	}
}

func replyNoJob(lastUpdate string) reply {
	return func(w http.ResponseWriter) {
		w.Header().Set("X-GitLab-Last-Update", lastUpdate)
		w.WriteHeader(http.StatusNoContent)
	}
}

// offer answers with a job or with 204, unless the runner knows already that there is nothing for it: then it returns
// what to wait for.
func (a *runnerAPI) offer(r *http.Request, rn *runner, body runnerBody) (reply, <-chan struct{}) {
	b := a.c.book
	m := b.meet(rn, body.SystemID, body.Info)
	value := rn.queue
	if body.LastUpdate == value && a.c.options.LongPoll > 0 {
		return nil, rn.bell.wait()
	}
	if rn.Spec.Paused || body.LastUpdate == value || r.Context().Err() != nil {
		return replyNoJob(value), nil
	}
	payload, err := b.hand(rn, m, a.c.base(r), a.c.options.JobTimeout)
	switch {
	case err != nil:
		return replyFault(err), nil
	case payload != nil:
		return replyJSON(http.StatusCreated, payload), nil
	}
	return replyNoJob(value), nil
}

// hand finds a job for the runner, and starts it. No job is (nil, nil). On an error no job was started.
func (b *book) hand(rn *runner, m *Manager, base string, timeout time.Duration) (*tranter.Job, error) {
	mine, running := b.candidates(rn)
	for depth, j := range mine {
		if lacking := unsupported(j, m.Info.Features); lacking != "" {
			b.fail(j, runnerUnsupported, "the runner does not support "+lacking)
			continue
		}
		before := j.jobState
		b.move(j, Running)
		j.Hold = hold{
			Runner: rn.ID, System: m.SystemID, Graceful: m.Info.Features.CancelGracefully, Reset: m.Info.Features.TraceReset,
			Timeout: timeoutFor(rn, j, timeout),
		}
		p, err := (&order{job: j, project: b.project(j.run.Project), runner: rn, base: base, server: b.settings.Instance}).payload()
		if err != nil {
			b.log.Error("a job could not be handed out", slog.Int64("job", j.ID), slog.Any("error", err))
			b.fail(j, schedulerFailure, err.Error())
			continue
		}
		if j.Raw == nil {
			p.Info.QueueSize, p.Info.QueueDepth = int64(len(mine)), int64(depth)+1
			p.Info.ProjectJobsRunning = jobsRunning(rn, running[j.run.Project])
		}
		err = b.keep(j, before)
		_ = b.settle() // what cannot be saved now is concluded again
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	_ = b.settle()
	return nil, nil
}

// jobsRunning is a rough count, for runners that serve the whole instance.
func jobsRunning(rn *runner, n int) string {
	switch {
	case rn.Spec.Type != instanceRunner:
		return "+Inf"
	case n >= 5:
		return "5+"
	}
	return strconv.Itoa(n)
}

func timeoutFor(rn *runner, j *job, fallback time.Duration) time.Duration {
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
		{strings.HasPrefix(j.run.Commit.Ref, "refs/"), f.Refspecs, "a ref that is neither branch nor tag"},
	} {
		if demand.needed && !demand.have {
			return fmt.Sprintf("what %s needs", demand.what)
		}
	}
	return ""
}
