package conformance

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/account"
	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// forUser offers a job of a GitLab user.
func (r *siteRig) forUser(user, tag string, job tranter.Job) int64 {
	r.t.Helper()
	job.Info.ProjectID, job.Info.ProjectFullPath = r.project.ID, r.project.Path
	id, err := r.Coordinator.Enqueue(with(job, "GITLAB_USER_LOGIN", user), tag)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// sharedByAll makes a directory that all users can get through, and one in it in which all can leave files.
func sharedByAll(t *testing.T) (dir, open string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "users") //nolint:usetesting // others have to get into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	open = filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o711, open: 0o777 | os.ModeSticky} { //nolint:gosec // for all
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir, open
}

// testJobsOfUsers runs jobs as the system users tranter-alice and tranter-bob, which tools/setup makes. Only root can.
func testJobsOfUsers(t *testing.T, c *slurmtest.Cluster) {
	dir, open := sharedByAll(t)
	r := newSiteRig(t, c, inBatchJobs("PREFIX", `directory = "`+dir+`/nodes"`, `users = { table = { alice = "tranter-alice", bob = "tranter-bob" } }`, `linger = "2s"`, `take_timeout = "5s"`), `
[runners.first]
tags = ["first"]
`)
	r.env = append(slices.Clone(r.env), "TRANTER_SOMETHING=plant", "CI_SERVER_TOKEN=plant", "SITE_TOKEN=plant")
	if os.Geteuid() != 0 {
		r.start()
		r.eventually("it is refused", func() bool { return strings.Contains(r.output.String(), "only root can") })
		return
	}
	alice, err := account.Lookup("tranter-alice")
	if err != nil {
		t.Fatalf("%v (tools/setup test makes it)", err)
	}
	work := filepath.Join(alice.Home, ".cache/tranter")
	tidy := func() {
		if err := os.RemoveAll(work); err != nil {
			t.Error(err)
		}
	}
	tidy()
	t.Cleanup(tidy)
	r.start()
	hold := "for i in $(seq 200); do [ -e " + open + "/bob-is-done ] && break; sleep 0.1; done"
	first := r.forUser("alice", "first", script(
		"echo I am $(id -un) of $(id -Gn), home $HOME, at $PWD", "stat -c 'work %U %a' $HOME/.cache/tranter", "touch made-here", "stat -c 'made %U %a' made-here",
		"echo planted: $(cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c '^[A-Z_]*=plant$')",
		"echo $PWD > "+open+"/pwd", "echo $SLURM_JOB_NAME > "+open+"/alice", hold,
	))
	r.file(open + "/alice")
	r.seesNothingSecret(dir, alice.UID)
	second := r.forUser("bob", "first", script(
		"echo I am $(id -un)", "mine=$(dirname $(scontrol show job $SLURM_JOB_ID | sed -n 's/^ *StdOut=//p'))", "theirs=$(dirname $mine)/$(cat "+open+"/alice)",
		"ls $theirs $(dirname $mine) $(cat "+open+"/pwd) && echo seen", "cat $theirs/assignment.json $theirs/output $theirs/key && echo seen",
		"mv $theirs $(dirname $mine)/x && echo seen", "echo x >> $(dirname $(dirname $mine))/bin/tranter* && echo seen", "scancel --name=$(cat "+open+"/alice) || true",
		"touch $(cat "+open+"/pwd)/x && echo seen", "echo tried; touch "+open+"/bob-is-done",
	))
	log := r.ends(second, coordinator.Success, "", "I am tranter-bob\n", "\ntried\n")
	if strings.Contains(log, "\nseen") {
		t.Errorf("bob gets at what is alice's:\n%s", log)
	}
	log = r.ends(first, coordinator.Success, "", "I am tranter-alice of tranter-alice tranter-test, home "+alice.Home+", at "+alice.Home+"/.cache/tranter/builds/",
		"work tranter-alice 700\n", "made tranter-alice 6", "planted: 0\n")
	if batchJobOf(log) == batchJobOf(plain(r.Log(second))) {
		t.Error("jobs of two users were in one batch job")
	}
	third := r.forUser("alice", "first", script("id -un"))
	if in := batchJobOf(r.ends(third, coordinator.Success, "", "tranter-alice")); in != batchJobOf(log) {
		t.Logf("alice's next job was in another batch job, %s", in) // her first one may have ended meanwhile
	}
	stranger := r.forUser("mallory", "first", script("echo never"))
	forged := r.forUser("alice", "first", with(script("echo never"), "GITLAB_USER_LOGIN", "bob"))
	r.ends(stranger, coordinator.Failed, tranter.RunnerConfigurationError, "mallory", "add it to table")
	r.ends(forged, coordinator.Failed, tranter.RunnerConfigurationError, "GITLAB_USER_LOGIN")
	r.empty()
	for _, secret := range []string{r.Coordinator.AdminToken().Reveal(), "glrt-"} {
		if strings.Contains(r.output.String(), secret) {
			t.Errorf("a token is in the manager's log")
		}
	}
}

// seesNothingSecret looks, while alice's job runs, at what there is of it.
func (r *siteRig) seesNothingSecret(dir string, alice uint32) {
	r.t.Helper()
	admin := []byte(r.Coordinator.AdminToken().Reveal())
	names := 0
	if err := filepath.WalkDir(filepath.Join(dir, "nodes"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it is gone meanwhile
		}
		if strings.Contains(path, "/allocations/") {
			names++
			if owner := info.Sys().(*syscall.Stat_t).Uid; owner != alice {
				r.t.Errorf("%s belongs to %d", path, owner)
			}
			if filepath.Base(filepath.Dir(path)) == "allocations" && info.Mode().Perm() != 0o700 {
				r.t.Errorf("%s has mode %v", path, info.Mode())
			}
		}
		if info.Mode().IsRegular() && info.Size() < 1<<20 {
			data, err := os.ReadFile(path)
			if err == nil && (bytes.Contains(data, admin) || bytes.Contains(data, []byte("glrt-")) || bytes.Contains(data, []byte("_TOKEN=plant"))) {
				r.t.Errorf("a token of the manager is in %s", path)
			}
		}
		return nil
	}); err != nil || names < 5 {
		r.t.Errorf("%d files of an allocation: %v", names, err)
	}
	jobs := r.cluster.Slurm("scontrol", "show", "job") + r.cluster.Slurm("squeue", "-a", "-h", "-o", "%u %j")
	if !strings.Contains(jobs, "tranter-alice "+r.prefix) || strings.Contains(jobs, string(admin)) || strings.Contains(jobs, "glrt-") {
		r.t.Errorf("batch jobs: %s", jobs)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, path := range lines {
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, admin) {
			r.t.Errorf("a token is in the command line %q", data)
		}
	}
}
