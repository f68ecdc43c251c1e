package blob

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tranter-ci/tranter"
)

// maxParts is how many parts Amazon and those who follow it take.
const maxParts = 10000

// s3 sends parts in any order, then their tags.
type s3 struct {
	c *Client
	p *tranter.PartUpload

	mu   sync.Mutex
	tags map[int]string
}

func (s *s3) parallel() bool { return true }

func (s *s3) send(ctx context.Context, p part) error {
	to, err := numbered(s.p, p.number, "{part}", strconv.Itoa(p.number))
	if err != nil {
		return err
	}
	obj, err := s.c.put(ctx, to, request{body: p.data}, nil)
	if err != nil {
		return refused(s.any(), err)
	}
	if obj.Tag == "" {
		return fmt.Errorf("the cache at %s has taken a part without giving it a tag", Host(to))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tags == nil {
		s.tags = map[int]string{}
	}
	s.tags[p.number] = obj.Tag
	return nil
}

// any says whether a part was taken.
func (s *s3) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tags) > 0
}

// numbered fills a part's number, or id, and signature into the request for it.
func numbered(p *tranter.PartUpload, number int, mark, text string) (*tranter.SignedRequest, error) {
	limit := len(p.Signatures)
	if limit == 0 {
		limit = maxParts
	}
	if number > limit {
		return nil, fmt.Errorf("%w: the storage takes %d bytes", tranter.ErrTooLarge, int64(limit)*p.PartBytes)
	}
	to := p.Part
	url := strings.ReplaceAll(to.URL.Reveal(), mark, text)
	if len(p.Signatures) > 0 {
		url = strings.ReplaceAll(url, "{signature}", p.Signatures[number-1])
	}
	to.URL = tranter.Secret(url)
	return &to, nil
}

type completedPart struct {
	PartNumber int    `xml:"PartNumber"`
	ETag       string `xml:"ETag"`
}

func (s *s3) complete(ctx context.Context, _ int, _ int64) (Object, error) {
	if s.p.Complete == nil {
		return Object{}, errors.New("the manager has not signed the end of the upload")
	}
	doc := struct {
		XMLName xml.Name        `xml:"CompleteMultipartUpload"`
		Parts   []completedPart `xml:"Part"`
	}{}
	for number, tag := range s.tags {
		doc.Parts = append(doc.Parts, completedPart{number, tag})
	}
	slices.SortFunc(doc.Parts, func(a, b completedPart) int { return a.PartNumber - b.PartNumber })
	text, err := xml.Marshal(doc)
	if err != nil {
		return Object{}, fmt.Errorf("list the parts: %w", err)
	}
	var obj Object
	tried := false
	err = s.c.persist(ctx, func(ctx context.Context) (bool, error) {
		resp, body, err := s.c.finish(ctx, request{SignedRequest: s.p.Complete, body: text, stall: composing}) //nolint:bodyclose // finish has closed it
		if tried && errors.Is(err, tranter.ErrNotFound) {
			return false, nil // the answer to the try before was lost: there is no such upload any more, it is the object
		}
		tried = true
		if err != nil {
			return false, err
		}
		obj.Tag, err = s.completed(resp, body)
		return false, err
	})
	return obj, err
}

// completed reads the answer to the end of an upload. It may be an error that the storage found after it had begun to
// answer with 200.
func (s *s3) completed(resp *http.Response, body []byte) (string, error) {
	if name := errorName(bytes.TrimSpace(body)); name != "" {
		a := &answer{host: Host(s.p.Complete), code: http.StatusBadRequest, name: name}
		if name == "InternalError" || name == "SlowDown" || name == "ServiceUnavailable" {
			a.code = http.StatusServiceUnavailable
		}
		return "", a
	}
	var done struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		ETag    string   `xml:"ETag"`
	}
	if err := xml.Unmarshal(body, &done); err != nil {
		return "", broken{fmt.Errorf("the cache at %s has not said how the upload ended", Host(s.p.Complete))}
	}
	if done.ETag == "" {
		return resp.Header.Get("ETag"), nil
	}
	return `"` + strings.Trim(done.ETag, `"`) + `"`, nil
}

func (s *s3) undo(ctx context.Context) {
	if s.p.Abort != nil {
		s.c.abort(ctx, s.p.Abort)
	}
}
