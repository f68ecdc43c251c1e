package blob

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
)

// statusResume is what the storage answers while an upload is not complete.
const statusResume = http.StatusPermanentRedirect

// gcs sends parts one after the other to a session, which says how far it has got.
type gcs struct {
	c *Client
	p *tranter.PartUpload

	session *tranter.SignedRequest // nil before the first part
	obj     Object
}

func (g *gcs) parallel() bool { return false }

// begin opens the session. Its address is a secret as a signed one is.
func (g *gcs) begin(ctx context.Context) error {
	return g.c.persist(ctx, func(ctx context.Context) (bool, error) {
		resp, _, err := g.c.finish(ctx, request{SignedRequest: &g.p.Part}) //nolint:bodyclose // finish has closed it
		if err != nil {
			return false, err
		}
		base, err := url.Parse(g.p.Part.URL.Reveal())
		if err != nil {
			return false, errors.New("the manager has signed a request for the cache that cannot be made")
		}
		at, err := base.Parse(resp.Header.Get("Location"))
		if err != nil || resp.Header.Get("Location") == "" {
			return false, fmt.Errorf("the cache at %s has not said where the upload goes", base.Host)
		}
		g.session = &tranter.SignedRequest{Method: http.MethodPut, URL: tranter.Secret(at.String())}
		return false, nil
	})
}

func (g *gcs) send(ctx context.Context, p part) error {
	if g.session == nil {
		if err := g.begin(ctx); err != nil {
			return refused(p.number > 1, err)
		}
	}
	end := p.offset + int64(len(p.data))
	at, asking := p.offset, false
	return g.c.persist(ctx, func(ctx context.Context) (bool, error) {
		before := at
		r := request{SignedRequest: g.session, header: map[string]string{"Content-Range": contentRangeOf(at, end, p.last)}, body: p.data[at-p.offset:]}
		if asking { // how much of the last try has arrived
			r.header["Content-Range"], r.body = "bytes */*", nil
		}
		got, done, err := g.put(ctx, r)
		if err != nil {
			asking = true
			return false, err
		}
		if done {
			if !p.last {
				return false, fmt.Errorf("the cache at %s has ended the upload before its last part", Host(g.session))
			}
			return true, nil
		}
		if got < p.offset || got > end {
			return false, fmt.Errorf("the cache at %s has lost a part", Host(g.session))
		}
		at, asking = got, false
		if at == end && !p.last {
			return true, nil
		}
		return at > before, broken{fmt.Errorf("the cache at %s has taken only %d of %d bytes", Host(g.session), at-p.offset, len(p.data))}
	})
}

// contentRangeOf says which bytes of the object a part has, and how many there are if it is the last.
func contentRangeOf(from, end int64, last bool) string {
	total := "*"
	if last {
		total = strconv.FormatInt(end, 10)
	}
	if from == end {
		return "bytes */" + total
	}
	return fmt.Sprintf("bytes %d-%d/%s", from, end-1, total)
}

// put makes one request to the session: how many bytes of the object are there, and whether it is complete.
func (g *gcs) put(ctx context.Context, r request) (int64, bool, error) {
	r.stall = composing
	resp, _, err := g.c.finish(ctx, r) //nolint:bodyclose // finish has closed it
	if a, ok := errors.AsType[*answer](err); ok && a.code == statusResume {
		_, last, found := strings.Cut(resp.Header.Get("Range"), "-")
		if !found {
			return 0, false, nil // nothing yet
		}
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			return 0, false, fmt.Errorf("the cache at %s does not say how much it has", a.host)
		}
		return n + 1, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	g.obj.Tag = resp.Header.Get("ETag")
	return 0, true, nil
}

// complete has nothing to do: the last part has completed the object.
func (g *gcs) complete(context.Context, int, int64) (Object, error) { return g.obj, nil }

func (g *gcs) undo(ctx context.Context) {
	if g.session != nil {
		g.c.abort(ctx, &tranter.SignedRequest{Method: http.MethodDelete, URL: g.session.URL})
	}
}
