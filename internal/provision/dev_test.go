package provision_test

import (
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provision"
)

func TestDev(t *testing.T) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, tls := range []bool{false, true} {
		name := "c-dev-x"
		exec.Command("docker", "rm", "-fv", name).Run()
		began := time.Now()
		out, err := exec.Command("/tmp/h/C/start.sh", name).CombinedOutput()
		if err != nil {
			t.Fatal(string(out))
		}
		t.Log("up", time.Since(began))
		began = time.Now()
		m := tranter.Machine{Name: name, Login: tranter.Login{Host: strings.TrimSpace(string(out)), Identity: "/tmp/h/C/key"}}
		p := provision.New(provision.Settings{Owner: "abc", Linger: 60 * time.Second, Engine: provision.EngineSettings{TLS: tls}}, provision.Options{Log: log})
		h, kept, err := p.Open(t.Context(), m, nil, func(x tranter.Timing) { t.Log(x.Step, x.Took) })
		if err != nil {
			t.Fatal(err)
		}
		t.Log("ready", time.Since(began), len(kept))
		began = time.Now()
		if err := h.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Log("check", time.Since(began))
		h.Close()
		began = time.Now()
		h, _, err = p.Open(t.Context(), m, kept, func(x tranter.Timing) { t.Log(x.Step, x.Took) })
		if err != nil {
			t.Fatal(err)
		}
		t.Log("again", time.Since(began))
		h.Close()
	}
}
