package docker_test

import (
	"crypto/rand"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// onBridge makes an address of the machine's loopback interface reachable from containers, as long as it is not closed.
type onBridge struct {
	Address string

	listener net.Listener
	mu       sync.Mutex
	passed   int // connections
	all      sync.WaitGroup
}

// bridged listens on the machine's end of the engine's default network.
func bridged(t *testing.T, r *rig, target string) *onBridge {
	t.Helper()
	found, err := r.api().NetworkInspect(r.context(), "bridge", client.NetworkInspectOptions{})
	if err != nil || len(found.Network.IPAM.Config) == 0 {
		t.Fatalf("the engine's default network: %+v, %v", found, err)
	}
	config := found.Network.IPAM.Config[0]
	gateway := config.Gateway
	if !gateway.IsValid() {
		gateway = config.Subnet.Masked().Addr().Next()
	}
	b := &onBridge{}
	if b.listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(gateway.String(), "0")); err != nil {
		t.Fatal(err)
	}
	b.Address = b.listener.Addr().String()
	b.all.Go(func() {
		for {
			in, err := b.listener.Accept()
			if err != nil {
				return
			}
			b.all.Go(func() { b.pass(in, target) })
		}
	})
	t.Cleanup(func() {
		b.close()
		b.all.Wait()
	})
	return b
}

func (b *onBridge) pass(in net.Conn, target string) {
	defer in.Close()
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	b.mu.Lock()
	b.passed++
	b.mu.Unlock()
	var both sync.WaitGroup
	for _, c := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			_, _ = io.Copy(c[0], c[1])
			_, _ = c[0].Close(), c[1].Close()
		})
	}
	both.Wait()
}

func (b *onBridge) close() { _ = b.listener.Close() }

func (b *onBridge) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.passed
}

// nestedRig is a job with a container engine as its service. It runs without --privileged, which takes a capability that a
// sandbox may lack: the settings are what that comes to.
func nestedRig(t *testing.T, options ...string) *rig {
	t.Helper()
	r := newRig(t, "dockercli")
	r.shell = "sh"
	r.alone()
	s := &r.settings
	s.ServicesCapAdd, s.ServicesCapDrop = []string{"ALL"}, []string{"SYS_RESOURCE"}
	s.ServicesSecurityOpt = []string{"seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"}
	s.ServicesDeviceCgroupRules = []string{"a *:* rwm"}
	s.ServicesTmpfs = map[string]string{"/run": ""}
	s.Volumes = []string{"/sys/fs/cgroup:/sys/fs/cgroup", "/certs/client", "/cache"}
	s.WaitForServicesTimeout = 50 * time.Second
	r.job.Services = []tranter.Image{{Name: enginetest.Image(t, "dind"), Alias: "docker", Command: options}}
	return r
}

// alone gives the runner cache volumes that no other test's has.
func (r *rig) alone() { r.options.Runner.SystemID = "s_" + rand.Text() }

// public sets a variable as those of .gitlab-ci.yml are.
func (r *rig) public(key, value string) {
	r.variables = append(r.variables, tranter.Variable{Key: key, Value: value, Public: true})
}

// without takes the registry's address off a reference.
func without(t *testing.T, reference string) string {
	t.Helper()
	_, name, ok := strings.Cut(reference, "/")
	if !ok {
		t.Fatalf("%s has no registry", reference)
	}
	return name
}

func TestDockerInDocker(t *testing.T) {
	t.Parallel()
	for name, variables := range map[string]map[string]string{
		"TLS": {
			"DOCKER_TLS_CERTDIR": "/certs", "DOCKER_HOST": "tcp://docker:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs/client",
		},
		"no TLS": {"DOCKER_TLS_CERTDIR": "", "DOCKER_HOST": "tcp://docker:2375"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := nestedRig(t)
			registry := bridged(t, r, enginetest.Registry(t).Address)
			r.job.Services[0].Command = []string{"--insecure-registry=" + registry.Address}
			for k, v := range variables {
				r.public(k, v)
			}
			base := registry.Address + "/" + without(t, enginetest.Image(t, "busybox"))
			jobs := 1
			if variables["DOCKER_TLS_CERTDIR"] != "" {
				jobs = 2 // the second one finds the first one's certificates
			}
			for n := range jobs {
				began := time.Now()
				r.open()
				opened := time.Since(began)
				r.sources()
				log := r.script(
					"until docker info >/dev/null 2>&1; do sleep 0.1; done",
					"docker pull -q "+base,
					"docker run --rm "+base+" echo inside",
					"printf 'FROM "+base+"\\nRUN echo built >/file\\n' | docker build -q -t mine -",
					"docker run --rm mine cat /file",
				)
				t.Logf("job %d: opened after %v, done after %v", n, opened, time.Since(began))
				has(t, log, "\ninside\n", "\nbuilt\n")
				hasNot(t, r.log.String(), "WARNING")
				r.close()
				r = r.next()
			}
		})
	}
}
