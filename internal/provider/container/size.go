package container

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/docker/go-units"

	tranter "github.com/tranter-ci/tranter"
)

// size is how large a machine is.
type size struct {
	memory int64 // bytes; 0: no limit
	nanos  int64 // billionths of a CPU; 0: no limit
}

// with returns the size with what the texts change; empty ones change nothing.
func (s size) with(memory, cpus string) (size, error) {
	if memory != "" {
		n, err := units.RAMInBytes(memory)
		if err != nil || n <= 0 {
			return size{}, fmt.Errorf("memory is %q: it must be a number of bytes, also with a unit, such as 2g", memory)
		}
		s.memory = n
	}
	if cpus != "" {
		n, ok := new(big.Rat).SetString(cpus)
		const billion, most = 1e9, 1 << 20
		if !ok || n.Sign() <= 0 || n.Cmp(big.NewRat(most, 1)) > 0 || strings.Trim(cpus, "0123456789.") != "" {
			return size{}, fmt.Errorf("cpus is %q: it must be a number such as 1.5", cpus)
		}
		n.Mul(n, big.NewRat(billion, 1))
		s.nanos = new(big.Int).Quo(n.Num(), n.Denom()).Int64()
	}
	return s, nil
}

// wanted is what the options of one machine say.
type wanted struct {
	image string
	size  size
}

// want reads the options of a machine over the provider's own. The error is tranter.ErrRejected.
func (p *Provider) want(options []string) (wanted, error) {
	w := wanted{image: p.options.Image, size: p.size}
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "image":
			w.image = value
		case "memory":
			w.size, err = w.size.with(value, "")
		case "cpus":
			w.size, err = w.size.with("", value)
		default:
			err = fmt.Errorf("machines that are containers have no option %q: there are image, memory and cpus", name)
		}
		if err != nil {
			return wanted{}, fmt.Errorf("%w: %w", tranter.ErrRejected, err)
		}
	}
	return w, nil
}
