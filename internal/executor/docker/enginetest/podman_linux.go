package enginetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"testing"

	"github.com/moby/moby/client"
)

// PodmanService is podman behind Docker's API, for one test: it shares nothing with a podman of the machine's user.
type PodmanService struct {
	place
	as *user.User // nil: root
}

// rootlessUser is the account that tools/setup makes.
const rootlessUser = "tranter-test"

// Podman starts podman's service as root. It is removed with all that it has when the test ends.
func Podman(t testing.TB) *PodmanService {
	t.Helper()
	return startPodman(t, &PodmanService{})
}

// RootlessPodman starts podman's service as an ordinary user.
func RootlessPodman(t testing.TB) *PodmanService {
	t.Helper()
	as, err := user.Lookup(rootlessUser)
	if err != nil {
		t.Fatalf("the user for a rootless engine (run tools/setup test): %v", err)
	}
	return startPodman(t, &PodmanService{as: as})
}

func startPodman(t testing.TB, p *PodmanService) *PodmanService {
	t.Helper()
	p.prepare(t)
	p.configure(t)
	if p.as == nil {
		t.Cleanup(func() { // before the rest is removed: it gives back what lies outside of its directory
			if err := p.podman("rm", "--all", "--force", "--time", "0").Run(); err != nil {
				t.Errorf("remove podman's containers: %v\n%s", err, p.Log())
			}
		})
	}
	ended, err := bound(p.podman("system", "service", "--time=0", p.Host()))
	if err != nil {
		t.Fatalf("start podman: %v", err)
	}
	api := Client(t, p.Host())
	p.until(t, ended, "podman", func(ctx context.Context) error {
		_, err := api.Ping(ctx, client.PingOptions{})
		return err
	})
	return p
}

// configure writes podman's settings. The limits are low since raising them takes a capability that a sandbox may lack.
func (p *PodmanService) configure(t testing.TB) {
	t.Helper()
	var registries strings.Builder
	for _, s := range []*Server{Registry(t), PrivateRegistry(t)} {
		if err := p.network.forward(t, s.Address); err != nil {
			t.Fatalf("let podman reach the registry: %v", err)
		}
		fmt.Fprintf(&registries, "[[registry]]\nlocation = %q\ninsecure = true\n", s.Address)
	}
	for name, content := range map[string]string{
		"registries.conf": registries.String(),
		"containers.conf": "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n[containers]\nlog_driver = \"k8s-file\"\n" +
			"default_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n",
	} {
		if err := os.WriteFile(p.path(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(p.path("home"), 0o700); err != nil {
		t.Fatal(err)
	}
	if p.as == nil {
		return
	}
	for _, path := range []string{p.dir, p.path("home")} {
		if out, err := exec.CommandContext(t.Context(), "chown", p.as.Uid+":"+p.as.Gid, path).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
}

func (p *PodmanService) podman(args ...string) *exec.Cmd {
	args = append([]string{
		"podman", "--root", p.path("data"), "--runroot", p.path("run"), "--tmpdir", p.path("tmp"), "--network-config-dir", p.path("networks"),
	}, args...)
	cmd := p.command(args[0], args[1:]...)
	if p.as != nil {
		cmd = p.command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", rootless, p.dir, p.as.Uid, p.as.Gid}, args...)...)
	}
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + p.path("home"), "XDG_RUNTIME_DIR=" + p.path("home"), "TMPDIR=" + p.path("home"),
		"CONTAINERS_CONF=" + p.path("containers.conf"), "CONTAINERS_REGISTRIES_CONF=" + p.path("registries.conf"),
	}
	return cmd
}

// rootless runs a command as an ordinary user, in a view of the files where such a one may use what containers need: a
// sandbox may have the devices for root alone. The user's change would make the kernel forget that the command is to end
// with its parent.
const rootless = `set -e
mount --make-rshared /
for device in "tun 10 200 /dev/net/tun" "fuse 10 229 /dev/fuse"; do
  set -- $device "$@"
  [ -e "$0/$1" ] || mknod -m 666 "$0/$1" c "$2" "$3"
  mount --bind "$0/$1" "$4"
  shift 4
done
uid=$1 gid=$2
shift 2
exec setpriv --pdeathsig KILL --reuid "$uid" --regid "$gid" --clear-groups "$@"
`
