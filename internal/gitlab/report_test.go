package gitlab

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
)

func status(name string) map[string]string { return map[string]string{"Job-Status": name} }

func TestUpdateAnswers(t *testing.T) {
	accepted := tranter.Answer{}
	aborted := tranter.Answer{Verdict: tranter.Gone, Stop: tranter.StopAbort}
	for name, tc := range map[string]struct {
		reply reply
		want  tranter.Answer
		is    error
		fails bool
	}{
		"accepted":               {reply: reply{status: 200, body: "200", header: status("running")}, want: accepted},
		"asked to cancel":        {reply: reply{status: 200, header: status("canceling")}, want: tranter.Answer{Stop: tranter.StopCancel}},
		"canceled":               {reply: reply{status: 200, header: status("canceled")}, want: aborted},
		"failed":                 {reply: reply{status: 200, header: status("failed")}, want: aborted},
		"canceled by the header": {reply: reply{status: 400, header: status("canceled")}, want: aborted},
		"forbidden":              {reply: reply{status: 403, body: `{"message":"403 Forbidden"}`}, want: aborted},
		"unknown":                {reply: reply{status: 404}, want: aborted},
		"not yet":                {reply: reply{status: 202, header: map[string]string{"X-GitLab-Trace-Update-Interval": "4"}}, want: tranter.Answer{Verdict: tranter.NotYet, Interval: 4 * time.Second}},
		"resend":                 {reply: reply{status: 412, header: status("running")}, want: tranter.Answer{Verdict: tranter.Resend}},
		"resend and cancel":      {reply: reply{status: 412, header: status("canceling")}, want: tranter.Answer{Verdict: tranter.Resend, Stop: tranter.StopCancel}},
		"bad":                    {reply: reply{status: 400, body: `{"error":"state does not have a valid value"}`}, fails: true},
		"unauthorised":           {reply: reply{status: 401}, is: tranter.ErrForbidden, fails: true},
		"conflict":               {reply: reply{status: 409}, fails: true},
		"down":                   {reply: reply{status: 503}, fails: true},
		"no interval":            {reply: reply{status: 200, header: map[string]string{"X-GitLab-Trace-Update-Interval": "-4"}}, want: accepted},
		"long interval":          {reply: reply{status: 200, header: map[string]string{"X-GitLab-Trace-Update-Interval": "99999999999"}}, want: tranter.Answer{Interval: 15 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.reply)
			got, err := connect(t, s.URL).Update(t.Context(), theJob(), tranter.Update{State: tranter.JobRunning})
			discreet(t, err)
			if (err != nil) != tc.fails || tc.is != nil && !errors.Is(err, tc.is) || !cmp.Equal(got, tc.want) {
				t.Errorf("%+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
}

func TestWhatAnUpdateTells(t *testing.T) {
	for name, tc := range map[string]struct {
		u    tranter.Update
		want string // without info
	}{
		"accepting": {tranter.Update{State: tranter.JobRunning}, `{"output":{},"state":"running","token":"` + jobToken + `"}`},
		"failed": {
			tranter.Update{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 2, Checksum: "crc32:363a3020", LogBytes: 6},
			`{"checksum":"crc32:363a3020","exit_code":2,"failure_reason":"script_failure","output":{"bytesize":6,"checksum":"crc32:363a3020"},"state":"failed","token":"` + jobToken + `"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, reply{status: 200})
			c := connect(t, s.URL, func(o *Options) { o.Runner.Executor = "shell" })
			if _, err := c.Update(t.Context(), theJob(), tc.u); err != nil {
				t.Fatal(err)
			}
			call := s.seen()[0]
			var body map[string]any
			if err := json.Unmarshal([]byte(call.body), &body); err != nil {
				t.Fatal(err)
			}
			if executor := body["info"].(map[string]any)["executor"]; executor != "shell" {
				t.Errorf("info.executor = %v", executor)
			}
			delete(body, "info")
			got, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.want || call.method != "PUT" || call.path != "/api/v4/jobs/77" || call.header.Get("Job-Token") != jobToken {
				t.Errorf("%s %s %s\nwant %s", call.method, call.path, got, tc.want)
			}
		})
	}
}

func TestAppendAnswers(t *testing.T) {
	at := func(r string) map[string]string { return map[string]string{"Range": r} }
	aborted := tranter.Answer{Verdict: tranter.Gone, Stop: tranter.StopAbort, Next: 5}
	for name, tc := range map[string]struct {
		reply reply
		want  tranter.Answer
		is    error
		fails bool
	}{
		"taken":                  {reply: reply{status: 202, header: map[string]string{"Range": "0-11", "Job-Status": "running", "X-GitLab-Trace-Update-Interval": "60"}}, want: tranter.Answer{Next: 11, Interval: time.Minute}},
		"taken, asked to cancel": {reply: reply{status: 202, header: status("canceling")}, want: tranter.Answer{Next: 11, Stop: tranter.StopCancel}},
		"canceled":               {reply: reply{status: 202, header: status("canceled")}, want: aborted},
		"failed":                 {reply: reply{status: 416, header: status("failed")}, want: aborted},
		"forbidden":              {reply: reply{status: 403}, want: aborted},
		"server has less":        {reply: reply{status: 416, header: at("0-3")}, want: tranter.Answer{Next: 3}},
		"server has more":        {reply: reply{status: 416, header: at("0-4711")}, want: tranter.Answer{Next: 4711}},
		"server has nothing":     {reply: reply{status: 416, header: at("0-0")}, want: tranter.Answer{}},
		"server says nothing":    {reply: reply{status: 416}, want: tranter.Answer{}},
		"server says nonsense":   {reply: reply{status: 416, header: at("many")}, want: tranter.Answer{}},
		"not found":              {reply: reply{status: 404}, is: tranter.ErrNotFound, fails: true},
		"ok is not accepted":     {reply: reply{status: 200}, fails: true},
		"down":                   {reply: reply{status: 502}, fails: true},
		"too large":              {reply: reply{status: 413}, is: tranter.ErrTooLarge, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.reply)
			job := theJob()
			job.Debug = true
			got, err := connect(t, s.URL).Append(t.Context(), job, 5, []byte("hello\n"))
			discreet(t, err)
			if (err != nil) != tc.fails || tc.is != nil && !errors.Is(err, tc.is) || !cmp.Equal(got, tc.want) {
				t.Errorf("%+v, %v, want %+v", got, err, tc.want)
			}
			call := s.seen()[0]
			if call.method != "PATCH" || call.path != "/api/v4/jobs/77/trace" || call.query != "debug_trace=true" || call.body != "hello\n" ||
				call.header.Get("Content-Range") != "5-10" || call.header.Get("Content-Type") != "text/plain" || call.header.Get("Job-Token") != jobToken {
				t.Errorf("request: %+v", call)
			}
		})
	}
}

func TestNothingToAppend(t *testing.T) {
	s := newScript(t, reply{status: 500})
	if a, err := connect(t, s.URL).Append(t.Context(), theJob(), 9, nil); err != nil || a.Next != 9 || len(s.seen()) != 0 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestChecksum(t *testing.T) {
	if a, b := checksum(nil), checksum([]byte("hello\n")); a != "crc32:00000000" || b != "crc32:363a3020" {
		t.Error(a, b)
	}
}
