package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/store"
)

// TestTheSettingsOfAPoolGoWithIt: drivers' options have secrets in them.
func TestTheSettingsOfAPoolGoWithIt(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	st, err := store.Open(t.Context(), filepath.Join(dir, "tranter.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	around, err := newSurroundings(dir, "", "s_0123456789ab", log)
	if err != nil {
		t.Fatal(err)
	}
	ps := newMachinePools(dir, "0123456789abcdef", st.Machines(), log)
	defer ps.close()
	around.machines = ps
	saved := config.DefaultRunner().Machine
	saved.Provider, saved.MachineOptions = "command", []string{"token=hunter2"}
	saved.Command.Create, saved.Command.Remove, saved.Command.List = []string{"/bin/true"}, []string{"/bin/true"}, []string{"/bin/true"}
	s, err := around.poolSettings(config.Default(), savedPool{Runner: "r", Machine: saved}.runner("a/b"))
	if err != nil {
		t.Fatal(err)
	}
	there := func(name string) bool {
		info, err := os.Stat(ps.savedPath(name))
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("its mode is %v", info.Mode())
		}
		return err == nil
	}
	if err := ps.save("old", savedPool{Runner: "old", Machine: saved}); err != nil { // of a manager that has ended
		t.Fatal(err)
	}
	var pools []*pool.Pool
	for range 2 { // it comes back after it has gone
		p, err := ps.open("a/b", s, saved)
		if err != nil {
			t.Fatal(err)
		}
		pools = append(pools, p)
		ps.settle(t.Context(), around)
		if !there("a/b") || there("old") {
			t.Errorf("in use: %v, of a pool that is gone: %v", there("a/b"), there("old"))
		}
		ps.settle(t.Context(), around) // a configuration without it
		if err := p.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if pools[0] == pools[1] {
		t.Error("the pool has not ended")
	}
	for ps.find("a/b") != nil { // until what it leaves is removed
		if context.Cause(t.Context()) != nil {
			t.Fatal("it stays")
		}
	}
	if there("a/b") {
		t.Error("its settings are still there")
	}
}
