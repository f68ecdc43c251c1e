package notice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// aws is Amazon EC2's server, version 2: every question needs a token.
type aws struct {
	*client
	token    string
	renew    time.Time // of the token
	onDemand bool      // no spot machine: only its host's repairs matter
	events   time.Time // when they were asked for last
}

const (
	awsToken  = "/latest/api/token"
	awsID     = "/latest/meta-data/instance-id"
	awsKind   = "/latest/meta-data/instance-life-cycle"
	awsSpot   = "/latest/meta-data/spot/instance-action"
	awsEvents = "/latest/meta-data/events/maintenance/scheduled"

	tokenLife = 6 * time.Hour // the longest there is

	spotEvery  = 10 * time.Second // a spot machine has two minutes
	eventEvery = time.Minute      // the rest has hours
)

func (a *aws) every() time.Duration {
	if a.onDemand {
		return eventEvery
	}
	return spotEvery
}

func (a *aws) here(ctx context.Context) (bool, error) {
	if err := a.login(ctx); err != nil {
		if _, ok := errors.AsType[*noTokenError](err); ok {
			return false, nil
		}
		return false, err
	}
	id, err := a.get(ctx, awsID)
	if err != nil || id.status != http.StatusOK || !bytes.HasPrefix(id.body, []byte("i-")) || !word(id.body) {
		return false, err
	}
	kind, err := a.get(ctx, awsKind)
	if err != nil {
		return false, err
	}
	a.onDemand = kind.status == http.StatusOK && string(kind.body) == "on-demand"
	return true, nil
}

// noTokenError means that a server does not give tokens: it is another cloud's.
type noTokenError struct{ status int }

func (e *noTokenError) Error() string { return unexpected(awsToken, e.status).Error() }

func (a *aws) login(ctx context.Context) error {
	now := time.Now()
	t, err := a.client.ask(ctx, question{
		method: http.MethodPut, path: awsToken,
		header: "X-aws-ec2-metadata-token-ttl-seconds", value: fmt.Sprint(int(tokenLife.Seconds())),
	})
	if err != nil {
		return err
	}
	if t.status != http.StatusOK || !word(t.body) {
		return &noTokenError{t.status}
	}
	a.token, a.renew = string(t.body), now.Add(tokenLife/2)
	return nil
}

// get asks with a token, with a new one if the server does not take it any more.
func (a *aws) get(ctx context.Context, path string) (answer, error) {
	for tries := 0; ; tries++ {
		if time.Now().After(a.renew) {
			if err := a.login(ctx); err != nil {
				return answer{}, err
			}
		}
		got, err := a.client.ask(ctx, question{path: path, header: "X-aws-ec2-metadata-token", value: a.token})
		if err != nil || got.status != http.StatusUnauthorized || tries > 0 {
			return got, err
		}
		a.renew = time.Time{}
	}
}

func (a *aws) ask(ctx context.Context) (Notice, bool, error) {
	if !a.onDemand {
		if n, ok, err := a.look(ctx, awsSpot, parseAWSAction); ok || err != nil {
			return n, ok, err
		}
	}
	now := time.Now()
	if !a.onDemand && now.Sub(a.events) < eventEvery {
		return Notice{}, false, nil
	}
	n, ok, err := a.look(ctx, awsEvents, parseAWSEvents)
	if err == nil {
		a.events = now
	}
	return n, ok, err
}

// look asks for what is there only if there is a notice.
func (a *aws) look(ctx context.Context, path string, parse func([]byte) (Notice, bool, error)) (Notice, bool, error) {
	got, err := a.get(ctx, path)
	switch {
	case err != nil:
		return Notice{}, false, err
	case got.status == http.StatusNotFound:
		return Notice{}, false, nil
	case got.status != http.StatusOK:
		return Notice{}, false, unexpected(path, got.status)
	}
	return parse(got.body)
}

func parseAWSAction(body []byte) (Notice, bool, error) {
	var action struct{ Action, Time string }
	if err := json.Unmarshal(body, &action); err != nil {
		return Notice{}, false, fmt.Errorf("understand the spot machine's notice: %w", err)
	}
	switch action.Action {
	case "terminate", "stop", "hibernate":
		at, _ := time.Parse(time.RFC3339, action.Time)
		return Notice{Reason: "the cloud takes the spot machine back (" + action.Action + ")", At: at}, true, nil
	}
	return Notice{}, false, errors.New("understand the spot machine's notice: it has no action that is known")
}

// parseAWSEvents finds the first of the events that are still to come.
func parseAWSEvents(body []byte) (Notice, bool, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return Notice{}, false, nil
	}
	var events []struct{ Code, State, NotBefore string }
	if err := json.Unmarshal(body, &events); err != nil {
		return Notice{}, false, fmt.Errorf("understand the cloud's planned events: %w", err)
	}
	var first Notice
	found := false
	for _, e := range events {
		if e.State != "" && e.State != "active" {
			continue // done, or called off
		}
		switch e.Code {
		case "instance-reboot", "system-reboot", "system-maintenance", "instance-retirement", "instance-stop":
			at, _ := time.Parse("2 Jan 2006 15:04:05 MST", e.NotBefore)
			if !found || at.Before(first.At) {
				first, found = Notice{Reason: "the cloud has planned an event for the machine (" + e.Code + ")", At: at}, true
			}
		}
	}
	return first, found, nil
}
