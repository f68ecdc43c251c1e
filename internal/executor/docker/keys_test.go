package docker_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// keyCase is one job that shows what keys of [runners.docker] do.
type keyCase struct {
	keys   []string
	set    func(*rig)
	script []string
	wants  []string // in the script's log
	check  func(*testing.T, *keyView)
}

// keyView is what the engine knows about a job while it runs.
type keyView struct {
	*rig

	build, helper container.InspectResponse
	services      []container.InspectResponse
	script        string // log
}

func keyCases() map[string]keyCase {
	all := map[string]keyCase{}
	for _, some := range []map[string]keyCase{limitCases(), networkCases(), rightsCases(), volumeCases(), imageCases()} {
		maps.Copy(all, some)
	}
	return all
}

func TestEachKeyIsSeenInTheContainers(t *testing.T) {
	t.Parallel()
	for name, tt := range keyCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			tt.set(r)
			v := &keyView{rig: r}
			v.script = r.all(tt.script...)
			has(t, v.script, tt.wants...)
			if tt.check == nil {
				return
			}
			v.build = r.build()
			if !r.settings.DisableHelper {
				v.helper = r.helper()
			}
			for i := range r.ref().Services {
				v.services = append(v.services, r.service(i))
			}
			tt.check(t, v)
		})
	}
}

// keysElsewhere returns the keys that no case here is for, and why.
func keysElsewhere() map[string]string {
	return map[string]string{
		"host":                             "every test here sets it; what forms it may have is for package engine",
		"tls_cert_path":                    "package engine has tests with an engine behind TLS",
		"tls_verify":                       "package engine has tests with an engine behind TLS",
		"mac_address":                      "in spec; an engine before API 1.44 can't be told: TestAMACAddressThatTheEngineDoesNotTake",
		"enable_ipv6":                      "TestIPv6ThatTheEngineHasNoAddressesFor: most engines have to be set up for it",
		"gpus":                             "TestSettingsThatTheEngineRefuses: no machine of ours has any",
		"service_gpus":                     "TestSettingsThatTheEngineRefuses: no machine of ours has any",
		"privileged":                       "TestPrivileged",
		"services_privileged":              "TestPrivileged",
		"allowed_privileged_images":        "TestPrivileged",
		"allowed_privileged_services":      "TestPrivileged",
		"disable_helper":                   "TestWithoutAHelper",
		"service_slot_cgroup_template":     "in spec: it takes use_slot_cgroups, which is not built",
		"helper_image_flavor":              "in spec and TestNoHelperImage: it is a part of a name that nothing here can pull",
		"helper_image_autoset_arch_and_os": "has no effect",
		"registry_mirror":                  "package janitor has tests with a real mirror",
		"registry_mirror_image":            "package janitor has tests with a real mirror",
		"registry_mirror_remote":           "package janitor has tests with a real mirror",
		"reconnect_timeout":                "needs an engine that goes away: the tests of restarts",
		"entrypoint_timeout":               "TestEntrypointsThatDoNotStartTheJob",
		"cache_dir":                        "TestCacheDirectory",
		"volume_keep":                      "TestVolumeKeep",
		"disable_cache":                    "TestDisableCache",
		"volumes_from":                     "TestVolumesFrom",
		"services_limit":                   "TestWhatAJobMayNotAskFor",
		"allowed_images":                   "TestWhatAJobMayNotAskFor",
		"allowed_services":                 "TestWhatAJobMayNotAskFor",
		"allowed_pull_policies":            "TestWhatAJobMayNotAskFor",
		"allowed_users":                    "TestWhatAJobMayNotAskFor",
		"wait_for_services_timeout":        "TestServiceThatIsSlow",
	}
}

// Every key that there is has a case, or a reason why not.
func TestNoKeyIsForgotten(t *testing.T) {
	t.Parallel()
	seen := keysElsewhere()
	for name, tt := range keyCases() {
		for _, key := range tt.keys {
			if why, twice := seen[key]; twice {
				t.Errorf("%s is in %q and in %q", key, name, why)
			}
			seen[key] = name
		}
	}
	typ := reflect.TypeFor[config.Docker]()
	var known []string
	for field := range typ.Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("toml"), ",")
		if _, ok := seen[key]; !ok {
			t.Errorf("no case shows what %s does", key)
		}
		known = append(known, key)
	}
	for key := range seen {
		if !slices.Contains(known, key) {
			t.Errorf("there is a case for %s, which is no key", key)
		}
	}
}

// equal fails the test unless got is want.
func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, not %+v", what, got, want)
	}
}

func limitCases() map[string]keyCase {
	const mega = 1 << 20
	return map[string]keyCase{
		"limits": {
			keys: []string{
				"memory", "memory_swap", "memory_reservation", "cgroup_parent", "cpuset_cpus", "cpuset_mems", "cpus", "cpu_shares",
				"oom_kill_disable", "oom_score_adjust", "shm_size", "ulimit", "sysctls",
			},
			set: func(r *rig) {
				d := &r.settings
				d.Memory, d.MemorySwap, d.MemoryReservation, d.CgroupParent = "128m", "256m", "64m", "/docker"
				d.CPUSetCPUs, d.CPUSetMems, d.CPUs, d.CPUShares = "0", "0", "1.5", 512
				d.OOMKillDisable, d.OOMScoreAdjust, d.SHMSize = true, 17, 5*mega
				d.Ulimit, d.Sysctls = map[string]string{"nofile": "512:1024"}, map[string]string{"net.ipv4.ip_unprivileged_port_start": "81"}
			},
			script: []string{
				`echo "score $(cat /proc/self/oom_score_adj)"`, `echo "shm $(df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2)"`,
				`echo "files $(ulimit -n) $(ulimit -Hn)"`, `echo "port $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)"`,
				`echo "processors $(grep Cpus_allowed_list /proc/self/status | tr -dc 0-9,-)"`,
				`echo "memory $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null)"`,
			},
			wants: []string{"\nscore 17\n", "\nshm 5120\n", "\nfiles 512 1024\n", "\nport 81\n", "\nprocessors 0\n", "\nmemory 134217728\n"},
			check: func(t *testing.T, v *keyView) {
				for _, c := range []container.InspectResponse{v.build, v.helper} {
					h := c.HostConfig
					equal(t, "memory", []int64{h.Memory, h.MemorySwap, h.MemoryReservation}, []int64{128 * mega, 256 * mega, 64 * mega})
					equal(t, "processors", []any{h.NanoCPUs, h.CPUShares, h.CpusetCpus, h.CpusetMems}, []any{int64(1.5e9), int64(512), "0", "0"})
					equal(t, "control group", h.CgroupParent, "/docker")
					equal(t, "out of memory", []any{h.OomKillDisable != nil && *h.OomKillDisable, h.OomScoreAdj}, []any{true, 17})
				}
			},
		},
		"limits of services": {
			keys: []string{
				"service_memory", "service_memory_swap", "service_memory_reservation", "service_cgroup_parent", "service_cpuset_cpus",
				"service_cpus", "service_cpu_shares", "services_devices", "services_device_cgroup_rules", "services_cap_add",
				"services_cap_drop", "services_security_opt", "services_tmpfs",
			},
			set: func(r *rig) {
				d := &r.settings
				d.ServiceMemory, d.ServiceMemorySwap, d.ServiceMemoryReservation, d.ServiceCgroupParent = "96m", "96m", "48m", "/docker"
				d.ServiceCPUSetCPUs, d.ServiceCPUs, d.ServiceCPUShares = "0", "0.5", 256
				d.ServicesDevices = map[string][]string{"**/ports:*": {"/dev/null:/dev/nothing:rw"}, "other": {"/dev/zero"}}
				d.ServicesDeviceCgroupRules = []string{"c 1:9 r"}
				d.ServicesCapAdd, d.ServicesCapDrop = []string{"NET_ADMIN"}, []string{"CHOWN"}
				d.ServicesSecurityOpt, d.ServicesTmpfs = []string{"no-new-privileges"}, map[string]string{"/fast": "size=1m"}
				r.job.Services = []tranter.Image{{Name: enginetest.Image(r.t, "ports"), Alias: "web"}}
			},
			script: []string{"true"},
			check: func(t *testing.T, v *keyView) {
				h := v.services[0].HostConfig
				equal(t, "memory", []int64{h.Memory, h.MemorySwap, h.MemoryReservation}, []int64{96 * mega, 96 * mega, 48 * mega})
				equal(t, "processors", []any{h.NanoCPUs, h.CPUShares, h.CpusetCpus}, []any{int64(5e8), int64(256), "0"})
				equal(t, "control group", h.CgroupParent, "/docker")
				equal(t, "devices", h.Devices, []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/nothing", CgroupPermissions: "rw"}})
				equal(t, "device rules", h.DeviceCgroupRules, []string{"c 1:9 r"})
				equal(t, "capabilities", [][]string{unprefixed(h.CapAdd), unprefixed(h.CapDrop)}, [][]string{{"NET_ADMIN"}, {"CHOWN"}})
				equal(t, "security options", h.SecurityOpt, []string{"no-new-privileges"})
				equal(t, "memory file systems", h.Tmpfs, map[string]string{"/fast": "size=1m"})
				equal(t, "of the build container", []any{v.build.HostConfig.Memory, len(v.build.HostConfig.CapAdd)}, []any{int64(0), 0})
			},
		},
	}
}

// unprefixed returns names of capabilities as every engine may write them.
func unprefixed(names []string) []string {
	out := []string{}
	for _, n := range names {
		out = append(out, strings.TrimPrefix(n, "CAP_"))
	}
	return out
}

func networkCases() map[string]keyCase {
	return map[string]keyCase{
		"names": {
			keys: []string{"hostname", "dns", "dns_search", "extra_hosts", "links"},
			set: func(r *rig) {
				neighbour := r.options.Runner.Owner + "-neighbour"
				bystander(r.t, r, client.ContainerCreateOptions{Name: neighbour, Config: &container.Config{Image: enginetest.Image(r.t, "ports")}})
				d := &r.settings
				d.Hostname, d.DNS, d.DNSSearch = "builder", []string{"192.0.2.53"}, []string{"test.example"}
				d.ExtraHosts, d.Links = []string{"elsewhere:192.0.2.7"}, []string{neighbour + ":beside"}
			},
			script: []string{"hostname", "cat /etc/resolv.conf", "cat /etc/hosts", "wget -q -O - http://beside:8080/"},
			wants:  []string{"\nbuilder\n", "nameserver 192.0.2.53", "search test.example", "192.0.2.7\telsewhere", "\nhello nobody\n"},
			check: func(t *testing.T, v *keyView) {
				equal(t, "host name of the helper", v.helper.Config.Hostname, "builder")
				equal(t, "name servers of the helper", fmt.Sprint(v.helper.HostConfig.DNS), "[192.0.2.53]")
				equal(t, "hosts of the helper", v.helper.HostConfig.ExtraHosts, []string{"elsewhere:192.0.2.7"})
			},
		},
		"a network that exists": {
			keys: []string{"network_mode"},
			set: func(r *rig) {
				name := r.options.Runner.Owner + "-network"
				if _, err := r.api().NetworkCreate(r.context(), name, client.NetworkCreateOptions{Driver: "bridge"}); err != nil {
					r.t.Fatal(err)
				}
				r.t.Cleanup(func() {
					if _, err := r.api().NetworkRemove(r.context(), name, client.NetworkRemoveOptions{}); err != nil {
						r.t.Error(err)
					}
				})
				bystander(r.t, r, client.ContainerCreateOptions{
					Name: r.options.Runner.Owner + "-inside", Config: &container.Config{Image: enginetest.Image(r.t, "ports")},
					HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(name)},
				})
				r.settings.NetworkMode = name
				r.job.Services = []tranter.Image{{Name: enginetest.Image(r.t, "ports"), Alias: "web"}}
				r.set("WHERE", r.options.Runner.Owner+"-inside")
			},
			script: []string{"wget -q -O - http://$WHERE:8080/", "wget -q -O - http://web:8080/"},
			wants:  []string{"$WHERE:8080/\x1b[0;m\nhello nobody\n", "web:8080/\x1b[0;m\nhello nobody\n"},
			check: func(t *testing.T, v *keyView) {
				for _, c := range append(v.services, v.build, v.helper) {
					equal(t, "network of "+c.Name, string(c.HostConfig.NetworkMode), v.settings.NetworkMode)
				}
			},
		},
		"a network of the job's own": {
			keys: []string{"network_mtu"},
			set: func(r *rig) {
				r.set("FF_NETWORK_PER_BUILD", "true")
				r.settings.NetworkMTU = 1400
			},
			script: []string{"ip link show eth0"},
			wants:  []string{"mtu 1400"},
			check: func(t *testing.T, v *keyView) {
				network := v.ref().Network
				equal(t, "name of the network", network, "runner-abcdefgh-5-0-77")
				for _, c := range []container.InspectResponse{v.build, v.helper} {
					equal(t, "network of "+c.Name, string(c.HostConfig.NetworkMode), network)
				}
				found, err := v.api().NetworkInspect(v.context(), network, client.NetworkInspectOptions{})
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "runner of the network", found.Network.Labels[spec.StockLabel+"runner.id"], "abcdefgh")
				equal(t, "manager of the network", found.Network.Labels[spec.LabelOwner], v.options.Runner.Owner)
			},
		},
	}
}

func rightsCases() map[string]keyCase {
	return map[string]keyCase{
		"rights": {
			keys: []string{
				"user", "group_add", "cap_add", "cap_drop", "security_opt", "devices", "device_cgroup_rules", "runtime", "isolation",
				"ipcmode", "userns_mode", "tmpfs",
			},
			set: func(r *rig) {
				d := &r.settings
				d.User, d.GroupAdd = "user", []string{"4242"}
				d.CapAdd, d.CapDrop, d.SecurityOpt = []string{"NET_ADMIN"}, []string{"CHOWN", "MKNOD"}, []string{"no-new-privileges", "seccomp=unconfined"}
				d.Devices, d.DeviceCgroupRules = []string{"/dev/null:/dev/nothing:rwm"}, []string{"c 1:9 r"}
				d.Runtime, d.Isolation, d.IPCMode, d.UsernsMode = "runc", "default", "shareable", "host"
				d.Tmpfs = map[string]string{"/fast": "size=2m,mode=1777"}
				r.job.Image.ExecutorOpts = []byte(`{"docker": {"user": "nobody"}}`)
			},
			script: []string{
				"id", "grep -e CapBnd -e NoNewPrivs -e Seccomp: /proc/self/status | tr '\\t' ' '", "ls -l /dev/nothing", "echo seen >/fast/file", "cat /fast/file",
				`echo "fast $(df -k /fast | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2)"`,
			},
			wants: []string{
				"uid=1000(user)", "4242", "NoNewPrivs: 1", "Seccomp: 0", "CapBnd: 00000000a00435", "1,   3", "\nseen\n", "\nfast 2048\n",
			},
			check: func(t *testing.T, v *keyView) {
				equal(t, "user of the build container", v.build.Config.User, "user")
				equal(t, "user of the helper", v.helper.Config.User, "")
				has(t, v.log.String(), `The job asks for user "nobody"; the runner's configuration has it run as "user"`)
				for _, c := range []container.InspectResponse{v.build, v.helper} {
					h := c.HostConfig
					equal(t, "device rules", h.DeviceCgroupRules, []string{"c 1:9 r"})
					equal(t, "capabilities", [][]string{unprefixed(h.CapAdd), unprefixed(h.CapDrop)}, [][]string{{"NET_ADMIN"}, {"CHOWN", "MKNOD"}})
					equal(t, "modes", []string{h.Runtime, string(h.Isolation), string(h.IpcMode), string(h.UsernsMode)}, []string{"runc", "default", "shareable", "host"})
					equal(t, "groups", h.GroupAdd, []string{"4242"})
				}
			},
		},
		"processes of the host": {
			keys:   []string{"pid_mode"},
			set:    func(r *rig) { r.settings.PIDMode = "host" },
			script: []string{`test "$(cat /proc/1/comm)" != tranter && echo "the host's"`},
			wants:  []string{"\nthe host's\n"},
			check: func(t *testing.T, v *keyView) {
				equal(t, "of the helper", string(v.helper.HostConfig.PidMode), "")
			},
		},
		"entrypoints that may not be chosen": {
			keys: []string{"disable_entrypoint_overwrite"},
			set: func(r *rig) {
				r.settings.DisableEntrypointOverwrite = true
				r.job.Image = tranter.Image{Name: enginetest.Image(r.t, "entrypoint-exec"), Entrypoint: []string{"/bin/false"}}
				r.job.Services = []tranter.Image{{Name: enginetest.Image(r.t, "ports"), Alias: "web", Entrypoint: []string{"/bin/false"}}}
			},
			script: []string{`echo "FOO is $FOO"`, "wget -q -O - http://web:8080/"},
			wants:  []string{"\nFOO is bar\n", "\nhello nobody\n"},
			check: func(t *testing.T, v *keyView) {
				has(t, v.log.String(), "The job asks for another entrypoint", "asks for another entrypoint, which the runner's configuration does not allow (disable_entrypoint_overwrite)")
			},
		},
	}
}

func volumeCases() map[string]keyCase {
	return map[string]keyCase{
		"volumes": {
			keys: []string{"volumes", "volume_driver", "volume_driver_ops", "container_labels", "log_options"},
			set: func(r *rig) {
				d := &r.settings
				named := volume(r.t, r, client.VolumeCreateOptions{Name: r.options.Runner.Owner + "-named"})
				d.Volumes = []string{"/made", named + ":/named/$DIR", "/etc/passwd:/host/passwd:ro", "relative"}
				d.VolumeDriver, d.VolumeDriverOps = "local", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=3m"}
				d.ContainerLabels = map[string]string{"team": "blue", "ref": "$LABEL", "io.tranter.owner": "somebody else"}
				d.LogOptions = map[string]string{"labels": "team", "env": "GREETING"}
				r.set("DIR", "below")
				r.job.Variables = []tranter.Variable{{Key: "LABEL", Value: "main"}}
				r.job.Services = []tranter.Image{{Name: enginetest.Image(r.t, "ports"), Alias: "web"}}
			},
			script: []string{
				"echo one >/made/file", "echo two >/named/below/file", "echo three >relative/file", "! echo four >/host/passwd", "grep -c root: /host/passwd",
				`for d in /made /builds /builds/group/project/relative; do echo "$d $(df -k $d | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2)"; done`,
			},
			wants: []string{"Read-only file system", "\n/made 3072\n", "\n/builds 3072\n", "\n/builds/group/project/relative 3072\n"},
			check: func(t *testing.T, v *keyView) {
				for _, c := range append(v.services, v.build, v.helper) {
					equal(t, "label of "+c.Name, []string{c.Config.Labels["team"], c.Config.Labels["ref"]}, []string{"blue", "main"})
					equal(t, "manager of "+c.Name, c.Config.Labels[spec.LabelOwner], v.options.Runner.Owner)
					equal(t, "log of "+c.Name, c.HostConfig.LogConfig.Config["labels"], "team")
					equal(t, "driver of "+c.Name, c.HostConfig.VolumeDriver, "local")
				}
			},
		},
	}
}

func imageCases() map[string]keyCase {
	return map[string]keyCase{
		"images": {
			keys: []string{"image", "helper_image", "pull_policy", "services"},
			set: func(r *rig) {
				r.settings.Image, r.settings.HelperImage = strings.ReplaceAll(r.settings.Image, "busybox", "$BASE"), strings.ReplaceAll(r.settings.HelperImage, "helper", "$KIND")
				r.set("BASE", "busybox")
				r.set("KIND", "helper")
				r.settings.PullPolicy = config.OneOrMany{"never", "always"}
				r.settings.Services = []config.Service{{
					Name: enginetest.Image(r.t, "noports"), Alias: "one two", Command: []string{"-c", "GREETING=\"$WHO\" exec /serve"}, Entrypoint: []string{"/bin/sh"},
					Environment: []string{"WHO=config $BASE", "HEALTHCHECK_TCP_PORT=8080"},
				}}
			},
			script: []string{"wget -q -O - http://one:8080/", "wget -q -O - http://two:8080/"},
			wants:  []string{"one:8080/\x1b[0;m\nhello config busybox\n", "two:8080/\x1b[0;m\nhello config busybox\n"},
			check: func(t *testing.T, v *keyView) {
				has(t, v.log.String(), "[never always]", "tranter-test/busybox:")
				hasNot(t, v.log.String(), "$BASE", "probably didn't start")
				equal(t, "services", len(v.services), 1)
			},
		},
	}
}

// MAC addresses belong to networks since API 1.44. An older engine can't be told; the job learns that.
func TestAMACAddressThatTheEngineDoesNotTake(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.MACAddress = "92:d0:c6:0a:29:33"
	log := r.all("cat /sys/class/net/eth0/address")
	if !strings.Contains(log, "92:d0:c6:0a:29:33") {
		has(t, r.log.String(), "mac_address in [runners.docker] has no effect: it needs an engine with API 1.44")
	}
}

func TestIPv6ThatTheEngineHasNoAddressesFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.EnableIPv6 = true
	r.set("FF_NETWORK_PER_BUILD", "true")
	err := r.try()
	if err == nil { // newer engines have some without being told
		r.sources()
		has(t, r.script("ip -6 address show eth0"), "inet6 fd")
		return
	}
	has(t, err.Error(), "IPv6", "default-address-pools")
}
