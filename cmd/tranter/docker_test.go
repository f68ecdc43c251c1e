package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
)

// dockerHost is a host with a configuration and a state directory of its own, and the machine's engine.
type dockerHost struct {
	t                    *testing.T
	api                  *client.Client
	config, state, owner string
	prefix               string // of the names of what it makes
}

func newDockerHost(t *testing.T, more string) dockerHost {
	t.Helper()
	host := enginetest.Host(t)
	h := dockerHost{t: t, api: enginetest.Client(t, host), state: t.TempDir(), prefix: "prune-" + strings.ToLower(rand.Text()) + "-"}
	dir := t.TempDir()
	h.config = filepath.Join(dir, "config.toml")
	text := "[[runners]]\nname = \"containers\"\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-abcdefghijklmnopqrst\"\nexecutor = \"docker\"\n" +
		"[runners.docker]\nimage = \"busybox\"\nhost = \"" + host + "\"\n" + more
	id := "s_" + strings.ToLower(rand.Text())[:12]
	for name, data := range map[string]string{"config.toml": text, systemIDFile: id} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.owner = engineOwner(id, h.state)
	return h
}

// run runs "tranter docker" with the arguments.
func (h dockerHost) run(args ...string) (out string, code int) {
	h.t.Helper()
	var b bytes.Buffer
	args = append([]string{"docker"}, args...)
	code = run(h.t.Context(), append(args, "--config", h.config, "--state-dir", h.state), streams{in: strings.NewReader(""), out: &b, err: &b})
	return b.String(), code
}

// cache makes a cache volume that was used so many hours ago.
func (h dockerHost) cache(name string, hours int) string {
	h.t.Helper()
	name = h.prefix + name
	labels := map[string]string{"io.tranter.owner": h.owner, "com.gitlab.gitlab-runner.type": "cache"}
	if _, err := h.api.VolumeCreate(h.t.Context(), client.VolumeCreateOptions{Name: name, Labels: labels}); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if _, err := h.api.VolumeRemove(ctx, name, client.VolumeRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
			h.t.Error(err)
		}
	})
	e, err := engine.Open(h.t.Context(), engine.Options{Host: enginetest.Host(h.t)})
	if err != nil {
		h.t.Fatal(err)
	}
	defer e.Close()
	uses, err := janitor.OpenUses(janitor.UsesPath(h.state, e.Facts().ID))
	if err != nil {
		h.t.Fatal(err)
	}
	uses.Used(janitor.Volume, name, time.Now().Add(-time.Duration(hours)*time.Hour))
	if err := uses.Save(); err != nil {
		h.t.Fatal(err)
	}
	return name
}

func (h dockerHost) has(volume string) bool {
	h.t.Helper()
	_, err := h.api.VolumeInspect(h.t.Context(), volume, client.VolumeInspectOptions{})
	if err != nil && !errdefs.IsNotFound(err) {
		h.t.Fatal(err)
	}
	return err == nil
}

func TestDockerPruneShowsAndThenRemoves(t *testing.T) {
	t.Parallel()
	h := newDockerHost(t, "")
	old, young := h.cache("old", 100), h.cache("young", 1)
	out, code := h.run("prune", "--dry-run")
	if code != 0 || !h.has(old) || !h.has(young) {
		t.Fatalf("code %d, %s", code, out)
	}
	before, after, ok := strings.Cut(out, "What stays:")
	if !ok || !strings.Contains(before, old) || !strings.Contains(before, "not used for 4 days") || !strings.Contains(after, young) ||
		!strings.Contains(after, "used 1h ago") || !strings.Contains(out, "Would be removed: 0 images and 1 cache volume") {
		t.Errorf("%s", out)
	}
	out, code = h.run("prune", "--volumes")
	if code != 0 || h.has(old) || !h.has(young) || !strings.Contains(out, "1/1 removed volume "+old) || !strings.Contains(out, "Removed: 0 images and 1 cache volume") {
		t.Errorf("code %d, %s", code, out)
	}
	out, code = h.run("prune", "--volumes", "--min-age", "0s", "--output", "json")
	var reports []prunedEngine
	if err := json.Unmarshal([]byte(out), &reports); err != nil || code != 0 || len(reports) != 1 || len(reports[0].Removed) != 1 {
		t.Fatalf("code %d, %v, %s", code, err, out)
	}
	if r := reports[0]; r.Removed[0].Name != young || h.has(young) || r.Runners[0] != "containers" || r.DryRun {
		t.Errorf("%+v", r)
	}
	if out, code = h.run("prune", "--images"); code != 0 || !strings.Contains(out, "There is nothing to remove.") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestDockerListShowsWhatIsOurs(t *testing.T) {
	t.Parallel()
	h := newDockerHost(t, "")
	volume := h.cache("listed", 1)
	out, code := h.run("ls", "--runner", "containers")
	if code != 0 || !strings.Contains(out, volume) || !strings.Contains(out, "of containers") {
		t.Errorf("code %d, %s", code, out)
	}
	out, code = h.run("ls", "--output", "json")
	var engines []listedEngine
	if err := json.Unmarshal([]byte(out), &engines); err != nil || code != 0 || len(engines) != 1 {
		t.Fatalf("code %d, %v, %s", code, err, out)
	}
	for _, m := range engines[0].Things {
		if m.Name == volume && m.What == "volume" && m.Type == "cache" && m.Owner == h.owner && time.Since(m.Created) < time.Hour {
			return
		}
	}
	t.Errorf("%+v", engines[0].Things)
}

func TestDockerCommandsThatCanNotBeCarriedOut(t *testing.T) {
	t.Parallel()
	h := newDockerHost(t, `
[[runners]]
name = "plain"
url = "https://gitlab.example.com"
token = "glrt-bbbbbbbbbbbbbbbbbbbb"
executor = "shell"
[[runners]]
name = "nowhere"
url = "https://gitlab.example.com"
token = "glrt-cccccccccccccccccccc"
executor = "docker"
[runners.docker]
image = "busybox"
host = "unix:///nowhere/docker.sock"
`)
	volume := h.cache("old", 100)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no such runner":  {[]string{"prune", "--runner", "other"}, "no runner in " + h.config + " matches"},
		"no engine":       {[]string{"prune", "--runner", "plain"}, `its executor is "shell"`},
		"negative age":    {[]string{"prune", "--min-age", "-5m"}, "--min-age"},
		"too much":        {[]string{"prune", "--mirror", "--images"}, "leave --images"},
		"an argument":     {[]string{"prune", "all"}, "belongs to no flag"},
		"does not answer": {[]string{"ls", "--runner", "nowhere"}, "connect to the container engine of nowhere"},
	} {
		if out, code := h.run(c.args...); code != 1 || !strings.Contains(out, c.want) {
			t.Errorf("%s: code %d, %s", name, code, out)
		}
	}
	// An engine that does not answer keeps no other from being looked after.
	if out, code := h.run("prune", "--volumes"); code != 1 || h.has(volume) || !strings.Contains(out, "connect to the container engine of nowhere") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestDockerPruneOfTheMirrorTouchesNothingElse(t *testing.T) {
	t.Parallel()
	h := newDockerHost(t, "")
	volume := h.cache("old", 100)
	if out, code := h.run("prune", "--mirror"); code != 0 || !strings.Contains(out, "There is nothing to remove.") || !h.has(volume) {
		t.Errorf("code %d, %s", code, out)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(h.config), systemIDFile)); err != nil {
		t.Fatal(err)
	}
	if out, code := h.run("prune", "--mirror"); code != 1 || !strings.Contains(out, "no manager has run") {
		t.Errorf("code %d, %s", code, out)
	}
}
