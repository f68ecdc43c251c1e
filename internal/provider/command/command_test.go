//go:build unix

package command_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/command"
)

var mark = tranter.Mark{Owner: "0123456789abcdef", Pool: "abcdefghi"}

// shell is a program that is a shell script. It finds its request in $request.
func shell(script string) []string {
	return []string{"/bin/sh", "-c", "request=$(cat); " + script}
}

// provider runs scripts: of create, remove, list and status.
func provider(t *testing.T, o command.Options) tranter.Provider {
	t.Helper()
	for program, fallback := range map[*[]string]string{&o.Create: `echo '{"address":"h"}'`, &o.Remove: "exit 0", &o.List: `echo '{"machines":[]}'`} {
		if *program == nil {
			*program = shell(fallback)
		}
	}
	p, err := command.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func create(t *testing.T, o command.Options, options ...string) (tranter.Machine, []string, error) {
	t.Helper()
	var notes []string
	m, err := provider(t, o).Create(t.Context(), tranter.MachineSpec{Name: "m-1", Mark: mark, Options: options}, func(ref json.RawMessage) { notes = append(notes, string(ref)) })
	return m, notes, err
}

func TestAMachineIsCreated(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "request")
	script := `printf %s "$request" >` + seen + `
		echo '{"ref":{"server":7}}'
		echo '{"ref":{"server":7},"id":"srv-7"}'
		printf '{\n  "address": "192.0.2.7",\n  "user": "ci",\n  "port": 2222,\n  "identity_file": "/keys/ci"\n}'`
	m, notes, err := create(t, command.Options{Create: shell(script), Options: []string{"type=small", "image=debian"}}, "type=large", "spot", "empty=", "equals=a=b")
	if err != nil {
		t.Fatal(err)
	}
	all := `{"id":"srv-7","address":"192.0.2.7","user":"ci","port":2222,"identity_file":"/keys/ci","ref":{"server":7}}`
	want := tranter.Machine{
		Name: "m-1", ID: "srv-7", Power: tranter.PowerOn, Ref: json.RawMessage(all),
		Login: tranter.Login{Host: "192.0.2.7", Port: 2222, User: "ci", Identity: "/keys/ci"},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`{"ref":{"server":7}}`, `{"id":"srv-7","ref":{"server":7}}`, all}, notes); diff != "" {
		t.Error(diff)
	}
	request, err := os.ReadFile(seen)
	wanted := `{"version":1,"action":"create","name":"m-1","owner":"0123456789abcdef","pool":"abcdefghi","options":{"empty":"","equals":"a=b","image":"debian","spot":"true","type":"large"}}`
	if diff := cmp.Diff(wanted, string(request)); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

// What it has printed is noted while it still works: it is not known whether it will ever end.
func TestAnEarlyLineIsNotedAtOnce(t *testing.T) {
	dir := t.TempDir()
	script := `echo '{"id":"7"}'; while [ ! -e ` + dir + `/noted ]; do sleep 0.01; done; echo 'boom' >&2; exit 9`
	_, err := provider(t, command.Options{Create: shell(script)}).Create(t.Context(), tranter.MachineSpec{Name: "m-1"}, func(ref json.RawMessage) {
		if string(ref) != `{"id":"7"}` {
			t.Errorf("%s", ref)
		}
		if err := os.WriteFile(dir+"/noted", nil, 0o600); err != nil {
			t.Error(err)
		}
	})
	if err == nil || err.Error() != "create machine m-1: sh has failed (exit status 9) (it says: boom)" {
		t.Error(err)
	}
}

func TestHowACreationFails(t *testing.T) {
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	throttled := func(after time.Duration) func(error) bool {
		return func(err error) bool {
			e, ok := errors.AsType[*tranter.ThrottledError](err)
			return ok && e.RetryAfter == after
		}
	}
	passing := func(err error) bool {
		_, ok := errors.AsType[*tranter.ThrottledError](err)
		return !ok && !errors.Is(err, tranter.ErrNoCapacity) && !errors.Is(err, tranter.ErrRejected)
	}
	for _, c := range []struct {
		name, script string
		kind         func(error) bool
		text         string
	}{
		{"no capacity", "echo sold out >&2; exit 4", is(tranter.ErrNoCapacity), "sh: no capacity (it says: sold out)"},
		{"rejected", "exit 5", is(tranter.ErrRejected), "sh: rejected"},
		{"throttled", `echo '{"retry_after": 1.5}'; exit 6`, throttled(1500 * time.Millisecond), "wants to be asked less often"},
		{"throttled for ever", `echo '{"retry_after": 1e300}'; exit 6`, throttled(24 * time.Hour), ""},
		{"throttled into the past", `echo '{"retry_after": -1}'; exit 6`, throttled(0), ""},
		{"throttled without a word", `exit 6`, throttled(0), ""},
		{"words before the code", "echo Error; exit 4", is(tranter.ErrNoCapacity), ""},
		{"anything else", "exit 7", passing, "sh has failed (exit status 7)"},
		{"not found", "exit 3", passing, "no such machine"},
		{"killed", "kill -9 $$", passing, "signal: killed"},
		{"only the last lines", "seq 100 >&2; exit 1", passing, "(it says: 96; 97; 98; 99; 100)"},
		{"nothing", ":", passing, `sh: no address: expected {"address": "...", "id"`},
		{"words", "echo Created m-1.", passing, `sh: understand the answer: it is no JSON: invalid character 'C' looking for beginning of value, got "Created m-1."`},
		{"half", `printf '{"address":"h"'`, passing, `unexpected EOF, got "{\"address\":\"h\""`},
		{"a list", `echo '[{"address":"h"}]'`, passing, "it is no JSON object"},
		{"misspelt", `echo '{"host":"h"}'`, passing, `unknown field "host"`},
		{"another machine", `echo '{"name":"m-2","address":"h"}'`, passing, `the answer is about machine "m-2"`},
		{"wrong type", `echo '{"address":7}'`, passing, "cannot unmarshal number"},
		{"no address", `echo '{"id":"7"}'`, passing, `no address: expected {"address": "..."`},
		{"an address that is a flag", `echo '{"address":"-oProxyCommand=x"}'`, passing, `the address is "-oProxyCommand=x", expected a host name`},
		{"an address with a user", `echo '{"address":"u@h"}'`, passing, "expected a host name"},
		{"a port", `echo '{"address":"h","port":70000}'`, passing, "the port is 70000"},
		{"a key file", `echo '{"address":"h","identity_file":"key"}'`, passing, "expected an absolute path"},
		{"a power", `echo '{"address":"h","power":"on"}'`, passing, `the power is "on", expected running, stopped, changing or unknown`},
		{"long garbage", "yes | head -c 100000", passing, `got "y\ny\n`},
		{"endless", "yes '{}'", passing, "sh: it printed more than 16 MiB"},
		{"endless garbage", "exec cat /dev/zero", passing, "sh: it printed more than 16 MiB"},
		{"a large ref", `echo "{\"address\":\"h\",\"ref\":\"$(head -c 70000 /dev/zero | tr '\0' x)\"}"`, passing, "the ref has 70002 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := create(t, command.Options{Create: shell(c.script)})
			if err == nil || !c.kind(err) || !strings.HasPrefix(err.Error(), "create machine m-1: ") || !strings.Contains(err.Error(), c.text) || len(err.Error()) > 1500 {
				t.Errorf("%v\nwant %s", err, c.text)
			}
		})
	}
	_, _, err := create(t, command.Options{Create: []string{"/no/such/program"}})
	if !errors.Is(err, tranter.ErrRejected) || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("a program that is missing: %v", err)
	}
}

// It ends with all that it has started, kindly first.
func TestAProgramThatHangsIsEnded(t *testing.T) {
	dir := t.TempDir()
	script := `trap 'echo tidied >&2; exit 0' TERM; sleep 300 & echo $! >` + dir + `/child; echo '{"id":"7"}'; wait`
	_, notes, err := create(t, command.Options{Create: shell(script), Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "sh took longer than 300ms (it says: tidied)") {
		t.Error(err)
	}
	if !slices.Equal(notes, []string{`{"id":"7"}`}) {
		t.Errorf("notes %q", notes)
	}
	text, err := os.ReadFile(dir + "/child")
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); alive(child); {
		if time.Now().After(deadline) {
			t.Fatalf("process %d still runs", child)
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z ")) && syscall.Kill(pid, 0) == nil
}

func TestTheCallersEndEndsAProgram(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	reason := errors.New("the manager stops")
	_, err := provider(t, command.Options{Create: shell(`echo '{"id":"7"}'; exec sleep 300`)}).Create(ctx, tranter.MachineSpec{Name: "m-1"}, func(json.RawMessage) { stop(reason) })
	if !errors.Is(err, reason) {
		t.Error(err)
	}
}

func TestRemovals(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "request")
	for _, c := range []struct{ name, ref, script, request, want string }{
		{"there", `{"id":"srv-7","address":"h","ref":[1]}`, "exit 0", `{"version":1,"action":"remove","name":"m-1","id":"srv-7","ref":[1]}`, ""},
		{"words do not matter", "", "echo Removed.", `{"version":1,"action":"remove","name":"m-1"}`, ""},
		{"gone", "", "exit 3", `{"version":1,"action":"remove","name":"m-1"}`, ""},
		{"a ref that is not ours", `"?"`, "exit 0", `{"version":1,"action":"remove","name":"m-1"}`, ""},
		{"failed", "", "echo no >&2; exit 1", `{"version":1,"action":"remove","name":"m-1"}`, "remove machine m-1: sh has failed (exit status 1) (it says: no)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := provider(t, command.Options{Remove: shell(`printf %s "$request" >` + seen + "; " + c.script)})
			err := p.Destroy(t.Context(), tranter.MachineRef{Name: "m-1", Ref: json.RawMessage(c.ref)})
			if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
			if request, err := os.ReadFile(seen); err != nil || string(request) != c.request {
				t.Errorf("%s %v", request, err)
			}
		})
	}
}

func TestLists(t *testing.T) {
	ref := func(text string) json.RawMessage { return json.RawMessage(text) }
	known := []tranter.MachineRef{{Name: "a", Ref: ref(`{"id":"1","address":"ha","user":"ci","ref":1}`)}, {Name: "b", Ref: ref(`{"id":"2","address":"hb"}`)}, {Name: "c"}}
	for _, c := range []struct {
		name         string
		list, status string
		want         []tranter.Machine
		problem      string
	}{
		{
			name: "what it leaves out is as it was",
			list: `echo '{"machines":[{"name":"a","power":"stopped"},{"name":"b","address":"new"}]}'`,
			want: []tranter.Machine{
				{Name: "a", ID: "1", Power: tranter.PowerOff, Login: tranter.Login{Host: "ha", User: "ci"}, Ref: ref(`{"id":"1","address":"ha","user":"ci","ref":1}`)},
				{Name: "b", ID: "2", Power: tranter.PowerOn, Login: tranter.Login{Host: "new"}, Ref: ref(`{"id":"2","address":"new"}`)},
			},
		},
		{
			name: "unknown ones only with our mark",
			list: `echo '{"machines":[{"name":"x","owner":"0123456789abcdef","pool":"abcdefghi","address":"h"},{"name":"other pool","owner":"0123456789abcdef"}]}' | sed 's/other pool/y/;s/}]/},{"name":"z"},{"name":"w","owner":"ffff","pool":"abcdefghi"}]/'`,
			want: []tranter.Machine{{Name: "x", Power: tranter.PowerOn, Login: tranter.Login{Host: "h"}, Ref: ref(`{"address":"h"}`)}},
		},
		{
			name:   "one by one where the list says too little",
			list:   `echo '{"machines":[{"name":"a","power":"unknown"},{"name":"b","power":"unknown"},{"name":"c"}]}'`,
			status: `case $request in *'"a"'*) echo '{"power":"changing"}';; *'"b"'*) exit 3;; *) echo '{"address":"hc"}';; esac`,
			want: []tranter.Machine{
				{Name: "a", ID: "1", Power: tranter.PowerChanges, Login: tranter.Login{Host: "ha", User: "ci"}, Ref: ref(`{"id":"1","address":"ha","user":"ci","ref":1}`)},
				{Name: "c", Power: tranter.PowerOn, Login: tranter.Login{Host: "hc"}, Ref: ref(`{"address":"hc"}`)},
			},
		},
		{
			name:   "one by one without a list",
			list:   "none",
			status: `case $request in *'"a"'*) exit 3;; *'"b"'*) exit 1;; *) echo '{"address":"hc","power":"stopped"}';; esac`,
			want: []tranter.Machine{
				{Name: "b", ID: "2", Power: tranter.PowerUnknown, Login: tranter.Login{Host: "hb"}, Ref: ref(`{"id":"2","address":"hb"}`)},
				{Name: "c", Power: tranter.PowerOff, Login: tranter.Login{Host: "hc"}, Ref: ref(`{"address":"hc"}`)},
			},
		},
		{name: "none", list: `echo '{"machines":[]}'`, want: []tranter.Machine{}},
		{name: "nothing is not none", list: `:`, problem: `list the machines: sh: no machines: expected {"machines": [`},
		{name: "null is not none", list: `echo '{"machines":null}'`, problem: `no machines: expected`},
		{name: "failed", list: `exit 6`, problem: "asked less often"},
		{name: "twice", list: `echo '{"machines":[{"name":"a"},{"name":"a"}]}'`, problem: `machine "a" is listed twice`},
		{name: "no name", list: `echo '{"machines":[{"address":"h"}]}'`, problem: `a machine's name is ""`},
		{name: "a bad entry", list: `echo '{"machines":[{"name":"a","port":-1}]}'`, problem: `machine "a": the port is -1: expected`},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := command.Options{Create: shell(":"), Remove: shell(":"), List: shell(c.list)}
			if c.list == "none" {
				o.List = nil
			}
			if c.status != "" {
				o.Status = shell(c.status)
			}
			p, err := command.New(o)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.List(t.Context(), mark, known)
			if (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
				t.Fatalf("%v, want %q", err, c.problem)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMachinesAreStoppedAndStarted(t *testing.T) {
	if _, ok := provider(t, command.Options{}).(tranter.Starter); ok {
		t.Error("it can't")
	}
	p := provider(t, command.Options{
		Start: shell(`case $request in *'"action":"start","name":"m-1","id":"7"'*) echo '{"address":"new"}';; *) exit 4;; esac`),
		Stop:  shell(`case $request in *'"action":"stop","name":"m-1"'*) ;; *) exit 1;; esac`),
	}).(tranter.Starter)
	m, err := p.Start(t.Context(), tranter.MachineRef{Name: "m-1", Ref: json.RawMessage(`{"id":"7","address":"old","user":"ci"}`)})
	if err != nil || m.Login.Host != "new" || m.Login.User != "ci" || string(m.Ref) != `{"id":"7","address":"new","user":"ci"}` {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := p.Start(t.Context(), tranter.MachineRef{Name: "m-2"}); !errors.Is(err, tranter.ErrNoCapacity) {
		t.Error(err)
	}
	if err := p.Stop(t.Context(), tranter.MachineRef{Name: "m-1"}); err != nil {
		t.Error(err)
	}
	if err := p.Stop(t.Context(), tranter.MachineRef{Name: "m-2"}); err == nil || !strings.HasPrefix(err.Error(), "stop machine m-2: ") {
		t.Error(err)
	}
}

// Programs get what they need of our environment and no more, and what was configured for them is told to nobody.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	t.Setenv("CI_SERVER_TOKEN", "not for programs")
	var log bytes.Buffer
	o := command.Options{
		Create: shell(`
			[ -n "$PATH" ] && [ -z "$CI_SERVER_TOKEN" ] || exit 5
			head -c 3000 /dev/zero | tr '\0' x >&2; echo >&2
			echo "option $request" >&2
			seq 4 >&2
			printf '\033[1mbell\007 token %s, region %s\n' "$CLOUD_TOKEN" "$REGION" >&2
			echo "$CLOUD_TOKEN is no JSON"`),
		Environment: []string{"CLOUD_TOKEN=s3cr3t-t0k3n-of-the-cloud", "REGION=eu"},
		Log:         slog.New(slog.NewJSONHandler(&log, nil)),
	}
	_, _, err := create(t, o, "admin-password=hunter2hunter2", "type=ordinary-type")
	if err == nil || !strings.Contains(err.Error(), `got "[MASKED] is no JSON" (it says: 1; 2; 3; 4; [1mbell  token [MASKED], region eu)`) {
		t.Error(err)
	}
	for _, secret := range []string{"s3cr3t", "hunter2", "not for programs", "\033", "\007"} {
		if strings.Contains(err.Error(), secret) || strings.Contains(log.String(), secret) {
			t.Errorf("%q is told:\n%v\n%s", secret, err, log.String())
		}
	}
	for _, want := range []string{`"machine":"m-1"`, `"action":"create"`, "token [MASKED], region eu", "ordinary-type"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log:\n%s", want, log.String())
		}
	}
}

func TestALogIsNotFlooded(t *testing.T) {
	var log bytes.Buffer
	_, _, err := create(t, command.Options{Create: shell(`seq 5000 >&2; echo '{"address":"h"}'`), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if n := strings.Count(log.String(), "\n"); err != nil || n != 1001 {
		t.Errorf("%d lines, %v", n, err)
	}
}

// A program may leave something that goes on, such as the machine itself.
func TestWhatAProgramLeavesRunning(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	m, _, err := create(t, command.Options{Create: shell(`sleep 300 >/dev/null 2>&1 & echo $! >` + pidFile + `; echo '{"address":"h"}'`)})
	if err != nil || m.Login.Host != "h" {
		t.Fatal(m, err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Error("it was ended")
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

func TestOptionsThatCanNotBe(t *testing.T) {
	program := []string{"/bin/true"}
	for _, c := range []struct {
		name string
		o    command.Options
		want string
	}{
		{"nothing", command.Options{}, "no program for create: it is needed\nno program for remove: it is needed\nno program for list or status: one of them is needed to know which machines there are"},
		{"start alone", command.Options{Create: program, Remove: program, Status: program, Start: program}, "start and stop: a program is needed for both, or for none"},
		{"environment", command.Options{Create: program, Remove: program, Status: program, Environment: []string{"TOKEN-ALONE"}}, "environment: expected entries of the form NAME=VALUE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := command.New(c.o)
			if _, ok := errors.AsType[*tranter.ConfigError](err); !ok || err.Error() != c.want {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
	p, err := command.New(command.Options{Create: program, Remove: []string{"no-such-program"}, List: program})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.(tranter.Checker).Check(t.Context()); err == nil || !strings.HasPrefix(err.Error(), `program for remove: exec: "no-such-program"`) {
		t.Errorf("a program that is missing: %v", err)
	}
}
