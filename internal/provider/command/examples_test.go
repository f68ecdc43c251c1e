//go:build unix

package command_test

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/provider/command"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
	"github.com/tranter-ci/tranter/internal/provider/providertest"
)

// example returns Options whose programs are an example.
func example(t *testing.T, name string, environment ...string) command.Options {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../../examples/machine-command", name))
	if err != nil {
		t.Fatal(err)
	}
	program := []string{path}
	return command.Options{Create: program, Remove: program, List: program, Status: program, Environment: environment}
}

func build(t testing.TB, o command.Options) tranter.Provider {
	t.Helper()
	p, err := command.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheExamplesConfigurationIsGood(t *testing.T) {
	data, err := os.ReadFile("../../../examples/machine-command/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, problems := config.Parse(config.Source{Name: "config.toml", Data: data}); len(problems) > 0 {
		t.Errorf("%v", problems)
	}
}

// The example for a cloud, with something that stands in for the cloud's own program.
func TestTheExampleForACloud(t *testing.T) {
	t.Parallel()
	servers := t.TempDir()
	stub, err := filepath.Abs("testdata/stub")
	if err != nil {
		t.Fatal(err)
	}
	p := build(t, example(t, "hcloud", "PATH="+stub+":"+os.Getenv("PATH"), "STUB_DIR="+servers, "HCLOUD_TOKEN=the-token"))
	good := []string{"type=cx32", "image=debian", "location=fsn1", "ssh-key=ci"}
	spec := tranter.MachineSpec{Name: "ci-1", Mark: mark, Options: good}
	want := tranter.Machine{Name: "ci-1", ID: "4711", Power: tranter.PowerOn, Login: tranter.Login{Host: "192.0.2.1", User: "root"}}
	for range 2 {
		m, err := p.Create(t.Context(), spec, nil)
		ref := m.Ref
		m.Ref = nil
		if diff := cmp.Diff(want, m); diff != "" || err != nil || len(ref) == 0 {
			t.Fatal(err, string(ref), diff)
		}
	}
	// Another pool's list does not have it; it is asked for by its name.
	for _, m := range []tranter.Mark{mark, {Owner: mark.Owner, Pool: "other"}} {
		machines, err := p.List(t.Context(), m, []tranter.MachineRef{{Name: "ci-1"}, {Name: "ci-2"}})
		if err != nil || len(machines) != 1 || machines[0].ID != "4711" || machines[0].Login.Host != "192.0.2.1" {
			t.Errorf("%+v %v", machines, err)
		}
	}
	if machines, err := p.List(t.Context(), mark, nil); err != nil || len(machines) != 1 || machines[0].Name != "ci-1" {
		t.Errorf("by its mark: %+v %v", machines, err)
	}
	for range 2 { // the second time it is not there
		if err := p.Destroy(t.Context(), tranter.MachineRef{Name: "ci-1"}); err != nil {
			t.Error(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(servers, "*")); err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
	for _, c := range []struct{ option, want string }{
		{"type=sold-out", "hcloud: no capacity (it says: hcloud: error during placement (resource_unavailable))"},
		{"image=none", "hcloud: rejected (it says: hcloud: image not found: none)"},
		{"type=busy", "hcloud: the provider wants to be asked less often (it says: hcloud: limit of requests reached (rate_limit_exceeded))"},
	} {
		spec.Options = append(slices.Clone(good), c.option)
		if _, err := p.Create(t.Context(), spec, nil); err == nil || err.Error() != "create machine ci-1: "+c.want {
			t.Errorf("%s: %v", c.option, err)
		}
	}
}

// The example that makes containers, for real.
func TestTheExampleForContainers(t *testing.T) {
	t.Parallel()
	key, _ := machinetest.Key(t)
	image := machinetest.Bare(t)
	prefix := "command-" + strings.ToLower(rand.Text()[:6]) + "-"
	o := example(t, "docker", "MACHINE_IMAGE="+image, "MACHINE_NETWORK="+machinetest.Network(t), "MACHINE_KEY="+key)
	o.Start, o.Stop = o.Create, o.Create
	wrong := o
	wrong.Environment = append([]string{"MACHINE_IMAGE=tranter-no-such-image:1"}, o.Environment[1:]...)
	t.Cleanup(func() { removeContainers(t, prefix) })
	if _, err := build(t, wrong).Create(t.Context(), tranter.MachineSpec{Name: prefix + "no-image", Mark: mark}, nil); err == nil || !strings.Contains(err.Error(), "rejected") {
		t.Errorf("an image that is missing: %v", err)
	}
	providertest.Run(t, providertest.Subject{
		New: func(t testing.TB) tranter.Provider { return build(t, o) },
		Alive: func(t testing.TB, name string) bool {
			out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", "ps", "-aq", "--filter", "label=tranter.machine="+name).Output()
			if err != nil {
				t.Error(err)
			}
			return len(out) > 0
		},
		Options: []string{"memory=1g"},
		Notes:   true,
		Marks:   true,
		Starts:  true,
		Prefix:  prefix,
	})
}

func removeContainers(t *testing.T, prefix string) {
	t.Helper()
	out, err := exec.Command("docker", "ps", "-aq", "--filter", "name=^/"+prefix).Output()
	if err != nil {
		t.Error(err)
	}
	for id := range strings.FieldsSeq(string(out)) {
		if out, err := exec.Command("docker", "rm", "-f", "-v", id).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
