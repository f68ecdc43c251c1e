package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// snapshot asks the manager for all that is there now.
func (c *controlClient) snapshot(ctx context.Context) (view.Snapshot, error) {
	var s view.Snapshot
	err := c.call(ctx, http.MethodGet, "/snapshot", &s)
	return s, err
}

// cancelJob has the manager end a job as the server would.
func (c *controlClient) cancelJob(ctx context.Context, key string) error {
	return c.call(ctx, http.MethodPost, "/jobs/"+url.PathEscape(key)+"/cancel", nil)
}

// pauseRunner has a runner take no more jobs, or take jobs again. It is named by its short token, or by its name.
func (c *controlClient) pauseRunner(ctx context.Context, runner string, paused bool) error {
	verb := "/resume"
	if paused {
		verb = "/pause"
	}
	return c.call(ctx, http.MethodPost, "/runners/"+url.PathEscape(runner)+verb, nil)
}

// jobLog reads the log of a job from a byte on: of one that runs, or that has ended and whose log is kept. With follow it goes
// on until the job has ended.
func (c *controlClient) jobLog(ctx context.Context, key string, offset int64, follow bool) (io.ReadCloser, error) {
	query := url.Values{"offset": {strconv.FormatInt(offset, 10)}}
	if follow {
		query.Set("follow", "1")
	}
	return c.stream(ctx, "/jobs/"+url.PathEscape(key)+"/log?"+query.Encode())
}

// follow passes on what happens from now on, until ctx or the manager ends or take returns an error.
func (c *controlClient) follow(ctx context.Context, take func(tranter.Event) error) error {
	body, err := c.stream(ctx, "/events")
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow what happens: %w", err)
		}
		var e tranter.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("follow what happens: %w", err)
		}
		if err := take(e); err != nil {
			return err
		}
	}
}

// stream asks for an answer of any length, which takes as long as ctx lets it.
func (c *controlClient) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://manager"+path, nil)
	if err != nil {
		return nil, err
	}
	endless := &http.Client{Transport: c.http.Transport}
	resp, err := endless.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, refusalOf(resp)
	}
	return resp.Body, nil
}
