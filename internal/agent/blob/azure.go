package blob

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"

	"github.com/tranter-ci/tranter"
)

// azure sends blocks in any order, then the list of their ids.
type azure struct {
	c *Client
	p *tranter.PartUpload

	taken atomic.Bool // a block
}

func (a *azure) parallel() bool { return true }

// blockID is the id of a block. All of a blob have to be of one length.
func blockID(number int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08d", number))
}

func (a *azure) send(ctx context.Context, p part) error {
	to, err := numbered(a.p, p.number, "{block}", url.QueryEscape(blockID(p.number)))
	if err != nil {
		return err
	}
	if _, err = a.c.put(ctx, to, request{body: p.data}, nil); err != nil {
		return refused(a.taken.Load(), err)
	}
	a.taken.Store(true)
	return nil
}

func (a *azure) complete(ctx context.Context, parts int, _ int64) (Object, error) {
	if a.p.Complete == nil {
		return Object{}, errors.New("the manager has not signed the end of the upload")
	}
	doc := struct {
		XMLName xml.Name `xml:"BlockList"`
		Latest  []string `xml:"Latest"`
	}{}
	for n := range parts {
		doc.Latest = append(doc.Latest, blockID(n+1))
	}
	text, err := xml.Marshal(doc)
	if err != nil {
		return Object{}, fmt.Errorf("list the blocks: %w", err)
	}
	return a.c.put(ctx, a.p.Complete, request{body: append([]byte(xml.Header), text...), stall: composing}, nil)
}

// undo has nothing to do: blocks that are in no list go by themselves.
func (a *azure) undo(ctx context.Context) {
	if a.p.Abort != nil {
		a.c.abort(ctx, a.p.Abort)
	}
}
