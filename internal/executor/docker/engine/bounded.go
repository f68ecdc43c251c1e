package engine

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/client"
)

// maxAnswer bounds an engine's answer that is read as a whole, and what is told of the progress of a pull. A machine's
// engine may be in the hands of a job, and must not fill our memory.
const maxAnswer = 64 << 20

// connection is a client of an engine's API with what its requests go through.
type connection struct {
	*client.Client

	transport *http.Transport
}

// Close gives up the connections that are idle.
func (c *connection) Close() error {
	c.transport.CloseIdleConnections()
	return c.Client.Close()
}

// bounded is a transport whose answers have an end.
type bounded struct {
	http.RoundTripper

	limit int64
}

// RoundTrip bounds the answer, unless its reader takes it piece by piece, however long it is.
func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(request)
	if err != nil || response.StatusCode == http.StatusSwitchingProtocols || isStream(request.URL.Path) {
		return response, err
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: b.limit, limit: b.limit}
	return response, nil
}

func isStream(path string) bool {
	last := path[strings.LastIndexByte(path, '/')+1:]
	return slices.Contains([]string{"logs", "archive", "events", "stats", "attach", "export", "get"}, last)
}

// boundedBody is an answer that fails once it is too long.
type boundedBody struct {
	io.ReadCloser

	left, limit int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("the engine's answer is longer than %d MiB", b.limit>>20)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return n - 1, fmt.Errorf("the engine's answer is longer than %d MiB", b.limit>>20)
	}
	return n, err
}
