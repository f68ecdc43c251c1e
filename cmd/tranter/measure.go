package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/referee"
)

// measure returns how measurements of jobs are taken from Prometheus to GitLab; nil: the configuration wants none.
func measure(r config.Runner, server tranter.Coordinator) job.Measure {
	c := r.Referees.Metrics
	if c.PrometheusAddress == "" || len(c.Queries) == 0 {
		return nil
	}
	m := referee.Metrics{Address: c.PrometheusAddress, Interval: time.Duration(c.QueryInterval) * time.Second, Queries: c.Queries}
	return func(ctx context.Context, ref tranter.JobRef, selector string, since time.Time) error {
		text, failed := m.Collect(ctx, selector, since, time.Now())
		if text == nil {
			return failed
		}
		packed, err := zipped(text)
		if err != nil {
			return err
		}
		up := tranter.ArtifactUpload{
			Filename: referee.Filename, Type: referee.Type, Format: referee.Format,
			Body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil },
		}
		return errors.Join(failed, server.Upload(ctx, ref, up))
	}
}

func zipped(text []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Name = referee.Filename
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("pack the measurements: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack the measurements: %w", err)
	}
	return out.Bytes(), nil
}
