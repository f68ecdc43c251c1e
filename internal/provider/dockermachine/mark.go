package dockermachine

import (
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// labels is an option by which a driver takes labels for a machine, and how it wants one to be written: with KEY and VALUE.
type labels struct{ option, form string }

// labelOptions are those of the drivers that have one (docker-machine, section 6). Where the option is one text, labels are
// joined by commas.
func labelOptions() []labels {
	return []labels{
		{"amazonec2-tags", "KEY,VALUE"},
		{"azure-tags", "KEY,VALUE"},
		{"digitalocean-tags", "KEY-VALUE"},
		{"google-label", "KEY:VALUE"},
		{"hetzner-server-label", "KEY=VALUE"},
		{"lab-tag", "KEY=VALUE"},
		{"linode-tags", "KEY-VALUE"},
		{"openstack-metadata", "KEY,VALUE"},
		{"vultr-tags", "KEY-VALUE"},
	}
}

// putMark adds to the values of a driver's options that the machine is ours, so that people find what was lost.
func putMark(values map[string]any, mark tranter.Mark) {
	if mark.Owner == "" {
		return
	}
	for _, l := range labelOptions() {
		old, known := values[l.option]
		if !known {
			continue
		}
		for _, pair := range [][2]string{{"tranter-owner", mark.Owner}, {"tranter-pool", mark.Pool}} {
			value := plainLabel(pair[1])
			if value == "" {
				continue
			}
			label := strings.NewReplacer("KEY", pair[0], "VALUE", value).Replace(l.form)
			switch list := old.(type) {
			case []string:
				old = append(slices.Clip(list), label)
			case string:
				old = strings.TrimPrefix(list+","+label, ",")
			}
		}
		values[l.option] = old
	}
}

// plainLabel makes a text one that all providers take.
func plainLabel(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
}

// optionsOf returns the options that hold for a machine.
func (p *Provider) optionsOf(spec tranter.MachineSpec) []string {
	return append(slices.Clip(p.o.Options), spec.Options...)
}

// values returns the values of all options of a driver for a machine.
func (p *Provider) values(flags []plugin.Flag, spec tranter.MachineSpec) (map[string]any, error) {
	values, err := resolve(p.o.Driver, withShared(flags), p.optionsOf(spec), p.variable)
	if err == nil {
		putMark(values, spec.Mark)
	}
	return values, err
}

// withShared adds the options that every driver may read, unless the driver lists them itself.
func withShared(flags []plugin.Flag) []plugin.Flag {
	all := slices.Clip(flags)
	for _, s := range shared() {
		known := false
		for _, f := range flags {
			known = known || f.Name == s.Name
		}
		if !known {
			all = append(all, s)
		}
	}
	return all
}
