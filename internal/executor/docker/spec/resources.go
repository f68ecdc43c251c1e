package spec

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// compileResources works out the limits of all containers (runner contract, section 9.8).
func (s *Spec) compileResources() error {
	d := s.job.in.Settings
	limits, err := ulimits(d.Ulimit)
	if err != nil {
		return invalid("ulimit", err)
	}
	build, err := resources(limitKeys{"", d.Memory, d.MemorySwap, d.MemoryReservation, d.CPUs})
	if err != nil {
		return err
	}
	build.CPUShares, build.CpusetCpus, build.CpusetMems = d.CPUShares, d.CPUSetCPUs, d.CPUSetMems
	build.CgroupParent = s.job.cgroupParent(d.CgroupParent, s.job.in.Slot.Template)
	build.DeviceCgroupRules, build.Ulimits = d.DeviceCgroupRules, limits
	if d.OOMKillDisable {
		build.OomKillDisable = &d.OOMKillDisable
	}
	service, err := resources(limitKeys{"service_", d.ServiceMemory, d.ServiceMemorySwap, d.ServiceMemoryReservation, d.ServiceCPUs})
	if err != nil {
		return err
	}
	service.CPUShares, service.CpusetCpus = d.ServiceCPUShares, d.ServiceCPUSetCPUs
	template := d.ServiceSlotCgroupTemplate
	if template == "" {
		template = s.job.in.Slot.Template
	}
	service.CgroupParent = s.job.cgroupParent(d.ServiceCgroupParent, template)
	service.DeviceCgroupRules = d.ServicesDeviceCgroupRules
	s.parts.resources, s.parts.serviceResources = build, service
	return nil
}

// cgroupParent returns the control group of a slot if slots have their own (use_slot_cgroups), else the configured one.
func (j *job) cgroupParent(configured, template string) string {
	if !j.in.Slot.Use || template == "" {
		return configured
	}
	return strings.ReplaceAll(template, "${slot}", strconv.Itoa(j.in.Slot.Number))
}

// limitKeys are the limits that are written as text, and what their keys begin with.
type limitKeys struct{ prefix, memory, swap, reservation, cpus string }

func resources(k limitKeys) (container.Resources, error) {
	var r container.Resources
	for _, f := range []struct {
		key, text string
		into      *int64
		parse     func(string) (int64, error)
	}{
		{"memory", k.memory, &r.Memory, memorySize},
		{"memory_swap", k.swap, &r.MemorySwap, memorySize},
		{"memory_reservation", k.reservation, &r.MemoryReservation, memorySize},
		{"cpus", k.cpus, &r.NanoCPUs, nanoCPUs},
	} {
		n, err := f.parse(f.text)
		if err != nil {
			return r, invalid(k.prefix+f.key, err)
		}
		*f.into = n
	}
	return r, nil
}

// memorySize returns a size in bytes; -1 means without limit.
func memorySize(text string) (int64, error) {
	switch text {
	case "":
		return 0, nil
	case "-1":
		return -1, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a size: write a number with b, k, m or g, as \"512m\"", text)
	}
	return n, nil
}

// nanoCPUs returns a number of processors in billionths.
func nanoCPUs(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	// A long exponent would make a number that takes minutes to work out.
	n, ok := new(big.Rat).SetString(text)
	if len(text) > 20 || strings.ContainsAny(text, "eEpP") || !ok || n.Sign() < 0 {
		return 0, fmt.Errorf("%q is not a number of processors: write \"2\" or \"1.5\"", text)
	}
	n.Mul(n, big.NewRat(1e9, 1))
	whole := new(big.Int).Quo(n.Num(), n.Denom())
	if !whole.IsInt64() {
		return 0, fmt.Errorf("%q are too many processors", text)
	}
	return whole.Int64(), nil
}

// ulimits returns limits by name, given as SOFT or SOFT:HARD.
func ulimits(configured map[string]string) ([]*container.Ulimit, error) {
	var out []*container.Ulimit
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		u, err := ulimit(name, configured[name])
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

func ulimit(name, text string) (*container.Ulimit, error) {
	if name == "" {
		return nil, errors.New("a limit has no name")
	}
	softText, hardText, two := strings.Cut(text, ":")
	if !two {
		hardText = softText
	}
	soft, err := strconv.ParseInt(softText, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s = %q: write SOFT or SOFT:HARD, as \"1024:4096\"", name, text)
	}
	hard, err := strconv.ParseInt(hardText, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s = %q: write SOFT or SOFT:HARD, as \"1024:4096\"", name, text)
	}
	if hard != -1 && (soft > hard || soft == -1) {
		return nil, fmt.Errorf("%s = %q: the soft limit is above the hard one", name, text)
	}
	return &container.Ulimit{Name: name, Soft: soft, Hard: hard}, nil
}
