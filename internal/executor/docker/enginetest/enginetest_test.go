package enginetest

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// start makes a container and starts it; it is removed when the test ends.
func start(t *testing.T, api *client.Client, config *container.Config, host *container.HostConfig) string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	made, err := api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: config, HostConfig: host})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		if _, err := api.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	if _, err := api.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatalf("start: %v", err)
	}
	return made.ID
}

// run returns what a container printed and its exit code.
func run(t *testing.T, api *client.Client, config *container.Config) (string, int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id := start(t, api, config, nil)
	var code int64
	waiting := api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case ended := <-waiting.Result:
		code = ended.StatusCode
	case err := <-waiting.Error:
		t.Fatalf("wait: %v", err)
	}
	return logs(t, api, id), code
}

func logs(t *testing.T, api *client.Client, id string) string {
	t.Helper()
	stream, err := api.ContainerLogs(t.Context(), id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		t.Fatalf("logs: %v", err)
	}
	defer stream.Close()
	var said bytes.Buffer
	if _, err := stdcopy.StdCopy(&said, &said, stream); err != nil {
		t.Fatalf("logs: %v", err)
	}
	return said.String()
}

func TestImagesDoWhatTheyPromise(t *testing.T) {
	host := Host(t)
	api := Client(t, host)
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	for _, c := range []struct {
		image string
		cmd   []string
		env   []string
		want  string
		code  int64
	}{
		{image: "busybox", cmd: sh("id -u; ls -d /tmp; ls /bin/bash 2>&1; command -v git; exit 5"), want: "0\n/tmp\nls: /bin/bash: No such file or directory\n", code: 5},
		{image: "noshell", cmd: []string{"/bin/echo", "only this"}, want: "only this\n"},
		{image: "user", cmd: sh("id -u; pwd; touch x && echo ok"), want: "1000\n/home/user\nok\n"},
		{image: "named", cmd: sh("id -un; id -gn"), want: "user\nuser\n"},
		{image: "settings", cmd: sh("echo $FROM_IMAGE; pwd; cat /data/seed"), want: "yes\n/srv/image\nseed\n"},
		{image: "debian", cmd: []string{"bash", "-c", "git --version | cut -c1-11; curl --version | head -c4; echo; ls /etc/ssl/certs; id -un user"}, want: "git version\ncurl\nca-certificates.crt\nuser\n"},
		{image: "helper", cmd: []string{"bash", "-c", "git lfs version | cut -c1-7; command -v ssh ssh-add ssh-keyscan dash"}, want: "git-lfs\n/usr/bin/ssh\n/usr/bin/ssh-add\n/usr/bin/ssh-keyscan\n/usr/bin/dash\n"},
		{image: "entrypoint", cmd: sh("echo $FOO"), want: "hello from the entrypoint\nbar\n"},
		{image: "entrypoint-exit", cmd: sh("echo no"), want: "no licence\n", code: 3},
		{image: "entrypoint-child", cmd: sh("exit 6"), want: "the command has ended: 6\n", code: 6},
		{image: "entrypoint-su", cmd: sh("id -u; echo \"$A\""), env: []string{"A=a b"}, want: "1000\na b\n"},
		{image: "entrypoint-user", cmd: sh("id -u; echo $FOO"), want: "1000\nbar\n"},
		{image: "entrypoint-env", cmd: sh("echo got $GOT"), env: []string{"WANTED=it"}, want: "got it\n"},
		{image: "entrypoint-env", cmd: sh("echo got $GOT"), want: "WANTED is not set\n", code: 4},
		{image: "entrypoint-shc", cmd: []string{"echo one; echo two"}, want: "one\ntwo\n"},
		{image: "service-broken", want: "the database is corrupt\n", code: 7},
		{image: "dockercli", cmd: sh("docker --version | cut -c1-14"), want: "Docker version\n"},
		{image: "mirror", cmd: []string{"docker-registry", "--version"}, want: "docker-registry github.com/docker/distribution "},
	} {
		t.Run(c.image, func(t *testing.T) {
			t.Parallel()
			got, code := run(t, api, &container.Config{Image: Image(t, c.image), Cmd: c.cmd, Env: c.env})
			if code != c.code || (got != c.want && (c.image != "mirror" || !strings.HasPrefix(got, c.want))) {
				t.Errorf("exit code %d, want %d; output\n%swant\n%s", code, c.code, got, c.want)
			}
		})
	}
}

func TestServicesListenAsTheirNamesSay(t *testing.T) {
	api := Client(t, Host(t))
	for _, c := range []struct {
		image    string
		env      []string
		exposed  bool
		min, max time.Duration
		want     string
	}{
		{image: "ports", env: []string{"GREETING=you"}, exposed: true, max: 10 * time.Second, want: "hello you\n"},
		{image: "noports", max: 10 * time.Second, want: "hello nobody\n"},
		{image: "service-slow", exposed: true, min: 2 * time.Second, max: 15 * time.Second, want: "hello nobody\n"},
	} {
		t.Run(c.image, func(t *testing.T) {
			t.Parallel()
			id := start(t, api, &container.Config{Image: Image(t, c.image), Env: c.env}, nil)
			began := time.Now()
			found, err := api.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if exposed := len(found.Container.Config.ExposedPorts) > 0; exposed != c.exposed {
				t.Errorf("exposes a port: %t, want %t", exposed, c.exposed)
			}
			got := fetch(t, fmt.Sprintf("http://%s:8080/", found.Container.NetworkSettings.Networks["bridge"].IPAddress))
			if took := time.Since(began); got != c.want || took < c.min || took > c.max {
				t.Errorf("said %q after %v, want %q between %v and %v", got, took, c.want, c.min, c.max)
			}
		})
	}
}

// fetch asks until there is an answer.
func fetch(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err == nil {
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			return string(body)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no answer: %v", err)
		case <-tick.C:
		}
	}
}

func TestTheForeignImageCannotRunHere(t *testing.T) {
	api := Client(t, Host(t))
	reference := Image(t, "arm64")
	found, err := api.ImageInspect(t.Context(), reference)
	if err != nil {
		t.Fatal(err)
	}
	if found.Architecture != "arm64" {
		t.Errorf("architecture %q", found.Architecture)
	}
}

func TestTheAgentNeedsNoLibraries(t *testing.T) {
	path := Agent(t)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("it needs %v, %v", libraries, err)
	}
	if again := Agent(t); again != path {
		t.Errorf("a second call returns %s, the first %s", again, path)
	}
	if out, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput(); err != nil {
		t.Errorf("it does not run: %v %s", err, out)
	}
}

func TestTheClosedRegistryWantsALogin(t *testing.T) {
	closed := PrivateRegistry(t)
	reference := closed.Push(t, "busybox", "team/app", "1")
	for _, c := range []struct {
		user string
		want int
	}{{closed.User, http.StatusOK}, {"stranger", http.StatusUnauthorized}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+closed.Address+"/v2/team/app/tags/list", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(c.user, closed.Password)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != c.want {
			t.Errorf("%s as %q: %s", reference, c.user, answer.Status)
		}
	}
}

func TestATagCanBeMoved(t *testing.T) {
	api := Client(t, Host(t))
	repository := "moving/app"
	pull := func(name string) string {
		reference := Registry(t).Push(t, name, repository, "latest")
		stream, err := api.ImagePull(t.Context(), reference, client.ImagePullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = api.ImageRemove(context.WithoutCancel(t.Context()), reference, client.ImageRemoveOptions{})
		})
		found, err := api.ImageInspect(t.Context(), reference)
		if err != nil {
			t.Fatal(err)
		}
		return found.ID
	}
	first := pull("busybox")
	if second := pull("user"); second == first {
		t.Error("the tag still names the first image")
	}
	if third := pull("busybox"); third != first {
		t.Errorf("moved back, it names %s, want %s", third, first)
	}
}

func TestAnImageIsLoadedWithoutARegistry(t *testing.T) {
	host := Host(t)
	reference := Load(t, host, "busybox")
	if got, code := run(t, Client(t, host), &container.Config{Image: reference, Cmd: []string{"echo", "loaded"}}); got != "loaded\n" || code != 0 {
		t.Errorf("%q, exit code %d", got, code)
	}
}

func TestWhatIsLeftIsFound(t *testing.T) {
	host := Host(t)
	api := Client(t, host)
	label := fmt.Sprintf("enginetest.left=%d", time.Now().UnixNano())
	Clean(t, host, label)
	key, value, _ := strings.Cut(label, "=")
	made, err := api.VolumeCreate(t.Context(), client.VolumeCreateOptions{Labels: map[string]string{key: value}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = api.VolumeRemove(context.WithoutCancel(t.Context()), made.Volume.Name, client.VolumeRemoveOptions{})
	})
	watched := &recorder{TB: t}
	Clean(watched, host, label)
	if watched.failed != 1 {
		t.Errorf("%d complaints about one volume", watched.failed)
	}
}

// recorder counts failures in place of the test that has them.
type recorder struct {
	testing.TB
	failed int
}

func (r *recorder) Errorf(string, ...any) { r.failed++ }
func (r *recorder) Helper()               {}
