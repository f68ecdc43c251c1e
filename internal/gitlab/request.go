package gitlab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

type requestBody struct {
	Info       info           `json:"info"`
	Token      tranter.Secret `json:"token"`
	SystemID   string         `json:"system_id"`
	LastUpdate string         `json:"last_update,omitempty"`
	// Session is how the job's terminal is reached (runner contract, section 1.14).
	Session *tranter.Access `json:"session,omitempty"`
}

const (
	maxAsks   = 3                      // of one Request
	leastHold = 250 * time.Millisecond // an answer that takes longer was held back until something happened
)

// Request asks for one job (runner contract, section 1.7). No job is (nil, nil). ErrForbidden means that the token is
// not valid (any more), an UnavailableError that the server is busy, or asks for a longer pause than a few seconds.
//
// Some answers mean that it pays to ask again soon (server contract, section 1.3), and Request does that, a few times:
// somebody else was faster (409); the queue has changed since it was asked for last, so that the next request can be
// held until there is a job; a held request has ended without saying more, as it does when there is a job.
//
// The end of ctx does not cut off a request that is under way, because the server may just be handing out a job: the
// answer is waited for, up to Options.Drain. A job that it brings goes to r.Unclaimed, or is reported as failed. What
// remains is the moment in which the connection is closed then: a job that is handed out in it is lost, and the server
// ends it when its runner has been silent for an hour.
func (c *Client) Request(ctx context.Context, r tranter.Request) (*tranter.Job, error) {
	for n := 1; ; n++ {
		before, start := c.queue(), time.Now()
		job, status, err := c.requestOnce(ctx, r)
		if job != nil || err != nil || n == maxAsks || ctx.Err() != nil {
			return job, err
		}
		if status == http.StatusConflict {
			if err := c.pause(ctx, c.backoff(n)); err != nil {
				return nil, fmt.Errorf("request a job: %w", err)
			}
			continue
		}
		held := before != "" && time.Since(start) >= leastHold
		if r.NoHold || !held && c.queue() == before {
			return nil, nil
		}
	}
}

// requestOnce returns the answer's status besides the job.
func (c *Client) requestOnce(ctx context.Context, r tranter.Request) (*tranter.Job, int, error) {
	body := requestBody{Token: c.o.Token, SystemID: c.o.SystemID, Session: r.Access}
	body.Info, body.LastUpdate = c.introduce(r)
	q, err := c.runnerCall("request a job", http.MethodPost, "jobs/request", body)
	if err != nil {
		return nil, 0, err
	}
	q.want, q.timeout, q.linger, q.patience = http.StatusCreated, requestTimeout, c.o.Drain, shortPatience
	a, err := c.exchange(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	c.noteQueue(a.header.Get("X-GitLab-Last-Update"))
	switch {
	case a.status == http.StatusCreated:
		job, err := c.receive(ctx, a, r.Unclaimed)
		return job, a.status, err
	case ctx.Err() != nil:
		return nil, a.status, q.failure(ctx, ctx.Err())
	case a.status == http.StatusNoContent, a.status == http.StatusConflict:
		return nil, a.status, nil
	}
	return nil, a.status, q.refusal(a)
}

// introduce keeps what the server is told now, and returns it with the queue's last known value. A server holds a
// request only if that value is sent, so it is left out of one that must not be held (server contract, section 1.3).
func (c *Client) introduce(r tranter.Request) (info, string) {
	about := c.info(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.about = about
	if r.NoHold {
		return about, ""
	}
	return about, c.lastUpdate
}

// queue is the last known value of the server's queue of jobs for this runner.
func (c *Client) queue() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastUpdate
}

func (c *Client) noteQueue(value string) {
	if value == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastUpdate = value
}

// receive takes a job from an answer. A job that was handed out is passed on or reported as failed, never forgotten.
func (c *Client) receive(ctx context.Context, a *answer, unclaimed func(*tranter.Job)) (*tranter.Job, error) {
	job, err := decodeJob(a)
	if err != nil {
		return nil, c.undecodable(ctx, a, err)
	}
	job.Local = c.transport.local(a.tls)
	job.Local[tranter.LocalCorrelationID] = a.id
	if ctx.Err() == nil {
		return job, nil
	}
	stopped := fmt.Errorf("request a job: %w", context.Cause(ctx))
	if unclaimed != nil {
		unclaimed(job)
		return nil, stopped
	}
	err = c.giveBack(ctx, job.Ref(), "The runner was stopping when it received the job, so it could not run it.")
	return nil, errors.Join(stopped, err)
}

// decodeJob reads a payload (runner contract, section 2).
func decodeJob(a *answer) (*tranter.Job, error) {
	var job tranter.Job
	if err := a.decode(&job); err != nil {
		return nil, err
	}
	if job.ID <= 0 || job.Token == "" {
		return nil, errors.New("the answer names no job and token")
	}
	return &job, nil
}

// undecodable reports a job whose payload can't be read as failed, if it can be told which one it is.
func (c *Client) undecodable(ctx context.Context, a *answer, cause error) error {
	ref, ok := salvage(a.body)
	if !ok {
		return fmt.Errorf("request a job: the server handed out a job, but which one it is can't be read: %w", cause)
	}
	if err := c.giveBack(ctx, ref, "The runner could not read the job's payload: "+shorten(cause.Error())); err != nil {
		return fmt.Errorf("request a job: the payload of job %d can't be read (%w), and the job could not be reported as failed: %w", ref.ID, cause, err)
	}
	return fmt.Errorf("request a job: the payload of job %d can't be read; the job was reported as failed: %w", ref.ID, cause)
}

// salvage finds id and token in a payload that can't be decoded as a whole.
func salvage(data []byte) (tranter.JobRef, bool) {
	var ref tranter.JobRef
	d := json.NewDecoder(strings.NewReader(string(data)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return ref, false
	}
	for ref.ID == 0 || ref.Token == "" {
		key, err := d.Token()
		if err != nil || key == json.Delim('}') {
			return ref, false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return ref, false
		}
		switch key {
		case "id":
			err = json.Unmarshal(value, &ref.ID)
		case "token":
			err = json.Unmarshal(value, &ref.Token)
		}
		if err != nil {
			return ref, false
		}
	}
	return ref, ref.ID > 0
}

// giveBackLimit is for all of giveBack: a runner that stops waits for it.
const giveBackLimit = 20 * time.Second

// giveBack reports a job that can't be run as failed, with a line in its log that says why.
func (c *Client) giveBack(ctx context.Context, job tranter.JobRef, why string) error {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackLimit)
	defer cancel()
	u := tranter.Update{State: tranter.JobFailed, Reason: tranter.RunnerSystemFailure}
	u.LogBytes, u.Checksum = c.lastWord(late, job, why)
	for {
		a, err := c.Update(late, job, u)
		if err == nil && a.Verdict != tranter.NotYet && a.Verdict != tranter.Resend {
			return nil
		}
		if a.Verdict == tranter.Resend {
			u.LogBytes, u.Checksum = 0, ""
		}
		if stopped := c.pause(late, max(a.Interval, time.Second)); stopped != nil {
			return fmt.Errorf("report job %d as failed: %w", job.ID, cmp.Or(err, stopped))
		}
	}
}

// lastWord writes why the job fails as the one line of its log. It is not worth much of the time that is left.
func (c *Client) lastWord(ctx context.Context, job tranter.JobRef, why string) (int64, string) {
	brief, cancel := context.WithTimeout(ctx, giveBackLimit/4)
	defer cancel()
	line := []byte("\x1b[31;1mERROR: Job failed (system failure): " + why + "\x1b[0;m\n")
	a, err := c.Append(brief, job, 0, line)
	if err != nil || a.Next != int64(len(line)) {
		return 0, ""
	}
	return a.Next, checksum(line)
}
