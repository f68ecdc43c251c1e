package spec

import (
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// slug is what the name of a service's image comes to (runner contract, section 9.11).
type slug struct {
	image   string // with tag or digest
	service string // the name without the registry's port, tag and digest
	version string
	aliases []string
}

// imageName takes the name of an image apart: registry, its port, path, tag, digest.
var imageName = lazy.Regexp(`^(?:([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):([0-9]+)/)?([^:@]+)(?::([\w][\w.-]{0,127}))?(?:@([A-Za-z0-9+._-]+:[0-9a-fA-F]+))?$`)

// parseService takes the name of a service's image apart. A name that is none is returned as it is: the registry or the
// engine says what is wrong with it.
func parseService(name string) slug {
	m := imageName().FindStringSubmatch(name)
	if m == nil {
		return slug{image: name, service: name, version: "latest", aliases: hostNames(name)}
	}
	host, port, repository, tag, digest := m[1], m[2], m[3], m[4], m[5]
	s := slug{image: name, service: repository, version: tag}
	if host != "" {
		s.service = host + "/" + repository
	}
	switch {
	case tag == "" && digest == "":
		s.version = "latest"
		s.image = repository + ":latest"
		if host != "" {
			s.image = host + ":" + port + "/" + s.image
		}
	case tag == "":
		s.version = digest
	}
	s.aliases = hostNames(s.service)
	return s
}

var notInAlias = lazy.Regexp(`[^A-Za-z0-9_./-]`)

// hostNames returns the names under which a service is known without being asked for others.
func hostNames(service string) []string {
	service = strings.Trim(notInAlias().ReplaceAllString(service, "-"), "-._/")
	if service == "" {
		service = "service"
	}
	first, second := strings.ReplaceAll(service, "/", "__"), strings.ReplaceAll(service, "/", "-")
	if first == second {
		return []string{first}
	}
	return []string{first, second}
}

var hostAlias = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$`)

// splitAliases takes apart names with spaces or commas between.
func splitAliases(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' || r == '\n' })
}

// looksLikeEngine says whether an image is one of docker-in-docker, by its name: the last part has dind in it, or is docker
// with dind in the tag or in front.
func looksLikeEngine(s slug) bool {
	last := s.service[strings.LastIndexByte(s.service, '/')+1:]
	return strings.Contains(last, "dind") || last == "docker" && strings.Contains(s.service+":"+s.version, "dind")
}

// withMirror adds a registry mirror to the command of an engine. A command that is none of dockerd's stays.
func withMirror(command []string, mirror string) []string {
	option := "--registry-mirror=" + mirror
	if len(command) == 0 {
		return []string{option}
	}
	first := command[0]
	if !strings.HasPrefix(first, "--") && first[strings.LastIndexByte(first, '/')+1:] != "dockerd" {
		return command
	}
	return append(slices.Clip(command), option)
}
