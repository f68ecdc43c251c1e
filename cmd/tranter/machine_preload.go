package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// preload copies images from this host's engine to that of a machine, where they are not there.
func preload(ctx context.Context, images []string, there engine.Options) error {
	if len(images) == 0 {
		return nil
	}
	to, err := engine.Open(ctx, there)
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // all that went over it has ended
	var missing []string
	for _, name := range images {
		if _, err := to.API().ImageInspect(ctx, name); engine.Missing(err) {
			missing = append(missing, name)
		} else if err != nil {
			return fmt.Errorf("look for image %s on the machine: %w", name, err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	from, err := engine.Open(ctx, engine.Options{Log: there.Log})
	if err != nil {
		return fmt.Errorf("copy images to the machine: %w", err)
	}
	defer from.Close() //nolint:errcheck // the same
	archive, err := from.API().ImageSave(ctx, missing)
	if err != nil {
		err = fmt.Errorf("copy images of preload_images to the machine: %w", err)
		if engine.Missing(err) {
			return &tranter.ConfigError{Err: err}
		}
		return err
	}
	defer archive.Close()
	answer, err := to.API().ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("copy images to the machine: %w", err)
	}
	_, err = io.Copy(io.Discard, answer)
	return errors.Join(err, answer.Close())
}
