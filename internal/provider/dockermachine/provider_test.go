package dockermachine

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
)

func driver(t *testing.T) string {
	t.Helper()
	return filepath.Join(machinetest.Driver(t), "docker-machine-driver-lab")
}

// bench is a provider over the lab driver, and what it is told and tells.
type bench struct {
	*Provider
	t       *testing.T
	control string
	log     *buffer
	label   string // of this test's containers

	mu    sync.Mutex
	notes map[string][]json.RawMessage
}

const busy = "trap 'exit 0' TERM; while true; do sleep 100 & wait; done"

func newBench(t *testing.T, options ...string) *bench {
	t.Helper()
	b := &bench{t: t, control: t.TempDir(), log: &buffer{}, label: "tranter.test=" + strings.ToLower(rand.Text()), notes: map[string][]json.RawMessage{}}
	host := enginetest.Host(t)
	t.Cleanup(func() { b.clean(host) })
	options = append([]string{
		"lab-image=" + enginetest.Load(t, host, "busybox"), "lab-command=" + busy, "lab-token=much-secret", "lab-tag=" + b.label,
	}, options...)
	var err error
	b.Provider, err = New(Options{
		Driver: driver(t), Options: options, Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(b.log, nil)), Debug: true,
		Environment: []string{"LAB_CONTROL=" + b.control, "DOCKER_HOST=" + host},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// again returns a provider as a next process has it.
func (b *bench) again() {
	p, err := New(b.o)
	if err != nil {
		b.t.Fatal(err)
	}
	p.limits = b.limits
	b.Provider = p
}

func (b *bench) containers() []container.Summary {
	b.t.Helper()
	api := enginetest.Client(b.t, enginetest.Host(b.t))
	list, err := api.ContainerList(context.WithoutCancel(b.t.Context()), client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", b.label)})
	if err != nil {
		b.t.Fatal(err)
	}
	return list.Items
}

func (b *bench) clean(host string) {
	api, err := client.New(client.WithHost(host))
	if err != nil {
		b.t.Fatal(err)
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.t.Context()), time.Minute)
	defer cancel()
	list, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", b.label)})
	if err != nil {
		b.t.Error(err)
	}
	for _, c := range list.Items {
		if _, err := api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			b.t.Error(err)
		}
	}
}

// switchOn switches a fault of the driver.
func (b *bench) switchOn(fault, moments string) {
	b.t.Helper()
	path := filepath.Join(b.control, fault)
	if err := os.WriteFile(path, []byte(moments), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { os.Remove(path) })
}

func (b *bench) switchOff(fault string) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.control, fault)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) create(ctx context.Context, name string, options ...string) (tranter.Machine, error) {
	return b.Create(ctx, tranter.MachineSpec{Name: name, Options: options, Mark: tranter.Mark{Owner: "0123456789abcdef", Pool: "Tok_1.x"}},
		func(raw json.RawMessage) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.notes[name] = append(b.notes[name], raw)
		})
}

// noted returns the reference that was noted last.
func (b *bench) noted(name string) tranter.MachineRef {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := tranter.MachineRef{Name: name}
	if n := len(b.notes[name]); n > 0 {
		m.Ref = b.notes[name][n-1]
	}
	return m
}

func (b *bench) wantContainers(n int) {
	b.t.Helper()
	if got := b.containers(); len(got) != n {
		b.t.Errorf("%d containers, want %d", len(got), n)
	}
}

func (b *bench) waitFor(what string, is func() bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain for %s; the log:\n%s", what, b.log)
		}
	}
}

func name() string { return "lab-" + strings.ToLower(rand.Text()[:12]) }

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestAMachineIsMadeListedStoppedStartedAndRemoved(t *testing.T) {
	t.Parallel()
	b, ctx, m := newBench(t, "lab-size=1"), t.Context(), name()
	if err := b.Check(ctx); err != nil {
		t.Fatal(err)
	}
	made, err := b.create(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	if made.Name != m || len(made.ID) != 64 || made.Power != tranter.PowerOn || made.Login.Host == "" || made.Login.Port != 22 || made.Login.User != "root" {
		t.Errorf("made %+v", made)
	}
	if string(made.Ref) != string(b.noted(m).Ref) {
		t.Error("the reference is not the one that was noted last")
	}
	key, err := os.Stat(made.Login.Identity)
	if err != nil || key.Mode().Perm() != fileMode {
		t.Errorf("the key: %v, %v", key, err)
	}
	if folder, err := os.Stat(b.folder.of(m)); err != nil || folder.Mode().Perm() != dirMode {
		t.Errorf("the folder: %v, %v", folder, err)
	}
	found := b.containers()
	if len(found) != 1 || found[0].Labels["tranter-owner"] != "0123456789abcdef" || found[0].Labels["tranter-pool"] != "tok_1-x" {
		t.Fatalf("containers %+v", found)
	}
	known := []tranter.MachineRef{{Name: m, Ref: made.Ref}, {Name: "nothing-noted"}}
	if list, err := b.List(ctx, tranter.Mark{}, known); err != nil || len(list) != 1 || list[0].Login != made.Login || list[0].Power != tranter.PowerOn || list[0].ID != made.ID {
		t.Errorf("listed %+v, %v", list, err)
	}
	if err := b.Stop(ctx, known[0]); err != nil {
		t.Fatal(err)
	}
	if list, err := b.List(ctx, tranter.Mark{}, known); err != nil || len(list) != 1 || list[0].Power != tranter.PowerOff {
		t.Errorf("listed %+v, %v", list, err)
	}
	if err := b.Stop(ctx, known[0]); err != nil {
		t.Errorf("stop again: %v", err)
	}
	started, err := b.Start(ctx, known[0])
	if err != nil || started.Login.Host == "" || started.Power != tranter.PowerOn {
		t.Errorf("started %+v, %v", started, err)
	}
	for range 2 { // that it is gone is success
		if err := b.Destroy(ctx, tranter.MachineRef{Name: m, Ref: started.Ref}); err != nil {
			t.Fatal(err)
		}
	}
	b.wantContainers(0)
	if _, err := os.Stat(b.folder.of(m)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if list, err := b.List(ctx, tranter.Mark{}, known); err != nil || len(list) != 0 {
		t.Errorf("listed %+v, %v", list, err)
	}
	if strings.Contains(b.log.String(), "much-secret") {
		t.Errorf("the log has a secret in it:\n%s", b.log)
	}
}

func TestWrongOptionsAreFoundBeforeAnythingIsCreated(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		options []string
		want    string
	}{
		"unknown":     {[]string{"lab-creat-delay=3"}, "no option \"lab-creat-delay\"; the nearest is lab-create-delay"},
		"no prefix":   {[]string{"size=3"}, "the nearest is lab-size"},
		"nothing so":  {[]string{"zzzzzzzz=3"}, "has no option \"zzzzzzzz\""},
		"wrong type":  {[]string{"lab-size=big"}, "option lab-size: expected a whole number, got \"big\""},
		"wrong bool":  {[]string{"lab-hang=perhaps"}, "expected true or false"},
		"no value":    {[]string{"lab-size"}, "needs a value"},
		"no token":    {[]string{"lab-token="}, "set lab-token or the variable LAB_TOKEN"},
		"wrong token": {[]string{"lab-token=wrong"}, "unable to authenticate"},
		"no image":    {[]string{"lab-image=no/such:image"}, "No such image"},
		"several":     {[]string{"lab-size=big", "lab-nonsense=1"}, "lab-nonsense"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, c.options...)
			err := b.Check(t.Context())
			if !errors.Is(err, tranter.ErrRejected) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Check: got %v, want ErrRejected with %q", err, c.want)
			}
			m := name()
			if _, err := b.create(t.Context(), m); !errors.Is(err, tranter.ErrRejected) {
				t.Errorf("Create: got %v, want ErrRejected", err)
			}
			if b.noted(m).Ref != nil {
				t.Error("something was noted although nothing was created")
			}
			if err := b.Destroy(t.Context(), b.noted(m)); err != nil {
				t.Errorf("Destroy: %v", err)
			}
			left, err := os.ReadDir(b.o.Dir)
			if err != nil || len(left) > 1 {
				t.Errorf("left in the folder: %v, %v", left, err)
			}
		})
	}
}

func TestTheIDIsNotedWhileTheDriverStillWorks(t *testing.T) {
	t.Parallel()
	b, m := newBench(t), name()
	b.limits.poll = 10 * time.Millisecond
	b.switchOn("hang", "created")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() {
		_, err := b.create(ctx, m)
		ended <- err
	}()
	b.waitFor("the id", func() bool {
		r, err := parseRef(b.noted(m).Ref)
		return err == nil && r.Changed && machineID(r.Driver, r.Config) != ""
	})
	b.mu.Lock()
	first, err := parseRef(b.notes[m][0])
	b.mu.Unlock()
	if err != nil || first.Changed {
		t.Errorf("the first note: %v, %v; it has to be the intent", first.Changed, err)
	}
	cancel(errors.New("enough"))
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Create: %v, want the context's cause", err)
	}
	b.switchOff("hang")
	b.again()
	b.wantContainers(1)
	if err := b.Destroy(t.Context(), b.noted(m)); err != nil {
		t.Error(err)
	}
	b.wantContainers(0)
}

func TestAMachineWhoseIDWasNeverToldMayBeLeft(t *testing.T) {
	t.Parallel()
	b, m := newBench(t, "lab-id-late=true", "lab-remove-by-id", "lab-die-during-create"), name()
	if _, err := b.create(t.Context(), m); err == nil || !strings.Contains(err.Error(), "has ended (exit status 4)") {
		t.Fatalf("Create: %v, want that the driver died", err)
	}
	if _, err := b.create(t.Context(), m); err == nil {
		t.Error("a second call creates a second machine, or has found the first one")
	}
	b.wantContainers(1)
	err := b.Destroy(t.Context(), b.noted(m))
	if orphan, ok := errors.AsType[*tranter.OrphanError](err); !ok || orphan.Name != m || !strings.Contains(orphan.Hint, "driver lab") {
		t.Errorf("Destroy: %v, want an OrphanError", err)
	}
	b.wantContainers(1) // as the error says
}

func TestADriverThatDiesDuringCreateLeavesWhatDestroyFinds(t *testing.T) {
	t.Parallel()
	b, m := newBench(t, "lab-die-during-create"), name()
	b.limits.poll = time.Millisecond
	b.switchOn("die", "done")
	_, err := b.create(t.Context(), m)
	if err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Fatalf("Create: %v, want that the driver died", err)
	}
	err = b.Destroy(t.Context(), b.noted(m))
	if _, orphan := errors.AsType[*tranter.OrphanError](err); err != nil && !orphan {
		t.Errorf("Destroy: %v", err)
	}
	b.wantContainers(0) // this driver finds machines by their names too
}

func TestASecondCallFindsWhatTheFirstHasMade(t *testing.T) {
	t.Parallel()
	b, ctx, m := newBench(t), t.Context(), name()
	b.switchOn("fail", "done: it did not work, though it did")
	if _, err := b.create(ctx, m); err == nil || !strings.Contains(err.Error(), "it did not work") {
		t.Fatalf("Create: %v", err)
	}
	b.switchOff("fail")
	b.again()
	made, err := b.create(ctx, m)
	if err != nil || made.Login.Host == "" {
		t.Errorf("Create: %+v, %v", made, err)
	}
	b.wantContainers(1)
	if err := b.Destroy(ctx, tranter.MachineRef{Name: m}); err != nil { // the folder knows it
		t.Error(err)
	}
	b.wantContainers(0)
	if _, err := b.create(ctx, m); err != nil {
		t.Errorf("the name is free again: %v", err)
	}
}

func TestADriverThatHangsIsEndedAndStartedAgain(t *testing.T) {
	t.Parallel()
	b, ctx, m := newBench(t), t.Context(), name()
	made, err := b.create(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	b.limits.ask = 300 * time.Millisecond
	b.switchOn("hang", "state")
	known := tranter.MachineRef{Name: m, Ref: made.Ref}
	if list, err := b.List(ctx, tranter.Mark{}, []tranter.MachineRef{known}); err != nil || len(list) != 1 || list[0].Power != tranter.PowerUnknown || list[0].ID == "" {
		t.Errorf("listed %+v, %v", list, err)
	}
	if err := b.Destroy(ctx, known); err != nil { // with a second process, which is not asked for the state
		t.Error(err)
	}
	b.wantContainers(0)
	if got := strings.Count(b.log.String(), "it is started again"); got != 2 {
		t.Errorf("started again %d times, want 2", got)
	}
}

func TestADriverThatDiesBeforeCreateIsStartedAgain(t *testing.T) {
	t.Parallel()
	b, m := newBench(t), name()
	b.switchOn("die", "check")
	_, err := b.create(t.Context(), m)
	if _, ended := errors.AsType[*plugin.EndedError](err); !ended {
		t.Errorf("Create: %v, want that the driver died", err)
	}
	if got := strings.Count(b.log.String(), "it is started again"); got != 1 {
		t.Errorf("started again %d times, want once", got)
	}
	if err := b.Destroy(t.Context(), b.noted(m)); err != nil {
		t.Errorf("Destroy: %v; nothing was asked of the driver that costs", err)
	}
}

func TestFailuresHaveTheirKinds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for what, c := range map[string]struct {
		fault, moments string
		is             func(error) bool
	}{
		"throttled": {"throttle", "", func(err error) bool { _, ok := errors.AsType[*tranter.ThrottledError](err); return ok }},
		"capacity":  {"fail", "create: server type cx11 is sold out", func(err error) bool { return errors.Is(err, tranter.ErrNoCapacity) }},
		"rejected":  {"fail", "create: image not found", func(err error) bool { return errors.Is(err, tranter.ErrRejected) }},
		"passing":   {"fail", "create: Post \"https://api\": connection refused", func(err error) bool { return err != nil && !isKind(err) }},
	} {
		b.switchOn(c.fault, c.moments)
		m := name()
		if _, err := b.create(t.Context(), m); !c.is(err) {
			t.Errorf("%s: got %v", what, err)
		}
		b.switchOff(c.fault)
		if err := b.Destroy(t.Context(), b.noted(m)); err != nil {
			if _, orphan := errors.AsType[*tranter.OrphanError](err); !orphan {
				t.Errorf("%s: Destroy: %v", what, err)
			}
		}
	}
	b.wantContainers(0)
}

func TestARemovalThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	b, ctx, m := newBench(t), t.Context(), name()
	made, err := b.create(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	known := tranter.MachineRef{Name: m, Ref: made.Ref}
	for _, text := range []string{"remove: internal server error", "remove: ssh key 'x' not found", "remove: 429 too many requests"} {
		b.switchOn("fail", text)
		if err := b.Destroy(ctx, known); err == nil {
			t.Errorf("%s: Destroy says success", text)
		}
	}
	b.wantContainers(1)
	if _, err := os.Stat(b.folder.of(m)); err != nil {
		t.Errorf("the folder is gone: %v", err)
	}
	b.switchOff("fail")
	if err := b.Destroy(ctx, known); err != nil {
		t.Error(err)
	}
}

func TestSlowAnswersWrongAddressesAndLongLinesAreBorne(t *testing.T) {
	t.Parallel()
	b, m := newBench(t), name()
	made, err := b.create(t.Context(), m, "lab-late-answer=1", "lab-long-line", "lab-wrong-address=192.0.2.1")
	if err != nil || made.Login.Host != "192.0.2.1" {
		t.Fatalf("Create: %+v, %v", made, err)
	}
	if log := b.log.String(); !strings.Contains(log, "the line goes on") || !strings.Contains(log, "creating machine "+m) {
		t.Error("the log lacks the long line or what comes after it")
	}
	if err := b.Destroy(t.Context(), b.noted(m)); err != nil {
		t.Error(err)
	}
	m = name()
	if _, err := b.create(t.Context(), m, "lab-wrong-address=-oProxyCommand=x"); err == nil {
		t.Error("an address that is an option of ssh is taken")
	}
}

func TestUserDataReachesTheMachine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho hello > /mounted\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, m := newBench(t, "lab-user-data="+file), name()
	if _, err := b.create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	id := b.containers()[0].ID
	api := enginetest.Client(t, enginetest.Host(t))
	b.waitFor("the file that the script writes", func() bool {
		_, err := api.ContainerStatPath(t.Context(), id, client.ContainerStatPathOptions{Path: "/mounted"})
		return err == nil
	})
}

func TestATemplateOfUserDataIsFilledForEachMachine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "user-data.tmpl")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("#!/bin/sh\necho {{.Name}} {{.Owner}} > /mounted\n")
	b, m := newBench(t, "lab-local-engine", "lab-user-data="+file), name()
	if _, err := b.create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	filled, err := os.ReadFile(filepath.Join(b.folder.of(m), "lab-user-data"))
	if want := "#!/bin/sh\necho " + m + " 0123456789abcdef > /mounted\n"; err != nil || string(filled) != want {
		t.Errorf("got %q, %v, want %q", filled, err, want)
	}
	for _, wrong := range []string{"{{.Nonsense}}", "{{"} {
		write(wrong)
		if err := b.Check(t.Context()); !errors.Is(err, tranter.ErrRejected) || !strings.Contains(err.Error(), "user-data.tmpl") {
			t.Errorf("%s: Check: %v", wrong, err)
		}
	}
}

func TestTwentyMachinesAreMadeAtTheSameMoment(t *testing.T) {
	t.Parallel()
	const n = 20
	b := newBench(t, "lab-local-engine") // no containers: the drivers are what is at stake
	var making sync.WaitGroup
	refs := make([]tranter.MachineRef, n)
	for i := range n {
		making.Go(func() {
			m := name()
			made, err := b.create(t.Context(), m)
			if err != nil {
				t.Error(err)
			}
			refs[i] = tranter.MachineRef{Name: m, Ref: made.Ref}
		})
	}
	making.Wait()
	list, err := b.List(t.Context(), tranter.Mark{}, refs)
	if err != nil || len(list) != n || slices.ContainsFunc(list, func(m tranter.Machine) bool { return m.Power != tranter.PowerOn }) {
		t.Errorf("listed %d, %v", len(list), err)
	}
	for _, r := range refs {
		making.Go(func() {
			if err := b.Destroy(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	making.Wait()
	if list, err := b.List(t.Context(), tranter.Mark{}, refs); err != nil || len(list) != 0 {
		t.Errorf("listed %d, %v", len(list), err)
	}
}

func TestADriverIsFoundByItsNameInThePathOfThisProcessOrInItsOwn(t *testing.T) {
	dir := filepath.Dir(driver(t))
	o := Options{Driver: "lab", Dir: t.TempDir(), Options: []string{"lab-token=x", "lab-local-engine"}}
	check := func() error {
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		return p.Check(t.Context())
	}
	if err := check(); !errors.Is(err, tranter.ErrRejected) || !strings.Contains(err.Error(), "driver lab is not installed") {
		t.Errorf("without it: %v", err)
	}
	o.Environment = []string{"PATH=" + dir}
	if err := check(); err != nil {
		t.Errorf("in its own: %v", err)
	}
	o.Environment = []string{"OTHER=1"}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if err := check(); err != nil {
		t.Errorf("in ours: %v", err)
	}
}

func TestAMachineOfDockerMachineIsLeftAlone(t *testing.T) {
	t.Parallel()
	b, ctx, m := newBench(t, "lab-local-engine"), t.Context(), name()
	config := filepath.Join(b.folder.of(m), "config.json")
	if err := errors.Join(os.MkdirAll(b.folder.of(m), dirMode), os.WriteFile(config, []byte("{}"), fileMode)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.create(ctx, m); !errors.Is(err, tranter.ErrRejected) {
		t.Errorf("Create: %v", err)
	}
	if err := b.Destroy(ctx, tranter.MachineRef{Name: m}); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if _, err := os.Stat(config); err != nil {
		t.Error(err)
	}
}

func TestAProgramThatHasMovedIsFound(t *testing.T) {
	t.Parallel()
	b, ctx, m := newBench(t, "lab-local-engine"), t.Context(), name()
	made, err := b.create(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRef(made.Ref)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := Ref("/old/place/docker-machine-driver-lab", r.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Destroy(ctx, tranter.MachineRef{Name: m, Ref: moved}); err != nil {
		t.Errorf("Destroy: %v", err)
	}
}

func TestThisHostCanBeTheMachine(t *testing.T) {
	t.Parallel()
	b, ctx, m := newBench(t, "lab-local-engine", "lab-ssh-port=2222", "lab-ssh-user=ci", "lab-ssh-key=/some/key"), t.Context(), name()
	made, err := b.create(ctx, m)
	want := tranter.Login{Host: "127.0.0.1", Port: 2222, User: "ci", Identity: "/some/key"}
	if err != nil || made.Login != want {
		t.Fatalf("Create: %+v, %v", made, err)
	}
	if err := b.Destroy(ctx, tranter.MachineRef{Name: m, Ref: made.Ref}); err != nil {
		t.Error(err)
	}
	if list, err := b.List(ctx, tranter.Mark{}, []tranter.MachineRef{{Name: m, Ref: made.Ref}}); err != nil || len(list) != 0 {
		t.Errorf("listed %+v, %v", list, err)
	}
}

func TestStrangeNamesAndReferencesAreRefused(t *testing.T) {
	t.Parallel()
	b, ctx := newBench(t), t.Context()
	for _, bad := range []string{"", "..", ".x", "-x", "a/b", "a b", "a\x00", strings.Repeat("a", 300)} {
		if _, err := b.create(ctx, bad); !errors.Is(err, tranter.ErrRejected) {
			t.Errorf("Create of %q: %v", bad, err)
		}
		if err := b.Destroy(ctx, tranter.MachineRef{Name: bad}); err == nil {
			t.Errorf("Destroy of %q is success", bad)
		}
	}
	for _, raw := range []string{"x", "{}", `{"driver":"lab"}`, `{"driver":"lab","config":"much-secret"}`, `{"driver":"no-such-driver","config":{}}`} {
		known := tranter.MachineRef{Name: "m", Ref: json.RawMessage(raw)}
		if err := b.Destroy(ctx, known); err == nil || strings.Contains(err.Error(), "much-secret") {
			t.Errorf("Destroy with reference %s: %v", raw, err)
		}
		if list, err := b.List(ctx, tranter.Mark{}, []tranter.MachineRef{known}); err != nil || len(list) != 1 || list[0].Power != tranter.PowerUnknown {
			t.Errorf("List with reference %s: %+v, %v", raw, list, err)
		}
	}
}

// giveUp begins a creation and ends its context after the first note.
func (b *bench) giveUp(m string, options ...string) error {
	ctx, cancel := context.WithCancelCause(b.t.Context())
	defer cancel(nil)
	_, err := b.Create(ctx, tranter.MachineSpec{Name: m, Options: options}, func(raw json.RawMessage) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.notes[m] = append(b.notes[m], raw); len(b.notes[m]) == 1 {
			time.AfterFunc(100*time.Millisecond, func() { cancel(errors.New("enough")) })
		}
	})
	return err
}

func TestADriverMaySayWhatItMakesAfterACreationIsGivenUp(t *testing.T) {
	t.Parallel()
	b, m := newBench(t), name()
	if err := b.giveUp(m, "lab-create-delay=1"); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Create: %v, want the context's cause", err)
	}
	b.wantContainers(1)
	if err := b.Destroy(t.Context(), b.noted(m)); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	b.wantContainers(0)
}

func TestADriverThatSaysNothingAfterACreationIsGivenUpIsEnded(t *testing.T) {
	t.Parallel()
	b, m := newBench(t, "lab-hang"), name()
	b.limits.grace = 200 * time.Millisecond
	if err := b.giveUp(m); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Create: %v, want the context's cause", err)
	}
	err := b.Destroy(t.Context(), b.noted(m))
	if _, orphan := errors.AsType[*tranter.OrphanError](err); !orphan {
		t.Errorf("Destroy: %v, want an OrphanError", err)
	}
}

func TestACreationThatNeverReachedTheDriverLeavesNothing(t *testing.T) {
	t.Parallel()
	b, m := newBench(t), name()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := b.Create(ctx, tranter.MachineSpec{Name: m}, func(raw json.RawMessage) {
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.notes[m] = append(b.notes[m], raw)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Create: %v", err)
	}
	if err := b.Destroy(t.Context(), b.noted(m)); err != nil {
		t.Errorf("Destroy: %v", err)
	}
}

func TestTheKeyThatTheDriverMakesOpensTheMachine(t *testing.T) {
	t.Parallel()
	b := newBench(t, "lab-image="+machinetest.Bare(t), "lab-command=", "lab-network="+machinetest.Network(t))
	made, err := b.create(t.Context(), name())
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(made.Login.Identity)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ClientConfig{
		User: made.Login.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
	}
	b.waitFor("the login", func() bool {
		c, err := ssh.Dial("tcp", net.JoinHostPort(made.Login.Host, strconv.Itoa(made.Login.Port)), config)
		return err == nil && c.Close() == nil
	})
}
