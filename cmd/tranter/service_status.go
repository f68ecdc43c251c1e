package main

import (
	"context"
	"fmt"
	"io"

	"github.com/tranter-ci/tranter/internal/service"
	"github.com/tranter-ci/tranter/internal/view"
)

// printService tells how the service stands, where there is one. What the manager says about itself follows.
func (f *serviceFlags) printService(ctx context.Context, w io.Writer) error {
	systemd, err := f.systemd()
	if err != nil {
		return err
	}
	state, err := systemd.State(ctx, f.name)
	if err != nil {
		// No systemd: there is nothing to tell. One that does not answer is no reason to tell nothing at all.
		return nil //nolint:nilerr // see above
	}
	if state.Load == "not-found" && f.name == service.DefaultName {
		return nil
	}
	fmt.Fprintf(w, "Service %s: %s.\n", f.name, view.Printable(state.String()))
	return nil
}
