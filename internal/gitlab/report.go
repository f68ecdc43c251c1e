package gitlab

import (
	"context"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

type updateBody struct {
	Info     info                  `json:"info"`
	Token    tranter.Secret        `json:"token"`
	State    tranter.JobState      `json:"state"`
	Reason   tranter.FailureReason `json:"failure_reason,omitempty"`
	Checksum string                `json:"checksum,omitempty"` // for old servers
	Output   updateOutput          `json:"output"`
	ExitCode int                   `json:"exit_code,omitempty"`
}

type updateOutput struct {
	Checksum string `json:"checksum,omitempty"`
	Bytes    int64  `json:"bytesize,omitempty"`
}

// Update reports a job's state (runner contract, section 1.8). Gone means that the server has ended the job or does not
// know it, which is also the answer to a report that a job has failed when the server knew that already. A connection
// that fails is an error at once; the caller tries again.
func (c *Client) Update(ctx context.Context, job tranter.JobRef, u tranter.Update) (tranter.Answer, error) {
	q := c.jobCall("update the job", http.MethodPut, job, "")
	err := q.setJSON(updateBody{
		Info: c.told(), Token: job.Token, State: u.State, Reason: u.Reason,
		Checksum: u.Checksum, Output: updateOutput{Checksum: u.Checksum, Bytes: u.LogBytes}, ExitCode: u.ExitCode,
	})
	if err != nil {
		return tranter.Answer{}, err
	}
	a, err := c.exchange(ctx, q)
	if err != nil {
		return tranter.Answer{}, err
	}
	out := a.wishes()
	switch {
	case a.gone(), a.status == http.StatusNotFound:
		out.Verdict, out.Stop = tranter.Gone, tranter.StopAbort
	case a.status == http.StatusOK:
		out.Verdict = tranter.Accepted
	case a.status == http.StatusAccepted:
		out.Verdict = tranter.NotYet
	case a.status == http.StatusPreconditionFailed:
		out.Verdict = tranter.Resend
	default:
		return tranter.Answer{}, q.refusal(a)
	}
	return out, nil
}

// Append sends a part of a job's log (runner contract, section 1.8). An empty part is not sent. ErrNotFound is not the
// end of the job: a running one is told by Update; at its end the rest of the log can't be sent.
func (c *Client) Append(ctx context.Context, job tranter.JobRef, offset int64, log []byte) (tranter.Answer, error) {
	end := offset + int64(len(log))
	if len(log) == 0 {
		return tranter.Answer{Next: end}, nil
	}
	q := c.jobCall("send the job's log", http.MethodPatch, job, "/trace")
	q.url.RawQuery = url.Values{"debug_trace": {strconv.FormatBool(job.Debug)}}.Encode()
	q.header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, end-1))
	q.setBody(log, "text/plain")
	a, err := c.exchange(ctx, q)
	if err != nil {
		return tranter.Answer{}, err
	}
	out := a.wishes()
	switch {
	case a.gone():
		out.Verdict, out.Stop, out.Next = tranter.Gone, tranter.StopAbort, offset
	case a.status == http.StatusAccepted:
		out.Next = end
	case a.status == http.StatusRequestedRangeNotSatisfiable:
		out.Next = parseRange(a.header.Get("Range"))
	default:
		return tranter.Answer{}, q.refusal(a)
	}
	return out, nil
}

// gone says whether the server does not want to hear of the job any more.
func (a *answer) gone() bool {
	status := a.header.Get("Job-Status")
	return status == "canceled" || status == "failed" || a.status == http.StatusForbidden
}

// wishes reads what the server asks for besides.
func (a *answer) wishes() tranter.Answer {
	var out tranter.Answer
	if a.header.Get("Job-Status") == "canceling" {
		out.Stop = tranter.StopCancel
	}
	out.Interval = parseInterval(a.header.Get("X-GitLab-Trace-Update-Interval"))
	return out
}

// maxInterval is the longest time between reports that a server can ask for.
const maxInterval = 15 * time.Minute

// parseInterval reads whole seconds; 0: none.
func parseInterval(text string) time.Duration {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	return time.Duration(min(n, int64(maxInterval/time.Second))) * time.Second
}

// parseRange reads from "0-N" that the server has N bytes. What can't be read counts as 0: all is sent again.
func parseRange(text string) int64 {
	_, last, ok := strings.Cut(text, "-")
	n, err := strconv.ParseInt(strings.TrimSpace(last), 10, 64)
	if !ok || err != nil || n < 0 {
		return 0
	}
	return n
}

func checksum(log []byte) string { return fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(log)) }
