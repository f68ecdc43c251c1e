package dockermachine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// checkedName is the name of the machine that Check asks for and nobody creates.
const checkedName = "tranter-check"

// Check starts the driver, gives it the options, and lets it look for itself whether a machine could be created. The error is
// tranter.ErrRejected if the settings are wrong; anything else may pass.
func (p *Provider) Check(ctx context.Context) (err error) {
	d, err := p.start(ctx, p.o.Driver, checkedName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := os.MkdirAll(p.o.Dir, dirMode); err != nil {
		return fmt.Errorf("make the folder for machines: %w", err)
	}
	store, err := os.MkdirTemp(p.o.Dir, ".check-*")
	if err != nil {
		return fmt.Errorf("make a folder for machines: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(store)) }()
	return p.configure(ctx, d, store, tranter.MachineSpec{Name: checkedName})
}

// withVariables adds to a driver's error the variables of the options that it names, since it is often these that lack.
func withVariables(err error, flags []plugin.Flag) error {
	if err == nil {
		return nil
	}
	var hints []string
	for _, f := range flags {
		if f.EnvVar != "" && mentions(err.Error(), f.Name) {
			hints = append(hints, fmt.Sprintf("%s or the variable %s", f.Name, f.EnvVar))
		}
	}
	if len(hints) == 0 {
		return err
	}
	return fmt.Errorf("%w (set %s)", err, strings.Join(hints, ", "))
}

// mentions says whether a text has a name in it, as a whole.
func mentions(text, name string) bool {
	part := func(s string, at int) bool {
		return at >= 0 && at < len(s) && (s[at] == '-' || s[at] == '_' || s[at] >= 'a' && s[at] <= 'z' || s[at] >= '0' && s[at] <= '9')
	}
	for from := 0; ; {
		at := strings.Index(text[from:], name)
		if at < 0 {
			return false
		}
		at += from
		end := at + len(name)
		before := strings.TrimSuffix(text[:at], "--")
		if !part(before, len(before)-1) && !part(text, end) {
			return true
		}
		from = end
	}
}
