package docker_test

import (
	"crypto/md5" //nolint:gosec // names of volumes have it in them
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
)

// stockVolume is the name that the stock runner gives to the cache volume of the rig's jobs (runner contract, section 9.9).
func (r *rig) stockVolume(directory, suffix string) string {
	runner := sha256.Sum256([]byte("glrt-abcdefghijk-" + r.options.Runner.SystemID + "-5-0"))
	path := md5.Sum([]byte(directory)) //nolint:gosec // see above
	return "runner-" + hex.EncodeToString(runner[:16]) + "-cache-" + hex.EncodeToString(path[:]) + suffix
}

// ran carries out a whole job and returns its log.
func (r *rig) ran(commands ...string) string {
	r.t.Helper()
	log := r.all(commands...)
	r.close()
	return log
}

func TestCacheVolumesAreFoundAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.Volumes = []string{"/cache"}
	r.ran("mkdir /cache/made && echo kept >/cache/made/file")
	equal(t, "volumes that stay", r.caches(), []string{r.stockVolume("/cache", "")})
	has(t, r.next().ran("cat /cache/made/file"), "\nkept\n")

	protected, yes := r.next(), true
	protected.job.Git.Protected = &yes
	has(t, protected.ran("ls -A /cache | wc -l"), "\n0\n")
	equal(t, "volumes with one for protected refs", len(r.caches()), 2)
	has(t, strings.Join(r.caches(), "\n"), r.stockVolume("/cache", "-protected"))

	elsewhere := r.next()
	elsewhere.provide("CI_CONCURRENT_PROJECT_ID", "1")
	has(t, elsewhere.ran("ls -A /cache | wc -l"), "\n0\n")

	chooser := r.next() // a job can't say in which slot it is
	chooser.set("CI_CONCURRENT_PROJECT_ID", "1")
	has(t, chooser.ran("cat /cache/made/file"), "\nkept\n")
}

// What is built stays for the next job only if that fetches into it.
func TestTheBuildsDirectoryStays(t *testing.T) {
	t.Parallel()
	for strategy, stays := range map[string]bool{"fetch": true, "clone": false} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.set("GIT_STRATEGY", strategy)
			r.ran("echo kept >file")
			if !stays {
				equal(t, "volumes", r.caches(), nil)
				return
			}
			equal(t, "volumes", r.caches(), []string{r.stockVolume("/builds", "")})
			has(t, r.next().ran("cat file"), "\nkept\n")
		})
	}
}

func TestDisableCache(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.Volumes, r.settings.DisableCache = []string{"/cache"}, true
	r.set("GIT_STRATEGY", "fetch")
	r.ran("echo x >/cache/file", "echo x >file")
	equal(t, "volumes", r.caches(), nil)
	has(t, r.next().ran("ls -A /cache . | wc -w"), "\n2\n") // the two headings
}

func TestCacheDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	dir := executortest.OpenDir(t)
	r.settings.Volumes, r.settings.CacheDir = []string{"/cache"}, dir
	r.ran("echo kept >/cache/file")
	equal(t, "volumes", r.caches(), nil)
	name := strings.Replace(r.stockVolume("/cache", ""), "-cache-", "/", 1)
	data, err := os.ReadFile(filepath.Join(dir, name, "file"))
	if err != nil || string(data) != "kept\n" {
		t.Errorf("%q, %v", data, err)
	}
	has(t, r.next().ran("cat /cache/file"), "\nkept\n")
}

func TestVolumeKeep(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "settings") // its image has a volume of its own
			r.settings.VolumeKeep = keep
			has(t, r.all("cat /data/seed", "pwd", `echo "image: $FROM_IMAGE"`), "\nseed\n", "\n/builds/group/project\n", "\nimage: yes\n")
			name := ""
			for _, m := range r.build().Mounts {
				if m.Destination == "/data" {
					name = m.Name
				}
			}
			r.close()
			_, err := r.api().VolumeInspect(r.context(), name, client.VolumeInspectOptions{})
			if stays := err == nil; stays != keep || name == "" {
				t.Errorf("volume %q stays: %v, %v", name, stays, err)
			}
			if keep {
				if _, err := r.api().VolumeRemove(r.context(), name, client.VolumeRemoveOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestVolumesFrom(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	name := volume(t, r, client.VolumeCreateOptions{Name: r.options.Runner.Owner + "-data"})
	other := r.options.Runner.Owner + "-holder"
	bystander(t, r, client.ContainerCreateOptions{
		Name: other, Config: &container.Config{Image: enginetest.Image(t, "busybox"), Cmd: []string{"sh", "-c", "echo theirs >/shared/file; exec sleep 1000"}},
		HostConfig: &container.HostConfig{Binds: []string{name + ":/shared"}},
	})
	r.settings.VolumesFrom = []string{other + ":ro"}
	r.open()
	has(t, r.sources("until cat /shared/file; do sleep 0.1; done"), "\ntheirs\n")
	has(t, r.script("cat /shared/file", "! echo mine >/shared/file"), "\ntheirs\n", "Read-only file system")
	r.close() // before the other container goes
}

// What the helper writes can be changed by whoever the scripts run as.
func TestUsers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		image string
		set   func(*rig)
		id    string
	}{
		"of the image, by number":  {"user", func(*rig) {}, "1000:1000"},
		"of the image, by name":    {"named", func(*rig) {}, "1000:1000"},
		"of the settings":          {"busybox", func(r *rig) { r.settings.User = "1000:7" }, "1000:7"},
		"that the job asks for":    {"busybox", func(r *rig) { r.job.Image.ExecutorOpts = []byte(`{"docker":{"user":"user"}}`) }, "1000:1000"},
		"that the job asks for, 2": {"user", func(r *rig) { r.job.Image.ExecutorOpts = []byte(`{"docker":{"user":0}}`) }, "0:0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.image)
			r.variables = append(r.variables, tranter.Variable{Key: "FILE", Value: "content", File: true})
			tt.set(r)
			r.open()
			r.sources("id -u", "mkdir dir", "echo theirs >file", "echo theirs >dir/file")
			log := r.script(`echo "I am $(id -u):$(id -g)"`, "echo mine >>file", "cat file", "rm dir/file", "echo new >dir/new", `cat "$FILE"`, `echo A=b >>"$GITLAB_ENV"`, "touch new")
			has(t, log, "\nI am "+tt.id+"\n", "\ntheirs\nmine\n", "\ncontent")
		})
	}
}

// With the flag, files belong to the user of the build container and are not for everybody.
func TestFilesWithoutUmask(t *testing.T) {
	t.Parallel()
	r := newRig(t, "user")
	r.set("FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR", "true")
	r.open()
	r.sources("mkdir dir", "echo theirs >dir/file")
	log := r.script("stat -c '%n %u:%g %a' . dir dir/file", "echo mine >>dir/file", "touch new", "stat -c '%n %a' new")
	has(t, log, "\n. 1000:1000 ", "\ndir 1000:1000 755\n", "\ndir/file 1000:1000 644\n", "\nnew 644\n")
}
