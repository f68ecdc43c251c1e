package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// warming is an opening of which only what all have in common is done.
type warming struct{ *opening }

// Warm has the engine ready for a first job, which then waits for nothing that is the same for all: it connects, puts this
// program there, gets the helper image and those of Options.WarmImages, each by the pull policies of the settings, and runs
// a container once. It may be repeated. An image that could not be had is in the error; the engine can be used all the
// same, and jobs try again.
func (e *Executor) Warm(ctx context.Context) error {
	h, err := e.connectInTime(ctx)
	if err != nil {
		return err
	}
	d := e.options.Settings
	o := warming{&opening{
		Executor: e, host: h, given: tranter.SessionSpec{Job: &tranter.Job{}}, log: &lines{w: io.Discard}, seen: &image.Seen{},
		logins:  image.LoginsOf("", environmentValue(e.options.Environment, "DOCKER_AUTH_CONFIG"), e.options.Home, nil),
		spec:    &spec.Spec{HelperImage: d.HelperImage, HelperFlavor: d.HelperImageFlavor},
		session: newSession(ctx, h, reference{}),
	}}
	defer o.session.letGo()
	failed := make([]error, 2+len(e.options.WarmImages))
	all, working := errgroup.WithContext(ctx)
	all.Go(func() error {
		failed[0] = o.warmAgent(working)
		return engineFault(failed[0])
	})
	if !d.DisableHelper && !strings.Contains(d.HelperImage+d.HelperImageFlavor, "$") { // else it is the job's to say
		all.Go(func() error {
			failed[1] = o.warmHelper(working)
			return engineFault(failed[1])
		})
	}
	for i, name := range e.options.WarmImages {
		all.Go(func() error {
			_, failed[2+i] = o.image(working, image.Wanted{Name: name, What: "build"}, nil)
			return engineFault(failed[2+i])
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return errors.Join(failed...)
}

// engineFault returns the error if it makes all else useless.
func engineFault(err error) error {
	if err = withLoss(err); engine.Gone(err) || errors.Is(err, tranter.ErrMachineLost) {
		return err
	}
	return nil
}

// emptyImage has nothing in it: this program is put on an engine by way of it while images are still on their way there.
const emptyImage = "tranter-empty:latest"

// warmAgent puts this program on the engine.
func (o warming) warmAgent(ctx context.Context) error {
	if err := o.makeEmptyImage(ctx); err != nil {
		return fmt.Errorf("make an empty image: %w", engine.Explain(err))
	}
	return o.host.agent.ensure(ctx, o.host.engine, emptyImage)
}

func (o warming) makeEmptyImage(ctx context.Context) error {
	api := o.host.engine.API()
	if _, err := api.ImageInspect(ctx, emptyImage); !engine.Missing(err) {
		return err
	}
	var layer bytes.Buffer
	t := tar.NewWriter(&layer)
	err := errors.Join(t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path.Dir(spec.AgentDir)[1:] + "/", Mode: 0o755}), t.Close())
	if err != nil {
		return err
	}
	said, err := api.ImageImport(ctx, client.ImageImportSource{Source: &layer, SourceName: "-"}, emptyImage, client.ImageImportOptions{})
	if err != nil {
		return err
	}
	defer said.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(said, 1<<20))
	return err
}

// warmHelper gets the helper image and runs this program in a container of it: an engine's first container takes longer
// than others, and one that can't run any is found out now.
func (o warming) warmHelper(ctx context.Context) error {
	facts, err := o.helperImage(ctx)
	if err != nil {
		return err
	}
	if err := o.host.agent.ensure(ctx, o.host.engine, facts.Use); err != nil {
		return err
	}
	volume, err := o.host.agent.volume()
	if err != nil {
		return err
	}
	api := o.host.engine.API()
	creating, created := finishing(ctx)
	made, err := api.ContainerCreate(creating, client.ContainerCreateOptions{
		Config: &container.Config{Image: facts.Use, Entrypoint: []string{spec.AgentProgram, "--version"}, Labels: o.passingLabels()},
		HostConfig: &container.HostConfig{
			LogConfig: container.LogConfig{Type: "none"}, Runtime: o.options.Settings.Runtime,
			Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: volume, Target: spec.AgentDir, ReadOnly: true}},
		},
	})
	created()
	if err != nil {
		return creationError("the first run (image "+facts.Name+")", err)
	}
	defer func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
		defer stop()
		_, _ = api.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true}) // else it is swept
	}()
	if _, err := api.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		return creationError("the first run (image "+facts.Name+")", err)
	}
	return nil
}

// passingLabels are those of a container that a killed manager may leave, which is swept soon.
func (o warming) passingLabels() map[string]string {
	return map[string]string{
		spec.LabelType: spec.TypeAgent, spec.LabelOwner: o.options.Runner.Owner,
		spec.LabelExpires: strconv.FormatInt(time.Now().Add(agentLife).Unix(), 10),
	}
}
