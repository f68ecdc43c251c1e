package image

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
)

// inspect asks the engine for the image that it knows as name, and compares its platform with the one of o.
func (s *Store) inspect(ctx context.Context, name string, o order) (Facts, error) {
	var options []client.ImageInspectOption
	if o.platform.arch != "" && versions.GreaterThanOrEqualTo(s.api.ClientVersion(), "1.49") {
		// An engine that keeps several platforms under one name shows its own one if it is not told which.
		p := o.platform.oci()
		options = append(options, client.ImageInspectWithPlatform(&p))
	}
	got, err := s.api.ImageInspect(ctx, name, options...)
	if err != nil {
		return Facts{}, err
	}
	has := platform{os: got.Os, arch: got.Architecture, variant: got.Variant}
	if !o.platform.satisfied(has) {
		return Facts{}, &otherPlatform{has: has, want: o.platform}
	}
	f := Facts{ID: got.ID, Name: o.Name, OS: got.Os, Arch: got.Architecture, Use: got.ID}
	use, digest := s.repoDigest(got.RepoDigests, o.name)
	f.Digest = digest
	// A name's digest moves to another image when the name is pulled for another platform, the id does not.
	if use != "" && o.platform == (platform{}) {
		f.Use = use
	}
	if c := got.Config; c != nil {
		f.User, f.WorkDir = c.User, c.WorkingDir
		f.Entrypoint, f.Cmd, f.Env = c.Entrypoint, c.Cmd, c.Env
		f.Volumes = slices.Sorted(maps.Keys(c.Volumes))
		f.Ports = tcpPorts(maps.Keys(c.ExposedPorts))
	}
	return f, nil
}

// repoDigest finds the first of an image's digests that belongs to the repository of n, or else to its copy in the mirror.
func (s *Store) repoDigest(digests []string, n name) (use, digest string) {
	if n.isID() {
		return "", ""
	}
	repositories := []string{n.repository()}
	if s.mirror.copies(n) {
		repositories = append(repositories, s.mirror.repository(n))
	}
	for _, repository := range repositories {
		for _, d := range digests {
			named, err := reference.ParseNormalizedNamed(d)
			if err != nil || named.Name() != repository {
				continue
			}
			if digested, ok := named.(reference.Digested); ok {
				return d, digested.Digest().String()
			}
		}
	}
	return "", ""
}

// tcpPorts reads what images expose: 80/tcp, 80 (TCP too), 8000-8003/tcp, 53/udp.
func tcpPorts(exposed func(func(string) bool)) []int {
	const most = 100 // of one range: somebody waits for these ports
	var ports []int
	for text := range exposed {
		numbers, protocol, _ := strings.Cut(text, "/")
		if protocol != "" && protocol != "tcp" {
			continue
		}
		low, high, ranged := strings.Cut(numbers, "-")
		first, err := strconv.Atoi(low)
		last := first
		if ranged && err == nil {
			last, err = strconv.Atoi(high)
		}
		if err != nil || first < 1 || last > 65535 {
			continue
		}
		for port := first; port <= last && port < first+most; port++ {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
