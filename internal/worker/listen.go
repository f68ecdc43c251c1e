package worker

import (
	"context"
	"errors"
	"io"

	"github.com/tranter-ci/tranter"
)

type listener struct{ address, fingerprint string }

func (o *Office) bind() (*listener, error)        { return nil, errors.New("not yet") }
func (o *Office) serve(ctx context.Context) error { return nil }
func (l *listener) close()                        {}

type conn struct{}

func (c *conn) sendCall(*call) {}
func (c *conn) close()         {}

func (s *session) stream(ctx context.Context, c *call, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	return tranter.PhaseResult{}, errors.New("not yet")
}

type dialer struct{}

func newDialer(w *worker) *dialer                { return &dialer{} }
func (d *dialer) run(ctx context.Context) error { return nil }
func (d *dialer) send(a answer)                 {}
func (d *dialer) bulk() bool                    { return true }
func (d *dialer) stream(ctx context.Context, session tranter.Session, r request) (*tranter.PhaseResult, error) {
	return nil, errors.New("not yet")
}
