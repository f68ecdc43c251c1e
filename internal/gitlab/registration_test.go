package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
)

const newToken = "glrt-t1_ABCDEFGHIJKLMNOPQRST"

func TestRegistrationCalls(t *testing.T) {
	calls := map[string]func(context.Context, *Client) (Registered, error){
		"register": func(ctx context.Context, c *Client) (Registered, error) {
			return c.Register(ctx, RegisterParams{
				Token: "GR1348941aBcDeFgHiJkLmN", Description: "d", MaintenanceNote: "n", Tags: []string{"a", "b"}, RunUntagged: true,
				Locked: true, Paused: true, AccessLevel: "ref_protected", MaximumTimeout: 90 * time.Minute,
			})
		},
		"verify": func(ctx context.Context, c *Client) (Registered, error) { return c.Verify(ctx) },
		"reset":  func(ctx context.Context, c *Client) (Registered, error) { return c.ResetToken(ctx) },
		"reset with PAT": func(ctx context.Context, c *Client) (Registered, error) {
			return c.ResetTokenWithPAT(ctx, 12, "glpat-0123456789abcdefghij")
		},
		"unregister": func(ctx context.Context, c *Client) (Registered, error) { return Registered{}, c.Unregister(ctx) },
	}
	expiry := time.Date(2027, 1, 5, 11, 0, 0, 0, time.UTC)
	json201 := func(body string) reply { return reply{status: 201, body: body} }
	for name, tc := range map[string]struct {
		call, change string
		token        tranter.Secret
		reply        reply
		want         Registered
		is, isNot    error
		text         string
		request      string // method and path
		header       string // its name and value
		body         string // without info
	}{
		"register": {
			call: "register", reply: json201(`{"id":12,"token":"` + newToken + `","token_expires_at":"2027-01-05T12:00:00+01:00"}`),
			want: Registered{12, newToken, expiry}, request: "POST runners", header: "Runner-Token: GR1348941aBcDeFgHiJkLmN",
			body: `{"access_level":"ref_protected","description":"d","locked":true,"maintenance_note":"n","maximum_timeout":5400,"paused":true,"run_untagged":true,"tag_list":"a,b","token":"GR1348941aBcDeFgHiJkLmN"}`,
		},
		"register, no expiry": {call: "register", reply: json201(`{"id":12,"token":"` + newToken + `","token_expires_at":null}`), want: Registered{ID: 12, Token: newToken}},
		"register, refused":   {call: "register", reply: reply{status: 403}, is: tranter.ErrForbidden, text: "403"},
		"register, no more":   {call: "register", reply: reply{status: 410}, text: "create the runner in GitLab"},
		"register, invalid":   {call: "register", reply: reply{status: 400, body: `{"message":{"tags_list":["can not be empty","is odd"],"a":["b"]}}`}, text: "a: b, tags_list: can not be empty; is odd"},
		"register, ok only":   {call: "register", reply: reply{status: 200, body: `{"id":12,"token":"t"}`}, text: "200 OK"},
		"verify": {
			call: "verify", reply: reply{status: 200, body: `{"id":12,"token":"` + runnerToken + `","token_expires_at":"2027-01-05T11:00:00.000Z"}`},
			want: Registered{12, runnerToken, expiry}, request: "POST runners/verify", header: "Runner-Token: " + runnerToken,
			body: `{"system_id":"s_0123456789ab","token":"` + runnerToken + `"}`,
		},
		"verify, removed":           {call: "verify", reply: reply{status: 403, body: `{"message":"403 Forbidden"}`}, is: tranter.ErrForbidden, text: "verify the runner: forbidden"},
		"verify, old server":        {call: "verify", reply: reply{status: 200, body: "200\n", header: map[string]string{"Content-Type": "text/plain"}}, want: Registered{Token: runnerToken}},
		"verify, a page":            {call: "verify", reply: reply{status: 200, body: "<html>", header: map[string]string{"Content-Type": "text/html"}}, text: "text/html"},
		"verify, no token":          {call: "verify", reply: reply{status: 200, body: `{}`}, text: "is the URL that of a GitLab server?"},
		"verify, a proxy's login":   {call: "verify", reply: reply{status: 401, body: "who are you?"}, isNot: tranter.ErrForbidden, text: "401"},
		"verify, a firewall":        {call: "verify", reply: reply{status: 403, body: "<html><title>Blocked</title>", header: map[string]string{"Content-Type": "text/html"}}, isNot: tranter.ErrForbidden, text: "Blocked"},
		"verify, down":              {call: "verify", reply: reply{status: 502}, text: "502"},
		"unregister":                {call: "unregister", reply: reply{status: 204}, request: "DELETE runners/managers", header: "Runner-Token: " + runnerToken, body: `{"system_id":"s_0123456789ab","token":"` + runnerToken + `"}`},
		"unregister, old token":     {call: "unregister", token: "glrtr-0123456789", reply: reply{status: 204}, request: "DELETE runners", header: "Runner-Token: glrtr-0123456789", body: `{"token":"glrtr-0123456789"}`},
		"unregister, refused":       {call: "unregister", reply: reply{status: 403}, is: tranter.ErrForbidden, text: "403"},
		"unregister, unknown":       {call: "unregister", reply: reply{status: 404, body: `{"message":"404 Runner manager not found"}`}, is: tranter.ErrNotFound, text: "Runner manager not found"},
		"reset":                     {call: "reset", reply: json201(`{"token":"` + newToken + `","token_expires_at":"2027-01-05T11:00:00Z"}`), want: Registered{Token: newToken, TokenExpiresAt: expiry}, request: "POST runners/reset_authentication_token", header: "Runner-Token: ", body: `{"token":"` + runnerToken + `"}`},
		"reset, wrong expiry":       {call: "reset", reply: json201(`{"token":"` + newToken + `","token_expires_at":"soon"}`), want: Registered{Token: newToken}},
		"reset, wrong type":         {call: "reset", reply: reply{status: 201, body: `{"token":"` + newToken + `"}`, header: map[string]string{"Content-Type": "text/plain"}}, want: Registered{Token: newToken}},
		"reset, no token":           {call: "reset", reply: json201(`{}`), text: "brings no token"},
		"reset, refused":            {call: "reset", reply: reply{status: 403}, is: tranter.ErrForbidden, text: "403"},
		"reset, not allowed":        {call: "reset", reply: reply{status: 422, body: `{"message":"rotation deadline"}`}, text: "rotation deadline"},
		"reset with PAT":            {call: "reset with PAT", reply: json201(`{"token":"` + newToken + `"}`), want: Registered{ID: 12, Token: newToken}, request: "POST runners/12/reset_authentication_token", header: "Private-Token: glpat-0123456789abcdefghij"},
		"reset with PAT, forbidden": {call: "reset with PAT", reply: reply{status: 401, body: `{"message":"401 Unauthorized"}`}, is: tranter.ErrForbidden, text: "401"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.reply)
			c := connect(t, s.URL, func(o *Options) {
				if tc.token != "" {
					o.Token = tc.token
				}
			})
			got, err := calls[tc.call](t.Context(), c.Client)
			discreet(t, err)
			if (err != nil) != (tc.text != "") || err != nil && !strings.Contains(err.Error(), tc.text) || tc.is != nil && !errors.Is(err, tc.is) || tc.isNot != nil && errors.Is(err, tc.isNot) {
				t.Fatalf("error %v, want %q", err, tc.text)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			call := s.seen()[0]
			if tc.request != "" && strings.Replace(call.method+" "+call.path, " /api/v4/", " ", 1) != tc.request {
				t.Errorf("%s %s, want %s", call.method, call.path, tc.request)
			}
			if key, value, ok := strings.Cut(tc.header, ": "); ok && call.header.Get(key) != value {
				t.Errorf("header %s: %q", key, call.header.Get(key))
			}
			if tc.body != "" && fields(t, call) != tc.body {
				t.Errorf("body %s, want %s", fields(t, call), tc.body)
			}
		})
	}
}

// fields is the JSON of a request with sorted keys and without info.
func fields(t *testing.T, call seen) string {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(call.body), &all); err != nil {
		t.Fatal(err)
	}
	delete(all, "info")
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What Verify tells is what the server believes for the next 40 minutes.
func TestVerifyTellsWhatTheRunnerCanDo(t *testing.T) {
	s := newScript(t, reply{status: 200, body: `{"id":1,"token":"t"}`})
	c := connect(t, s.URL, func(o *Options) {
		o.Runner = tranter.Request{Executor: "shell", Shell: "bash", Features: tranter.Features{Refspecs: true}}
	})
	if _, err := c.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got struct{ Info info }
	if err := json.Unmarshal([]byte(s.seen()[0].body), &got); err != nil {
		t.Fatal(err)
	}
	if f := got.Info.Features; got.Info.Executor != "shell" || !f.Refspecs || !f.CancelGracefully {
		t.Errorf("info: %+v", got.Info)
	}
}

// When the answer to a reset is lost, so is the runner.
func TestAResetThatIsInterruptedStillBringsTheToken(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newScript(t, reply{status: 201, body: `{"token":"` + newToken + `"}`})
	front := httptest.NewServer(interrupt(s, cancel))
	t.Cleanup(front.Close)
	got, err := connect(t, front.URL).ResetToken(ctx)
	if err != nil || got.Token != newToken {
		t.Errorf("%+v, %v", got.ID, err)
	}
}

// A token of an old runner looks like nothing in particular.
func TestAnEchoedTokenIsMasked(t *testing.T) {
	const old = "aB3dE5gH7jK9mN1pQ3rS"
	s := newScript(t, reply{status: 403, body: `{"message":"unknown: ` + old + `"}`})
	_, err := connect(t, s.URL, func(o *Options) { o.Token = old }).Verify(t.Context())
	if err == nil || !strings.Contains(err.Error(), "unknown: [MASKED]") {
		t.Error(err)
	}
}
