package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// Registered is a runner as its server knows it.
type Registered struct {
	ID             int64
	Token          tranter.Secret
	TokenExpiresAt time.Time // zero: never
}

// RegisterParams describe a runner that is registered with a registration token, the old way.
type RegisterParams struct {
	Token           tranter.Secret // the registration token
	Description     string
	MaintenanceNote string
	Tags            []string
	RunUntagged     bool
	Locked          bool
	Paused          bool
	AccessLevel     string        // not_protected or ref_protected; empty: the server's default
	MaximumTimeout  time.Duration // of jobs; 0: none
}

type registerBody struct {
	Description     string         `json:"description,omitempty"`
	MaintenanceNote string         `json:"maintenance_note,omitempty"`
	Tags            string         `json:"tag_list,omitempty"`
	RunUntagged     bool           `json:"run_untagged"`
	Locked          bool           `json:"locked"`
	AccessLevel     string         `json:"access_level,omitempty"`
	MaximumTimeout  int64          `json:"maximum_timeout,omitempty"`
	Paused          bool           `json:"paused"`
	Info            info           `json:"info"`
	Token           tranter.Secret `json:"token"`
}

// resetLinger is how long the answer to a reset is waited for after its context has ended: when it is lost, so is the
// runner, because its old token is not valid any more.
const resetLinger = 30 * time.Second

// Register makes a runner from a registration token (runner contract, section 1.6). ErrForbidden means that the token is
// not valid.
func (c *Client) Register(ctx context.Context, p RegisterParams) (Registered, error) {
	q, err := c.runnerCall("register the runner", http.MethodPost, "runners", registerBody{
		Description: p.Description, MaintenanceNote: p.MaintenanceNote, Tags: strings.Join(p.Tags, ","),
		RunUntagged: p.RunUntagged, Locked: p.Locked, AccessLevel: p.AccessLevel, Paused: p.Paused,
		MaximumTimeout: int64(p.MaximumTimeout / time.Second), Info: c.info(tranter.Request{}), Token: p.Token,
	})
	if err != nil {
		return Registered{}, err
	}
	q.token, q.want = p.Token, http.StatusCreated
	a, err := c.exchange(ctx, q)
	switch {
	case err != nil:
		return Registered{}, err
	case a.status == http.StatusGone:
		return Registered{}, fmt.Errorf("%w: registration tokens are not allowed on this server; create the runner in GitLab and use its token, which begins with glrt-", q.refusal(a))
	case a.status != http.StatusCreated:
		return Registered{}, q.refusal(a)
	}
	return registered(c.log, q, a)
}

type tokenBody struct {
	Info     *info          `json:"info,omitempty"`
	Token    tranter.Secret `json:"token"`
	SystemID string         `json:"system_id,omitempty"`
}

// Verify asks whether the runner's token is valid (runner contract, section 1.6). ErrForbidden: it is not. Another error:
// that could not be told. A very old server does not name the runner: ID is 0 then.
func (c *Client) Verify(ctx context.Context) (Registered, error) {
	about := c.told()
	q, err := c.runnerCall("verify the runner", http.MethodPost, "runners/verify", tokenBody{Info: &about, Token: c.o.Token, SystemID: c.o.SystemID})
	if err != nil {
		return Registered{}, err
	}
	q.want = http.StatusOK
	a, err := c.exchange(ctx, q)
	switch {
	case err != nil:
		return Registered{}, err
	case a.status != http.StatusOK:
		return Registered{}, q.refusal(a)
	case strings.TrimSpace(string(a.body)) == "200":
		return Registered{Token: c.o.Token}, nil
	}
	return registered(c.log, q, a)
}

// Unregister removes the runner, or of one that was created in GitLab only this manager: the runner itself is removed
// there (runner contract, section 1.6). ErrNotFound means that the server does not know this manager.
func (c *Client) Unregister(ctx context.Context) error {
	path, content := "runners", tokenBody{Token: c.o.Token}
	if strings.HasPrefix(c.o.Token.Reveal(), "glrt-") {
		path, content.SystemID = "runners/managers", c.o.SystemID
	}
	q, err := c.runnerCall("unregister the runner", http.MethodDelete, path, content)
	if err != nil {
		return err
	}
	q.json, q.want = false, http.StatusNoContent
	a, err := c.exchange(ctx, q)
	if err != nil {
		return err
	}
	if a.status != http.StatusNoContent {
		return q.refusal(a)
	}
	return nil
}

// ResetToken replaces the runner's token, which is not valid any more afterwards; this Client goes on using it. Save the
// new one before anything else. The end of ctx does not cut off an answer that is under way.
func (c *Client) ResetToken(ctx context.Context) (Registered, error) {
	q := c.newCall("reset the runner's token", http.MethodPost, "runners/reset_authentication_token")
	if err := q.setJSON(tokenBody{Token: c.o.Token}); err != nil {
		return Registered{}, err
	}
	return c.reset(ctx, q)
}

// ResetTokenWithPAT replaces the token of a runner with the rights of a personal access token. See ResetToken.
func (c *Client) ResetTokenWithPAT(ctx context.Context, runnerID int64, pat tranter.Secret) (Registered, error) {
	q := c.newCall("reset the runner's token", http.MethodPost, fmt.Sprintf("runners/%d/reset_authentication_token", runnerID))
	q.tokenHeader, q.token = "PRIVATE-TOKEN", pat
	r, err := c.reset(ctx, q)
	if err == nil && r.ID == 0 {
		r.ID = runnerID
	}
	return r, err
}

func (c *Client) reset(ctx context.Context, q *call) (Registered, error) {
	q.json, q.want, q.linger = true, http.StatusCreated, resetLinger
	a, err := c.exchange(ctx, q)
	if err != nil {
		return Registered{}, err
	}
	if a.status != http.StatusCreated {
		return Registered{}, q.refusal(a)
	}
	return registered(c.log, q, a)
}

// registered reads the answer that brings a token. The token counts above all: whatever else is wrong with the answer
// is only logged, since the server does not give it a second time.
func registered(log *slog.Logger, q *call, a *answer) (Registered, error) {
	var got struct {
		ID      int64           `json:"id"`
		Token   tranter.Secret  `json:"token"`
		Expires json.RawMessage `json:"token_expires_at"`
	}
	err := a.decode(&got)
	if got.Token == "" && json.Unmarshal(a.body, &got) == nil && got.Token != "" {
		log.Warn("The server's answer is not as it should be, but it brings a token", "call", q.what, "error", err)
		err = nil
	}
	if err == nil && got.Token == "" {
		err = errors.New("the answer brings no token; is the URL that of a GitLab server?")
	}
	if err != nil {
		return Registered{}, fmt.Errorf("%s: %w", q.what, err)
	}
	out := Registered{ID: got.ID, Token: got.Token}
	var expires *time.Time
	if len(got.Expires) > 0 {
		if err := json.Unmarshal(got.Expires, &expires); err != nil {
			log.Warn("The token's expiry can't be read; it counts as never", "call", q.what, "error", err)
		}
	}
	if expires != nil {
		out.TokenExpiresAt = expires.UTC()
	}
	return out, nil
}
