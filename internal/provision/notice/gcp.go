package notice

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// gcp is Google Compute Engine's server. It can hold an answer back until it changes.
type gcp struct {
	*client
	etag string // of the last answer on preemption
}

const (
	gcpPreempted   = "/computeMetadata/v1/instance/preempted"
	gcpMaintenance = "/computeMetadata/v1/instance/maintenance-event"

	gcpHold  = 50 * time.Second // how long an answer is held back: half a minute is what a preempted machine has
	gcpEvery = 5 * time.Second  // should the server not hold it back
	maxETag  = 128
)

func (g *gcp) every() time.Duration { return gcpEvery }

// get asks and makes sure that it is Google's server that answers.
func (g *gcp) get(ctx context.Context, path string, limit time.Duration) (answer, bool, error) {
	a, err := g.client.ask(ctx, question{path: path, header: "Metadata-Flavor", value: "Google", limit: limit})
	return a, err == nil && a.status == http.StatusOK && a.header.Get("Metadata-Flavor") == "Google", err
}

func (g *gcp) here(ctx context.Context) (bool, error) {
	_, ok, err := g.get(ctx, gcpPreempted, 0)
	return ok, err
}

func (g *gcp) ask(ctx context.Context) (Notice, bool, error) {
	path, limit := gcpPreempted, time.Duration(0)
	if g.etag != "" {
		path += fmt.Sprintf("?wait_for_change=true&timeout_sec=%d&last_etag=%s", int(gcpHold.Seconds()), url.QueryEscape(g.etag))
		limit = gcpHold + answerTime
	}
	a, ok, err := g.get(ctx, path, limit)
	if err != nil || !ok {
		g.etag = ""
		return Notice{}, false, why(err, gcpPreempted, a)
	}
	if g.etag = a.header.Get("ETag"); len(g.etag) > maxETag {
		g.etag = ""
	}
	if n, ok := parseGCP(a.body); ok {
		return n, true, nil
	}
	a, ok, err = g.get(ctx, gcpMaintenance, 0)
	if err != nil || !ok {
		return Notice{}, false, why(err, gcpMaintenance, a)
	}
	n, found := parseGCP(a.body)
	return n, found, nil
}

func why(err error, path string, a answer) error {
	if err != nil {
		return err
	}
	return unexpected(path, a.status)
}

// parseGCP understands both answers. A machine that is moved to another host while it runs is not lost.
func parseGCP(body []byte) (Notice, bool) {
	switch string(bytes.TrimSpace(body)) {
	case "TRUE":
		return Notice{Reason: "the cloud takes the preemptible machine back"}, true
	case "TERMINATE_ON_HOST_MAINTENANCE":
		return Notice{Reason: "the cloud ends the machine to repair its host"}, true
	}
	return Notice{}, false
}
