package command_test

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
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

// The example for a cloud, with something that stands in for the cloud's own program.
func TestTheExampleForACloud(t *testing.T) {
	t.Parallel()
	servers := t.TempDir()
	stub, err := filepath.Abs("testdata/stub")
	if err != nil {
		t.Fatal(err)
	}
	o := example(t, "hcloud", "PATH="+stub+":"+os.Getenv("PATH"), "STUB_DIR="+servers, "HCLOUD_TOKEN=the-token")
	providertest.Run(t, providertest.Subject{
		New: func(t testing.TB) tranter.Provider { return build(t, o) },
		Alive: func(_ testing.TB, name string) bool {
			_, err := os.Stat(filepath.Join(servers, name+".json"))
			return err == nil
		},
		Options: []string{"type=cx32", "image=debian", "location=fsn1", "ssh-key=ci"},
		Notes:   true,
		Marks:   true,
		Fails: []providertest.Failure{
			{Options: []string{"type=sold-out", "image=debian", "location=fsn1", "ssh-key=ci"}, Is: tranter.ErrNoCapacity},
			{Options: []string{"type=cx32", "image=none", "location=fsn1", "ssh-key=ci"}, Is: tranter.ErrRejected},
			{Options: []string{"type=busy", "image=debian", "location=fsn1", "ssh-key=ci"}},
		},
	})
}

// The example that makes containers, for real.
func TestTheExampleForContainers(t *testing.T) {
	t.Parallel()
	key, _ := machinetest.Key(t)
	image := machinetest.Image(t)
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
	for _, id := range strings.Fields(string(out)) {
		if out, err := exec.Command("docker", "rm", "-f", "-v", id).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
