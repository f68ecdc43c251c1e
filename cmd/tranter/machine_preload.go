package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// preloaded is the executor of a machine whose engine gets copies of images from this host's engine before its first job.
type preloaded struct {
	*docker.Executor
	images []string
	there  engine.Options
}

// Warm has the images copied, then does what the executor can do beforehand.
func (p preloaded) Warm(ctx context.Context) error {
	if err := p.copyImages(ctx); err != nil {
		return err
	}
	return p.Executor.Warm(ctx)
}

func (p preloaded) copyImages(ctx context.Context) error {
	to, err := engine.Open(ctx, p.there)
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // all that went over it has ended
	var missing []string
	for _, name := range p.images {
		if _, err := to.API().ImageInspect(ctx, name); engine.Missing(err) {
			missing = append(missing, name)
		} else if err != nil {
			return fmt.Errorf("look for image %s on the machine: %w", name, err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	from, err := engine.Open(ctx, engine.Options{Log: p.there.Log})
	if err != nil {
		return fmt.Errorf("copy images to the machine: %w", err)
	}
	defer from.Close() //nolint:errcheck // the same
	images, err := from.API().ImageSave(ctx, missing)
	if err != nil {
		err = fmt.Errorf("copy images of preload_images to the machine: %w", err)
		if engine.Missing(err) {
			return &tranter.ConfigError{Err: err}
		}
		return err
	}
	defer images.Close() //nolint:errcheck // read to its end, or given up
	answer, err := to.API().ImageLoad(ctx, images, client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("copy images to the machine: %w", err)
	}
	_, err = io.Copy(io.Discard, answer)
	return errors.Join(err, answer.Close())
}

// Close gives up the connections to the machine's engine.
func (p preloaded) Close() error { return p.Disconnect() }
