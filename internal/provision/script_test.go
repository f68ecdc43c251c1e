package provision

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shells are what sh is on machines.
func shells() [][]string { return [][]string{{"dash"}, {"busybox", "sh"}, {"bash", "--posix"}} }

// sandbox is a directory with programs of the test's, which are all that a script finds.
type sandbox struct {
	dir   string
	shell []string
}

func newSandbox(t *testing.T, shell []string, programs map[string]string) *sandbox {
	t.Helper()
	s := &sandbox{dir: t.TempDir()}
	path, err := exec.LookPath(shell[0])
	if err != nil {
		t.Fatal(err)
	}
	s.shell = append([]string{path}, shell[1:]...)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin", "state"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name := range strings.FieldsSeq("cat grep rm mv cp mkdir rmdir sleep sh tr touch chmod id sed") {
		if _, replaced := programs[name]; !replaced { // no link to it: whoever writes to that would write to busybox
			s.program(t, name, "exec "+busybox+" "+name+` "$@"`)
		}
	}
	for name, text := range programs {
		s.program(t, name, text)
	}
	return s
}

func (s *sandbox) program(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(s.dir, "bin", name)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("#!/bin/sh\nPATH=" + s.dir + "/bin\n" + text + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// run runs the functions of the machine's script, with lines before and after, and returns what it says to the manager, and
// its standard error.
func (s *sandbox) run(t *testing.T, before, after string) (said, noise string) {
	t.Helper()
	script := strings.Join([]string{
		"PATH=" + s.dir + "/bin", "export PATH", "M=m OWNER= HOLD=60 LINGER=0 NAME=machine LOGIN=root WATCH=",
		"state=" + s.dir + "/state SOCKET=" + s.dir + "/sock INSTALL=1 INSTALL_URL= INIT=none TLS=0 PORT=2376",
		deadlineScript, strings.TrimSuffix(prepareScript, "main\n"), "exec 3>&1 1>&2 4<&0 </dev/null", before, after,
	}, "\n")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, s.shell[0], append(s.shell[1:], "-c", script)...)
	c.Env = []string{"D=" + s.dir}
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if ctx.Err() != nil {
		t.Fatalf("it hangs:\n%s%s", &out, &errs)
	}
	if err != nil {
		out.WriteString("(" + err.Error() + ")\n")
	}
	return out.String(), errs.String()
}

func (s *sandbox) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// engineAppears is what a package manager of a test does that installs an engine.
const engineAppears = `touch $D/bin/dockerd && chmod 755 $D/bin/dockerd`

func TestInstallingAnEngine(t *testing.T) {
	const logged = `echo "${0##*/} $*" >>$D/log; `
	for name, c := range map[string]struct {
		programs  map[string]string
		variables string
		said      string
		log       string
	}{
		"it is there": {
			programs: map[string]string{"dockerd": "", "apt-get": logged},
		},
		"apt": {
			programs: map[string]string{"apt-get": logged + "case $* in *install*) " + engineAppears + ";; esac", "apt-cache": "exit 1"},
			said:     "@m step install\n",
			log:      "apt-get -q update\napt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold --no-install-recommends install docker.io ca-certificates\n",
		},
		"apt, with the command apart and lists that cannot be fetched": {
			programs: map[string]string{"apt-get": "case $* in *update) exit 100;; *docker-cli*) " + engineAppears + ";; esac", "apt-cache": ""},
			said:     "@m step install\n",
		},
		"apt, locked at first": {
			programs: map[string]string{
				"apt-get":   logged + `[ -e $D/free ] || { touch $D/free; echo "E: Could not get lock /var/lib/apt/lists/lock" >&2; exit 100; }` + "\ncase $* in *install*) " + engineAppears + ";; esac",
				"apt-cache": "exit 1", "sleep": "",
			},
			said: "@m tick\n@m step install\n",
		},
		"apt fails": {
			programs: map[string]string{"apt-get": "echo no network >&2; exit 100", "apt-cache": "exit 1"},
			said:     "@m fail install the engine could not be installed (status 100)\n(exit status 1)\n",
		},
		"apt installs something else": {
			programs: map[string]string{"apt-get": "", "apt-cache": "exit 1"},
			said:     "@m fail install packages were installed, and there is no engine still\n(exit status 1)\n",
		},
		"dnf has another package": {
			programs: map[string]string{"dnf": logged + `[ "$3" = docker ] || exit 1; ` + engineAppears},
			said:     "@m step install\n",
			log:      "dnf -y install docker-ce\ndnf -y install moby-engine\ndnf -y install docker\n",
		},
		"yum has Podman alone": {
			programs: map[string]string{"yum": `[ "$3" = podman-docker ] || exit 1; touch $D/bin/podman $D/bin/docker; chmod 755 $D/bin/podman $D/bin/docker`},
			said:     "@m step install\n",
		},
		"zypper": {
			programs: map[string]string{"zypper": logged + engineAppears},
			said:     "@m step install\n",
			log:      "zypper --non-interactive install docker\n",
		},
		"apk": {
			programs: map[string]string{"apk": logged + engineAppears},
			said:     "@m step install\n",
			log:      "apk add docker\n",
		},
		"pacman": {
			programs: map[string]string{"pacman": logged + engineAppears},
			said:     "@m step install\n",
			log:      "pacman -Sy --noconfirm --needed docker\n",
		},
		"a script from the web": {
			programs:  map[string]string{"curl": logged + `while [ $# -gt 1 ]; do [ "$1" = -o ] && echo '` + engineAppears + `' >"$2"; shift; done`, "apt-get": "exit 9"},
			variables: "INSTALL_URL=https://example.org/install",
			said:      "@m step install\n",
			log:       "curl -fsSL --retry 3 --connect-timeout 20 --max-time 300 -o STATE/install https://example.org/install\n",
		},
		"no package manager": {
			said: "@m refuse install there is no container engine, and no package manager that is known: use an image with an engine, or set engine.install_url\n(exit status 1)\n",
		},
		"it may not be installed": {
			programs:  map[string]string{"apt-get": logged},
			variables: "INSTALL=0",
			said:      "@m refuse install there is no container engine, and engine.install is false\n(exit status 1)\n",
		},
	} {
		for _, shell := range shells() {
			t.Run(name+" in "+shell[0], func(t *testing.T) {
				t.Parallel()
				s := newSandbox(t, shell, c.programs)
				said, noise := s.run(t, c.variables, "install_engine")
				if said != c.said {
					t.Errorf("it says\n%swant\n%s\n%s", said, c.said, noise)
				}
				if got := strings.ReplaceAll(s.log(t), s.dir+"/state", "STATE"); got != c.log && c.log != "" {
					t.Errorf("it ran\n%swant\n%s", got, c.log)
				}
			})
		}
	}
}

func TestTheCommandLineOfAnEngineThatListens(t *testing.T) {
	const tail = " -H tcp://0.0.0.0:2376 --tlsverify --tlscacert=/etc/docker/ca.pem --tlscert=/etc/docker/server.pem --tlskey=/etc/docker/server-key.pem"
	for name, c := range map[string]struct{ shown, want string }{
		"Debian's": {
			"ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }",
			"/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS" + tail,
		},
		"docker-machine's": {
			"ExecStart={ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd -H tcp://0.0.0.0:2376 -H unix:///var/run/docker.sock --storage-driver overlay2 --tlsverify --tlscacert /etc/docker/ca.pem --label provider=x ; ignore_errors=no }",
			"/usr/bin/dockerd -H unix:///var/run/docker.sock --storage-driver overlay2 --label provider=x" + tail,
		},
		"ours":    {"ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd://" + tail + " ; ignore_errors=no }", "/usr/sbin/dockerd -H fd://" + tail},
		"unknown": {"", "/dockerd -H fd://" + tail},
	} {
		for _, shell := range shells() {
			t.Run(name+" in "+shell[0], func(t *testing.T) {
				t.Parallel()
				s := newSandbox(t, shell, map[string]string{"systemctl": "cat <<'END'\n" + c.shown + "\nEND", "dockerd": ""})
				said, noise := s.run(t, "", "listening >&3")
				if got := strings.ReplaceAll(strings.TrimSpace(said), s.dir+"/bin", ""); got != c.want {
					t.Errorf("got  %s\nwant %s\n%s", got, c.want, noise)
				}
			})
		}
	}
}

func TestFilesAreWrittenWhenTheyDiffer(t *testing.T) {
	for _, shell := range shells() {
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, shell, nil)
			said, noise := s.run(t, "CHANGED=", `
put $D/a/b/file 0600 "one
two"
say "first $CHANGED"
CHANGED=
put $D/a/b/file 0600 "one
two"
say "same $CHANGED"
put $D/a/b/file 0644 "three"
say "other $CHANGED"
put /proc/no/file 0644 x`)
			if want := "@m first 1\n@m same \n@m other 1\n@m fail start cannot write /proc/no/file: is the disk full?\n(exit status 1)\n"; said != want {
				t.Errorf("it says\n%s%s", said, noise)
			}
			info, err := os.Stat(filepath.Join(s.dir, "a", "b", "file"))
			if err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}

func TestAMachineHasOneOwner(t *testing.T) {
	for _, shell := range shells() {
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, shell, nil)
			said, noise := s.run(t, "", `
OWNER=a; (claim); say "a $?"
(claim); say "again $?"
OWNER=b; (claim); say "b $?"
echo 'a 1' >$state/owner
(claim); say "late b $?"
echo 'garbage' >$state/owner
OWNER=c; (claim); say "c $?"
mkdir $state/lock
(claim); say "stale lock $?"`)
			if want := "@m a 0\n@m again 0\n@m held a 60\n@m b 75\n@m late b 0\n@m c 0\n@m stale lock 0\n"; strings.ReplaceAll(said, "held a 59", "held a 60") != want {
				t.Errorf("it says\n%s%s", said, noise)
			}
		})
	}
}

func TestAScriptThatArrivesInPartDoesNothing(t *testing.T) {
	marker := newMarker()
	whole := Settings{Owner: "feed"}.pushing(marker)
	for _, n := range []int{len(whole) / 4, len(whole) / 2, len(whole) - len("main\n")} {
		for _, shell := range shells() {
			c := exec.CommandContext(t.Context(), shell[0], append(shell[1:], "-c", strings.ReplaceAll(whole[:n], stateDir, t.TempDir()))...)
			out, _ := c.Output()
			if strings.Contains(string(out), marker) {
				t.Errorf("%s, %d bytes: it says %s", shell[0], n, out)
			}
		}
	}
}

func TestALoginThatIsNotRootsUsesSudo(t *testing.T) {
	const script = "echo ready\nIFS= read -r answer\necho \"it's $answer\"\n"
	for name, c := range map[string]struct {
		programs map[string]string
		want     string
	}{
		"root":    {map[string]string{"id": "echo 0"}, "it's me\n"},
		"sudo":    {map[string]string{"id": "echo 1000", "sudo": `[ "$1" = -n ] || exit 9; shift; exec "$@"`}, "it's me\n"},
		"doas":    {map[string]string{"id": "echo 1000", "doas": `[ "$1" = -n ] || exit 9; shift; exec "$@"`}, "it's me\n"},
		"neither": {map[string]string{"id": "echo 1000"}, "there is neither sudo nor doas\n"},
	} {
		programs := map[string]string{"sh": `exec /bin/dash "$@"`, "head": `exec /usr/bin/head "$@"`}
		maps.Copy(programs, c.programs)
		s := newSandbox(t, []string{"dash"}, programs)
		run := exec.CommandContext(t.Context(), s.shell[0], "-c", asRoot(len(script)))
		run.Env = []string{"PATH=" + s.dir + "/bin"}
		in, err := run.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := run.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var errs strings.Builder
		run.Stderr = &errs
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		io.WriteString(in, script)
		said := bufio.NewReader(out)
		said.ReadString('\n')
		io.WriteString(in, "me\n")
		got, _ := said.ReadString('\n')
		in.Close()
		run.Wait()
		if got+errs.String() != c.want {
			t.Errorf("%s: %q, want %q; %s", name, got, c.want, &errs)
		}
	}
}
