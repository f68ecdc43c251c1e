package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
)

// A real machine comes, is used and goes by commands alone: no manager runs, and each command opens the pool anew.
func TestARealMachineComesAndGoesWithoutAManager(t *testing.T) {
	t.Parallel()
	h := machineHarness{t: t, state: shortDir(t)}
	put(t, filepath.Join(h.state, "none.toml"), `[[runners]]
name = "machines"
url = "https://gitlab.example.com"
token = "glrt-abcdefghijklmnopqrst"
executor = "docker+machine"
[runners.docker]
image = "busybox"
[runners.machine]
provider = "container"
MachineName = "hand-%s"
IdleCount = 3
self_destruct_after = "0s"
[runners.machine.container]
image = "`+machinetest.Image(t)+`"
network = "`+machinetest.Network(t)+`"
`)
	var out bytes.Buffer
	if code := h.streams(streams{in: strings.NewReader(""), out: &out, err: &out}, "create", "--output", "json", "--log-level", "panic"); code != 0 {
		t.Fatalf("code %d, %s", code, out.String())
	}
	var made []pool.MachineStatus
	if err := json.Unmarshal(out.Bytes(), &made); err != nil || len(made) != 1 {
		t.Fatalf("%v, %s", err, out.String())
	}
	t.Cleanup(func() { machinetest.Remove(t, made[0].ID) })
	name := made[0].Name
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"ls"}, 0, name + "  idle"}, // IdleCount has made no others
		{[]string{"ssh", "hand-", "hostname; exit 6"}, 6, name},
		{[]string{"env", "hand-"}, 0, "export DOCKER_HOST=ssh://root@"},
		{[]string{"create", "--set", "gold"}, 1, "gold"},
		{[]string{"rm", name}, 0, name + "  removed after "},
		{[]string{"why", name}, 0, "wanted by a person"},
		{[]string{"ls"}, 0, "There is no machine."},
		{[]string{"leaks"}, 0, "There is no leak."},
	} {
		out, code := h.run(append(c.args[:1:1], append([]string{"--log-level", "panic"}, c.args[1:]...)...)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%q: code %d, %s", c.args, code, out)
		}
	}
}
