package enginetest

import "github.com/moby/moby/api/types/container"

// Nested returns what a container of the "dind" image needs to run an engine. It is --privileged spelt out, without the one
// capability that a sandbox may lack. Remove the container's volumes with it.
func Nested() *container.HostConfig {
	return &container.HostConfig{
		CapAdd: []string{"ALL"}, CapDrop: []string{"SYS_RESOURCE"},
		SecurityOpt: []string{"seccomp=unconfined", "apparmor=unconfined"},
		Tmpfs:       map[string]string{"/run": ""},
		Binds:       []string{"/sys/fs/cgroup:/sys/fs/cgroup"},
		Resources:   container.Resources{DeviceCgroupRules: []string{"a *:* rwm"}},
		MaskedPaths: []string{}, ReadonlyPaths: []string{},
	}
}
