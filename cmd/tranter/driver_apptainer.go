package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/apptainer"
	"github.com/tranter-ci/tranter/internal/executor/apptainer/image"
)

// openApptainer makes the executor that runs jobs in containers without an engine.
func openApptainer(s surroundings, c config.Config, r config.Runner) (tranter.Executor, error) {
	if s.user != "" {
		return nil, &tranter.ConfigError{Err: errors.New("the executor apptainer runs jobs as the user who runs the runner: leave --user away")}
	}
	home, err := s.home()
	if err != nil {
		return nil, err
	}
	images, err := openImages(imageDir(s, r), r.Apptainer, s.log)
	if err != nil {
		return nil, err
	}
	secrets := []string{r.Token.Reveal()}
	for _, other := range c.Runners {
		secrets = append(secrets, other.Token.Reveal())
	}
	o := apptainer.Options{
		Agent: []string{s.self}, Settings: r.Apptainer, Images: images, Environment: r.Environment, Home: home, Secret: secrets, Log: s.log,
	}
	if s.state != "" {
		o.State = filepath.Join(s.state, "apptainer", r.Token.Short())
	}
	return apptainer.New(o)
}

// imageDir is where a runner's images are: below its cache directory, unless the configuration says otherwise.
func imageDir(s surroundings, r config.Runner) string {
	return s.path(cmp.Or(r.Apptainer.ImageDir, filepath.Join(cmp.Or(r.CacheDir, "cache"), "images")))
}

// collecting is a store of images that removes what is too old or too much, now and then, after an image was got.
type collecting struct {
	*image.Store
	limits image.Limits
	turn   chan time.Time // holds when it was done last
	log    *slog.Logger
}

// collectEvery is how often images are looked through.
const collectEvery = time.Hour

func openImages(dir string, a config.Apptainer, log *slog.Logger) (apptainer.Images, error) {
	store, err := image.Open(dir, image.Options{CacheDir: a.ImageCacheDir, TmpDir: a.ImageTmpDir, Insecure: a.InsecureRegistries, Log: log})
	if err != nil {
		return nil, err
	}
	size := int64(0)
	if a.ImageMaxSize != "" {
		if size, err = config.ParseMemory(a.ImageMaxSize); err != nil {
			return nil, &tranter.ConfigError{Err: fmt.Errorf("image_max_size in [runners.apptainer]: %w", err)}
		}
	}
	images := &collecting{Store: store, limits: image.Limits{MaxAge: a.ImageMaxAge, MaxSize: size}, turn: make(chan time.Time, 1), log: log}
	images.turn <- time.Time{}
	return images, nil
}

// Get implements apptainer.Images.
func (c *collecting) Get(ctx context.Context, ref string, w image.Want) (*image.Image, error) {
	img, err := c.Store.Get(ctx, ref, w)
	select {
	case last := <-c.turn:
		if time.Since(last) >= collectEvery && (c.limits != image.Limits{}) && ctx.Err() == nil {
			if _, err := c.Collect(ctx, c.limits); err != nil {
				c.log.Warn("Images that are not needed can't be removed", "error", err)
			}
			last = time.Now()
		}
		c.turn <- last
	default: // somebody else is at it
	}
	return img, err
}
