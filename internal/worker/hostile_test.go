//go:build unix

package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
	"github.com/tranter-ci/tranter/internal/worker"
)

// other is another user's account. Tests of what users can do to each other need root, as whom the manager runs then.
func other(t *testing.T) *tranter.Account {
	t.Helper()
	if os.Geteuid() != 0 {
		return &tranter.Account{Name: "me", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} //nolint:gosec // ids are not negative here
	}
	return &tranter.Account{Name: "nobody", UID: 65534, GID: 65534, Home: "/"}
}

func TestAnotherUsersWorkerRunsItsJobs(t *testing.T) {
	ways(t, func(t *testing.T, listen string) {
		s := newSite(t, worker.Options{Listen: listen, Program: executortest.Agent(t)[0]})
		as := other(t)
		s.submit(worker.Assignment{Name: "tranter-1", As: as, Linger: time.Minute})
		s.sign("tranter-1", worker.SignFirst)
		session, spec, _ := s.open("tranter-1", "job")
		r, log := s.run(session, phase(spec, []string{"echo uid=$(id -u)", "ls -la " + s.options.Dir + "/signs 2>/dev/null || echo hidden"}))
		if r.Status != tranter.PhaseSucceeded || !strings.Contains(log, fmt.Sprintf("\nuid=%d\n", as.UID)) || os.Geteuid() == 0 && !strings.Contains(log, "\nhidden") {
			t.Errorf("result %+v\n%s", r, log)
		}
		if err := session.Close(t.Context()); err != nil {
			t.Error(err)
		}
		dir := filepath.Join(s.options.Dir, "allocations", "tranter-1")
		names := []string{".", "assignment.json", "requests", "answers", "sign"}
		if listen != "" {
			names = append(names, "key")
		}
		for _, name := range names {
			info, err := os.Lstat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if st := info.Sys().(*syscall.Stat_t); st.Uid != as.UID || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v and belongs to %d", name, info.Mode(), st.Uid)
			}
		}
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if data, err := os.ReadFile(path); err != nil || bytes.Contains(data, []byte("glcbt-token")) {
				t.Errorf("%s holds the job's token, or can't be read: %v", path, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// prey is an allocation of another user, without a worker, whose directory that user may do anything in.
func prey(t *testing.T) (s *site, dir string, as *tranter.Account) {
	t.Helper()
	s = newSite(t, worker.Options{})
	as = other(t)
	if _, err := s.office.Prepare(worker.Assignment{Name: "tranter-1", As: as}); err != nil {
		t.Fatal(err)
	}
	s.office.Follow("tranter-1")
	return s, filepath.Join(s.options.Dir, "allocations", "tranter-1"), as
}

func secretFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(`{"re":"secret"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func replace(t *testing.T, path string, with func(path string) error) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), with(path)); err != nil {
		t.Fatal(err)
	}
}

func TestLinksOutOfAUsersDirectoryLeadNowhere(t *testing.T) {
	secret := secretFile(t)
	symbolic := func(path string) error { return os.Symlink(secret, path) }
	hard := func(path string) error { return os.Link(secret, path) }
	pipe := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	for name, c := range map[string]struct {
		file string
		with func(string) error
	}{
		"requests by a link":      {"requests", symbolic},
		"requests by a hard link": {"requests", hard},
		"requests by a pipe":      {"requests", pipe},
		"answers by a link":       {"answers", symbolic},
		"answers by a hard link":  {"answers", hard},
		"answers by a pipe":       {"answers", pipe},
		"bodies by a link":        {"in", func(path string) error { return os.Symlink(filepath.Dir(secret), path) }},
	} {
		if strings.Contains(name, "hard") && os.Geteuid() != 0 {
			continue // all files are ours then
		}
		t.Run(name, func(t *testing.T) {
			s, dir, _ := prey(t)
			replace(t, filepath.Join(dir, c.file), c.with)
			spec, _ := s.spec("job")
			ctx, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			if _, err := s.executor("tranter-1").Open(ctx, spec); err == nil || strings.Contains(name, "link") && ctx.Err() != nil {
				t.Errorf("error %v", err)
			}
			if data, err := os.ReadFile(secret); err != nil || string(data) != `{"re":"secret"}`+"\n" {
				t.Errorf("the file of somebody else holds %q, %v", data, err)
			}
			if entries, err := os.ReadDir(filepath.Dir(secret)); err != nil || len(entries) != 1 {
				t.Errorf("files were made: %v, %v", entries, err)
			}
		})
	}
}

func TestASignIsOfItsUser(t *testing.T) {
	s, dir, as := prey(t)
	secret := filepath.Join(t.TempDir(), "sign")
	content := []byte(`{"seq":1,"host":"elsewhere"}`)
	if err := os.WriteFile(secret, content, 0o600); err != nil {
		t.Fatal(err)
	}
	none := func(what string) {
		t.Helper()
		select {
		case sign := <-s.office.Signs():
			t.Errorf("%s: %+v", what, sign)
		case <-time.After(200 * time.Millisecond):
		}
	}
	hints := filepath.Join(s.options.Dir, "signs")
	for _, name := range []string{"tranter-1.forged", "tranter-2.forged", "nonsense", "..x", strings.Repeat("x", 200)} {
		if err := os.WriteFile(filepath.Join(hints, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(hints, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	none("hints alone")
	if left, err := os.ReadDir(hints); err != nil || len(left) > 0 {
		t.Errorf("hints are left: %v, %v", left, err)
	}
	path := filepath.Join(dir, "sign")
	replace(t, path, func(path string) error { return os.Symlink(secret, path) })
	none("a link")
	replace(t, path, func(path string) error { return syscall.Mkfifo(path, 0o600) })
	none("a pipe")
	replace(t, path, func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<20), 0o600) })
	none("a large one")
	if os.Geteuid() == 0 {
		replace(t, path, func(path string) error { return os.WriteFile(path, content, 0o600) })
		none("one of root")
	}
	replace(t, path, func(path string) error {
		return errors.Join(os.WriteFile(path, []byte(`{"seq":1,"host":"a\u001b[31m","reason":"r\n"}`), 0o600), os.Chown(path, int(as.UID), int(as.GID)))
	})
	select {
	case sign := <-s.office.Signs():
		if sign.Kind != worker.SignFirst || sign.Host != "a [31m" {
			t.Errorf("sign %+v", sign)
		}
	case <-time.After(10 * time.Second):
		t.Error("the user's own sign is not seen")
	}
}

func TestOneUserGetsNothingOfAnother(t *testing.T) {
	s, dir, _ := prey(t)
	if _, err := s.office.Prepare(worker.Assignment{Name: "tranter-2"}); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(s.options.Dir, "allocations", "tranter-2", "jobs", "job")
	if err := os.MkdirAll(filepath.Join(foreign, "phase-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"journal": "somebody's log", "result.json": `{"status":"succeeded","log_bytes":14}`} {
		if err := os.WriteFile(filepath.Join(foreign, "phase-1", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"../tranter-2/jobs", filepath.Dir(foreign)} {
		replace(t, filepath.Join(dir, "jobs"), func(path string) error { return os.Symlink(link, path) })
		ref, err := json.Marshal(map[string]string{"allocation": "tranter-1", "job": "job", "attempt": "x"})
		if err != nil {
			t.Fatal(err)
		}
		session, err := s.executor("tranter-1").Reopen(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
		var log bytes.Buffer
		if _, err := session.Attach(ctx, "1", 0, &log); err == nil || log.Len() > 0 {
			t.Errorf("%s: attached, %v: %q", link, err, log.String())
		}
		stop()
	}
	s.office.Lost("tranter-1", errors.New("gone"))
	session, err := s.executor("tranter-1").Reopen(t.Context(), json.RawMessage(`{"allocation":"tranter-1","job":"job","attempt":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if _, err := session.Attach(t.Context(), "1", 0, &log); !errors.Is(err, tranter.ErrMachineLost) || log.Len() > 0 {
		t.Errorf("attached when it was lost, %v: %q", err, log.String())
	}
	_ = session.Close(t.Context())
	if err := s.office.Remove("tranter-1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(foreign, "phase-1", "journal")); err != nil {
		t.Errorf("another user's file: %v", err)
	}
}

func TestAWorkerThatWritesNonsenseIsGivenUp(t *testing.T) {
	s, dir, as := prey(t)
	path := filepath.Join(dir, "answers")
	replace(t, path, func(path string) error {
		return errors.Join(os.WriteFile(path, bytes.Repeat([]byte("x"), 2<<20), 0o600), os.Chown(path, int(as.UID), int(as.GID)))
	})
	spec, _ := s.spec("job")
	if _, err := s.executor("tranter-1").Open(t.Context(), spec); !errors.Is(err, tranter.ErrMachineLost) || !strings.Contains(err.Error(), "rules") {
		t.Errorf("error %v", err)
	}
}

// cutter is a way between worker and manager that breaks.
type cutter struct {
	net.Listener
	to string

	mu    sync.Mutex
	conns []net.Conn
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, to: to}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", c.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, in, out)
			c.mu.Unlock()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				all.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_, _ = pair[0].Close(), pair[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() { _ = l.Close(); c.cut(); all.Wait() })
	return c
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.conns {
		_ = x.Close()
	}
	c.conns = nil
}

// rewrite changes what a worker is told.
func rewrite(t *testing.T, s *site, key string, value func(string) string) {
	t.Helper()
	path := filepath.Join(s.options.Dir, "allocations", "tranter-1", "assignment.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	all[key] = value(all[key].(string))
	if data, err = json.Marshal(all); err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsLostWhenConnectionsBreak(t *testing.T) {
	t.Parallel()
	s := newSite(t, worker.Options{Listen: "127.0.0.1:0"})
	a := worker.Assignment{Name: "tranter-1", Linger: time.Minute}
	script, err := s.office.Prepare(a)
	if err != nil {
		t.Fatal(err)
	}
	var way *cutter
	rewrite(t, s, "connect", func(to string) string { way = newCutter(t, to); return way.Addr().String() })
	s.office.Follow("tranter-1")
	s.launch(a, script)
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		tick := time.NewTicker(80 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				way.cut()
			}
		}
	})
	session, spec, _ := s.open("tranter-1", "job", tranter.Variable{Key: "SAY", Value: strings.Repeat("pulling\n", 5000)})
	const size = 20_000_000
	p := phase(spec, []string{"echo ran >>runs", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' '\\001'; echo", size), "sleep 0.5", "wc -l <runs"})
	if err := session.Start(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := session.Attach(t.Context(), "1", 0, &log)
	close(stop)
	cutting.Wait()
	if err != nil || r.Status != tranter.PhaseSucceeded || r.LogBytes != int64(log.Len()) || bytes.Count(log.Bytes(), []byte{1}) != size || !strings.HasSuffix(strings.TrimSpace(log.String()), "\n1") {
		t.Errorf("result %+v, %v, %d bytes, %d of the output", r, err, log.Len(), bytes.Count(log.Bytes(), []byte{1}))
	}
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStrangersAreNotLetIn(t *testing.T) {
	for name, key := range map[string]string{"manager": "fingerprint", "worker": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, worker.Options{Listen: "127.0.0.1:0"})
			a := worker.Assignment{Name: "tranter-1", LostAfter: time.Second, Linger: time.Minute}
			script, err := s.office.Prepare(a)
			if err != nil {
				t.Fatal(err)
			}
			spec, _ := s.spec("job")
			s.office.Follow("tranter-1")
			if key != "" {
				rewrite(t, s, key, func(f string) string { return strings.Repeat("0", len(f)) })
			} else { // the office has another key than the worker has read
				script = strings.Replace(script, "exec ", "sleep 0.1; exec ", 1)
				content := filepath.Join(s.options.Dir, "allocations", "tranter-1", "key")
				if err := os.WriteFile(content, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s.launch(a, script)
			ctx, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			if _, err := s.executor("tranter-1").Open(ctx, spec); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("nonsense", func(t *testing.T) {
		s := newSite(t, worker.Options{Listen: "127.0.0.1:0"})
		script, err := s.office.Prepare(worker.Assignment{Name: "tranter-1"})
		if err != nil || strings.Contains(script, "key") {
			t.Fatalf("script %q, %v", script, err)
		}
		data, err := os.ReadFile(filepath.Join(s.options.Dir, "listen.json"))
		if err != nil {
			t.Fatal(err)
		}
		var id struct {
			Port int `json:"port"`
		}
		if err := json.Unmarshal(data, &id); err != nil || id.Port == 0 {
			t.Fatalf("%s: %v", data, err)
		}
		for range 20 {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", id.Port))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100)); err != nil {
				t.Log(err) // it has hung up
			}
			defer c.Close()
		}
		s.office.Follow("tranter-1")
		s.launch(worker.Assignment{Name: "tranter-1"}, script)
		s.sign("tranter-1", worker.SignFirst)
	})
}

func TestTheProgramIsCopiedForTheNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, worker.Options{})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		o := worker.Options{Dir: s.options.Dir, Self: self}
		office, err := worker.NewOffice(o)
		if err != nil {
			t.Fatal(err)
		}
		script, err := office.Prepare(worker.Assignment{Name: "it's"})
		if err == nil {
			t.Errorf("a name with a quote is taken: %s", script)
		}
		script, err = office.Prepare(worker.Assignment{Name: "tranter-1"})
		if err != nil {
			t.Fatal(err)
		}
		programs, err := filepath.Glob(filepath.Join(s.options.Dir, "bin", "*"))
		if err != nil || len(programs) != 1 || !strings.Contains(script, "exec '"+programs[0]+"' agent worker '") {
			t.Errorf("programs %v, %v, script %q", programs, err, script)
		}
		if out, err := exec.Command("cmp", self, programs[0]).CombinedOutput(); err != nil {
			t.Errorf("%s, %v", out, err)
		}
	}
}
