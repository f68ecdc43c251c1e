package apptainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Bubblewrap and Charliecloud show an image as it is. What a job writes goes to a layer of its own, an overlay that is
// mounted in a namespace before the runtime starts: the image, which jobs share, never changes. The kernel lets ordinary
// users do that from Linux 5.11 on.

// overlayScript mounts the layer in its own directory, then runs the command that follows. Where the directory's file
// system can't hold a layer, as NFS can't, memory does.
const overlayScript = `cd "$1" || exit 255
mount -t overlay overlay -o "$2lowerdir=lower,upperdir=upper,workdir=work" root 2>/dev/null || {
  mount -t tmpfs tmpfs ram && cp -a upper ram/ && mkdir ram/work &&
    mount -t overlay overlay -o "$2lowerdir=lower,upperdir=ram/upper,workdir=ram/work" root
} || { echo "no layer for what the job writes can be mounted over the image (overlayfs in a user namespace needs Linux 5.11)"; exit 255; }
if test -e "$3"; then exec 9<"$3"; fi
n=$4 i=0
shift 4
while test $i -lt $n; do
  mount --bind "$1" "fixed/$i" && mount -o remount,bind,ro "fixed/$i" || { echo "$1 can't be mounted read-only"; exit 255; }
  shift
  i=$((i+1))
done
exec "$@"
`

// isolate is the part of a command line up to the runtime: namespaces, and the mounted layer. input is a file that the
// runtime reads as its descriptor 9. What is in fixed is mounted read-only in the directory of that name of the layer, by
// its number.
func (c container) isolate(network int, pid bool, input string, fixed []string) []string {
	out := append(c.enter(network), c.Tools.Unshare, "--mount")
	options := ""
	if os.Geteuid() != 0 {
		options = "userxattr,"
		if network == 0 { // else the user namespace is that of the network
			out = append(out, "--user", "--map-root-user")
		}
	}
	if pid {
		out = append(out, "--pid", "--fork", "--kill-child", "--mount-proc")
	}
	out = append(out, c.Tools.Shell, "-c", overlayScript, "tranter", c.Layer, options, input, strconv.Itoa(len(fixed)))
	return append(out, fixed...)
}

func (c container) root() string { return filepath.Join(c.Layer, "root") }

// bubblewrapCommand is bubblewrap's. It reads the environment from a file, since command lines are for all to see.
func (c container) bubblewrapCommand(network int, mark string, argv []string) (invocation, error) {
	var b strings.Builder
	arg := func(words ...string) {
		for _, w := range words {
			b.WriteString(w + "\x00")
		}
	}
	arg("--clearenv")
	for _, kv := range c.Env {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			arg("--setenv", k, v)
		}
	}
	arg("--setenv", marker, mark)
	input := filepath.Join(c.Layer, "environment")
	if err := os.WriteFile(input, []byte(b.String()), 0o600); err != nil {
		return invocation{}, fmt.Errorf("write the container's environment: %w", err)
	}
	out := append(c.isolate(network, false, input, nil), c.Tools.Runtime, "--args", "9", "--bind", c.root(), "/",
		"--proc", "/proc", "--dev", "/dev", "--ro-bind-try", "/sys", "/sys")
	for _, m := range c.Binds {
		flag := "--bind"
		if m.ReadOnly {
			flag = "--ro-bind"
		}
		out = append(out, flag, m.Source, m.Target)
	}
	if !c.Writable {
		out = append(out, "--remount-ro", "/")
	}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		out = append(out, "--unshare-user", "--uid", strconv.Itoa(uid), "--gid", strconv.Itoa(gid))
	}
	out = append(out, "--unshare-pid", "--unshare-ipc", "--die-with-parent")
	if c.Dir != "" {
		out = append(out, "--chdir", c.Dir)
	}
	out = append(append(append(out, c.Options...), "--"), argv...)
	return invocation{Argv: out, Env: c.hostEnv(mark)}, nil
}

// charliecloudCommand is Charliecloud's.
func (c container) charliecloudCommand(network int, mark string, argv []string) (invocation, error) {
	var b strings.Builder
	for _, kv := range c.Env {
		if !strings.Contains(kv, "\n") { // such a file can't have it
			b.WriteString(kv + "\n")
		}
	}
	input := filepath.Join(c.Layer, "environment")
	if err := os.WriteFile(input, []byte(b.String()), 0o600); err != nil {
		return invocation{}, fmt.Errorf("write the container's environment: %w", err)
	}
	binds, fixed, err := c.fixed()
	if err != nil {
		return invocation{}, err
	}
	out := append(c.isolate(network, true, "", fixed), c.Tools.Runtime, "--unset-env=*", "--env-no-expand",
		"--set-env="+input, "--set-env="+marker+"="+mark, "--uid", strconv.Itoa(os.Geteuid()), "--gid", strconv.Itoa(os.Getegid()))
	if c.Writable {
		out = append(out, "--write")
	}
	if c.Dir != "" {
		out = append(out, "--cd", c.Dir)
	}
	for _, m := range binds {
		if m.Target != "/tmp" { // TMPDIR is there
			out = append(out, "--bind", m.Source+":"+m.Target)
		}
	}
	out = append(append(append(out, c.Options...), c.root(), "--"), argv...)
	env := append(c.hostEnv(mark), "TMPDIR="+c.Tmp)
	if os.Getenv("USER") == "" { // it insists
		env = append(env, "USER="+strconv.Itoa(os.Geteuid()))
	}
	return invocation{Argv: out, Env: env}, nil
}

// fixed returns the binds, with what is read-only in the place where isolate mounts it so: Charliecloud itself has no
// such binds.
func (c container) fixed() (binds []bind, sources []string, err error) {
	for _, b := range c.Binds {
		if b.ReadOnly {
			info, err := os.Stat(b.Source)
			if err != nil {
				return nil, nil, configError("what is to be mounted into the container is not there: %w", err)
			}
			layer, err := os.OpenRoot(c.Layer)
			if err != nil {
				return nil, nil, fmt.Errorf("mount %s: %w", b.Target, err)
			}
			name := filepath.Join("fixed", strconv.Itoa(len(sources)))
			err = errors.Join(touch(layer, name, info.IsDir()), layer.Close())
			if err != nil {
				return nil, nil, err
			}
			sources = append(sources, b.Source)
			b.Source = filepath.Join(c.Layer, name)
		}
		binds = append(binds, b)
	}
	return binds, sources, nil
}
