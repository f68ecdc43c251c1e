package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// stuckDisk is a file system that can stop to answer, as that of a server does which is gone: who waits for it can't be
// ended, not by SIGKILL either.
type stuckDisk struct {
	fuse.RawFileSystem
	dir  string
	mu   sync.Mutex
	gate chan struct{} // closed: it answers
}

func newStuckDisk(t *testing.T) *stuckDisk {
	t.Helper()
	root, err := fs.NewLoopbackRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &stuckDisk{RawFileSystem: fs.NewNodeFS(root, &fs.Options{}), dir: t.TempDir(), gate: make(chan struct{})}
	close(d.gate)
	server, err := d.mount()
	if err != nil {
		t.Fatalf("a file system of one's own is needed: /dev/fuse, and root or fusermount3 (%v)", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve()
	}()
	t.Cleanup(func() {
		d.answer()
		_ = exec.Command("fusermount3", "-u", "-z", d.dir).Run()
		_ = exec.Command("umount", "-l", d.dir).Run()
		<-served
	})
	if err := server.WaitMount(); err != nil {
		t.Fatal(err)
	}
	return d
}

// mount makes the file system. What answers for it must not get to a program that is started meanwhile: that would keep
// the file system, and those who wait for it, beyond the end of the test.
func (d *stuckDisk) mount() (*fuse.Server, error) {
	if os.Geteuid() != 0 { // fusermount3 has to be started
		return fuse.NewServer(d, d.dir, &fuse.MountOptions{FsName: "stuck", Name: "stuck"})
	}
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	server, err := fuse.NewServer(d, d.dir, &fuse.MountOptions{DirectMountStrict: true, FsName: "stuck", Name: "stuck"})
	descriptors, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range descriptors {
		if to, _ := os.Readlink(name); to == "/dev/fuse" {
			if fd, err := strconv.Atoi(filepath.Base(name)); err == nil {
				syscall.CloseOnExec(fd)
			}
		}
	}
	return server, err
}

// hang lets all from now on wait.
func (d *stuckDisk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gate = make(chan struct{})
}

// answer lets all go on.
func (d *stuckDisk) answer() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.gate:
	default:
		close(d.gate)
	}
}

func (d *stuckDisk) wait() {
	d.mu.Lock()
	gate := d.gate
	d.mu.Unlock()
	<-gate
}

func (d *stuckDisk) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	d.wait()
	return d.RawFileSystem.Lookup(cancel, h, name, out)
}

func (d *stuckDisk) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	d.wait()
	return d.RawFileSystem.GetAttr(cancel, in, out)
}

func (d *stuckDisk) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	d.wait()
	return d.RawFileSystem.Open(cancel, in, out)
}

func (d *stuckDisk) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	d.wait()
	return d.RawFileSystem.Create(cancel, in, name, out)
}

func (d *stuckDisk) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	d.wait()
	return d.RawFileSystem.Read(cancel, in, buf)
}

func (d *stuckDisk) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	d.wait()
	return d.RawFileSystem.Write(cancel, in, data)
}

func (d *stuckDisk) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	d.wait()
	return d.RawFileSystem.Unlink(cancel, h, name)
}

func (d *stuckDisk) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	d.wait()
	return d.RawFileSystem.OpenDir(cancel, in, out)
}

func (d *stuckDisk) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	d.wait()
	return d.RawFileSystem.StatFs(cancel, h, out)
}

// endMargin is how long after its time of grace (10 s) a job may last that has been ended, and a little for the test.
const endMargin = 10*time.Second + 10*time.Second + 2*time.Second

// A script that waits for a disk that does not answer can't be ended; its job is, in time, and so is the next one.
func TestAScriptOnAStuckDisk(t *testing.T) {
	t.Parallel()
	d := newStuckDisk(t)
	r := newRig(t, "", "")
	r.start()
	job := script("echo before", "touch "+r.path("running"), "while ! [ -e "+r.path("go")+" ]; do sleep 0.02; done", fmt.Sprintf("cat %s/file", d.dir))
	job.Runner.Timeout = 3
	job.Features.FailureReasons = known
	if err := os.WriteFile(d.dir+"/file", []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := r.Enqueue(job)
	r.file(r.path("running"))
	d.hang()
	if err := os.WriteFile(r.path("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v := r.waitLong(id, 3*time.Second+endMargin)
	log := plain(r.Log(id))
	if v.Status != coordinator.Failed || v.Reason != tranter.JobExecutionTimeout || !strings.Contains(log, "before") {
		t.Errorf("%s %s\n%s", v.Status, v.Reason, log)
	}
	if took := v.Times.Duration(time.Now()); took > 3*time.Second+endMargin {
		t.Errorf("it took %v", took)
	}
	next := r.Enqueue(script("echo fine"))
	if v := r.Wait(next); v.Status != coordinator.Success {
		t.Errorf("the next job: %s", v.Status)
	}
}

// The disk of the builds directory stops to answer: the agent itself hangs in it.
func TestTheBuildsDirectoryOnAStuckDisk(t *testing.T) {
	t.Parallel()
	d := newStuckDisk(t)
	r := newRig(t, noGuard, fmt.Sprintf("builds_dir = %q", d.dir+"/builds"))
	r.start()
	job := script("echo before", "cd /", "touch "+r.path("running"), "sleep 60")
	job.Variables = append(job.Variables, tranter.Variable{Key: "FILE", Value: "x", File: true}) // has to be removed at the end
	job.Features.FailureReasons = known
	id := r.Enqueue(job)
	r.file(r.path("running"))
	d.hang()
	began := time.Now()
	r.Abort(id)
	v := r.waitLong(id, 30*time.Second+endMargin)
	if v.Status != coordinator.Canceled {
		t.Errorf("%s %s\n%s", v.Status, v.Reason, plain(r.Log(id)))
	}
	r.eventuallyIn(30*time.Second+endMargin, "the runner has no job left", func() bool {
		out, _ := r.tool("status", "--config", r.path("config.toml"), "--state-dir", r.path("state"), "--output", "json")
		return strings.Contains(out, `"jobs": []`) || strings.Contains(out, `"jobs":[]`)
	})
	t.Logf("over %v after the abort", time.Since(began))
}

// waitLong waits for the end of a job that takes its time.
func (r *rig) waitLong(id int64, limit time.Duration) coordinator.JobView {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	v, err := r.Coordinator.Wait(ctx, id, func(v coordinator.JobView) bool { return v.Status.Finished() })
	if err != nil {
		r.t.Errorf("%v", err)
	}
	return v
}

func (r *rig) eventuallyIn(limit time.Duration, what string, holds func() bool) {
	r.t.Helper()
	end := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(end) {
			r.t.Fatalf("not within %v: %s; the program said:\n%s", limit, what, r.output)
		}
		r.pause(100 * time.Millisecond)
	}
}
