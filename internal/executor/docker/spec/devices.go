package spec

import (
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/moby/moby/api/types/container"
)

func (s *Spec) compileDevices() error {
	d := s.job.in.Settings
	var err error
	if s.parts.resources.Devices, err = devices(d.Devices); err != nil {
		return invalid("devices", err)
	}
	if s.parts.resources.DeviceRequests, err = gpus(d.GPUs); err != nil {
		return invalid("gpus", err)
	}
	if s.parts.serviceResources.DeviceRequests, err = gpus(d.ServiceGPUs); err != nil {
		return invalid("service_gpus", err)
	}
	for _, pattern := range slices.Sorted(maps.Keys(d.ServicesDevices)) {
		if !doublestar.ValidatePattern(pattern) {
			return invalid("services_devices", fmt.Errorf("%q is not a pattern", pattern))
		}
		if _, err := devices(d.ServicesDevices[pattern]); err != nil {
			return invalid("services_devices", err)
		}
	}
	return nil
}

// serviceDevices returns the devices of a service: those of all patterns that match its image.
func serviceDevices(configured map[string][]string, image string) []container.DeviceMapping {
	var out []container.DeviceMapping
	for _, pattern := range slices.Sorted(maps.Keys(configured)) {
		if ok, _ := doublestar.Match(pattern, image); !ok {
			continue
		}
		matched, _ := devices(configured[pattern]) // checked before
		for _, d := range matched {
			if !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
	}
	return out
}

func devices(configured []string) ([]container.DeviceMapping, error) {
	var out []container.DeviceMapping
	for _, text := range configured {
		d, err := device(text)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

const allAccess = "rwm" // read, write, mknod

// device reads HOST, HOST:CONTAINER, HOST:PERMISSIONS or HOST:CONTAINER:PERMISSIONS.
func device(text string) (container.DeviceMapping, error) {
	parts := strings.Split(text, ":")
	d := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: allAccess}
	switch {
	case len(parts) == 2 && isAccess(parts[1]):
		d.CgroupPermissions = parts[1]
	case len(parts) == 2:
		d.PathInContainer = parts[1]
	case len(parts) == 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
	}
	if len(parts) > 3 || d.PathOnHost == "" || !path.IsAbs(d.PathInContainer) || !isAccess(d.CgroupPermissions) {
		return d, fmt.Errorf("%q is not a device: write HOST, HOST:CONTAINER or HOST:CONTAINER:PERMISSIONS, as \"/dev/kvm:/dev/kvm:rwm\"", text)
	}
	return d, nil
}

func isAccess(s string) bool {
	return s != "" && len(s) <= len(allAccess) && strings.Trim(s, allAccess) == ""
}

// gpus reads what docker run takes with --gpus: comma-separated fields, of which one that has a comma in it is quoted.
func gpus(text string) ([]container.DeviceRequest, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	fields, err := csvFields(text)
	if err != nil {
		return nil, err
	}
	r := gpuRequest{seen: map[string]bool{}}
	for _, field := range fields {
		if err := r.add(field); err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
	}
	if r.seen["count"] && r.DeviceIDs != nil {
		return nil, fmt.Errorf("%q: give a count or devices, not both; quote a list of devices, as '\"device=0,2\"'", text)
	}
	if !r.seen["count"] && r.DeviceIDs == nil {
		r.Count = 1
	}
	if r.Capabilities == nil {
		r.Capabilities = [][]string{{"gpu"}}
	}
	return []container.DeviceRequest{r.DeviceRequest}, nil
}

// gpuRequest is a request that is being read.
type gpuRequest struct {
	container.DeviceRequest

	seen map[string]bool
}

func (r *gpuRequest) add(field string) error {
	key, value, named := strings.Cut(strings.TrimSpace(field), "=")
	if !named {
		key, value = "count", key
	}
	if r.seen[key] {
		return fmt.Errorf("%s is given twice", key)
	}
	r.seen[key] = true
	var err error
	switch key {
	case "count":
		r.Count, err = gpuCount(value)
	case "driver":
		r.Driver = value
	case "device":
		r.DeviceIDs = strings.Split(value, ",")
	case "capabilities":
		r.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
	case "options":
		r.Options, err = gpuOptions(value)
	default:
		err = fmt.Errorf("%q is none of count, driver, device, capabilities and options", key)
	}
	return err
}

const allGPUs = -1

func gpuCount(text string) (int, error) {
	if text == "all" {
		return allGPUs, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of GPUs: write a number or all", text)
	}
	return int(n), nil
}

func gpuOptions(text string) (map[string]string, error) {
	fields, err := csvFields(text)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, field := range fields {
		k, v, _ := strings.Cut(field, "=")
		out[k] = v
	}
	return out, nil
}

func csvFields(text string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	fields, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("%q is no list with commas between: %w", text, errors.Unwrap(err))
	}
	return fields, nil
}
