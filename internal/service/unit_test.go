package service_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter/internal/service"
)

var update = flag.Bool("update", false, "write deploy/packages/tranter.service")

const packaged = "../../deploy/packages/tranter.service"

// systemUnit is that of the packages.
func systemUnit() service.Unit {
	return service.Unit{Name: "tranter", Program: "/usr/bin/tranter", Config: "/etc/tranter/config.toml", Packaged: true}
}

func text(t *testing.T, u service.Unit) string {
	t.Helper()
	s, err := u.Text()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestThePackagesHaveTheUnitThatInstallWrites(t *testing.T) {
	want := text(t, systemUnit())
	if *update {
		if err := os.WriteFile(packaged, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(packaged)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is not current, run go test ./internal/service -update: %s", packaged, diff)
	}
}

// analyze runs systemd-analyze on a unit, for which files stand in for the programs that it names.
func analyze(t *testing.T, u service.Unit, hardened bool, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	u.Program = filepath.Join(dir, "program of ours")
	if err := os.WriteFile(u.Program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, u.Name+".service")
	if err := os.WriteFile(path, []byte(text(t, u)), 0o644); err != nil {
		t.Fatal(err)
	}
	if hardened {
		if err := os.Mkdir(path+".d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path+".d", "50-hardened.conf"), []byte(service.Hardened()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", append(args, path)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSystemdUnderstandsTheUnits(t *testing.T) {
	for name, tt := range map[string]struct {
		unit     service.Unit
		hardened bool
	}{
		"plain":    {unit: systemUnit()},
		"hardened": {unit: systemUnit(), hardened: true},
		"all flags": {unit: service.Unit{
			Name: "tranter-2", Config: `/etc/a "b" $HOME 100%/c\d;.toml`, WorkingDir: "/srv/it's 5%", JobUser: "nobody", InitUser: "daemon", StateDir: "/srv/state 50%",
		}},
		"of a user": {unit: service.Unit{Name: "tranter", Config: "/home/a/config.toml", StateDir: "/home/a/.local/state/tranter", PerUser: true}},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"verify", "--man=no", "--recursive-errors=no"}
			if tt.unit.PerUser {
				args = append(args, "--user")
			}
			out, err := analyze(t, tt.unit, tt.hardened, args...)
			if err != nil || strings.TrimSpace(out) != "" {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
		})
	}
}

func TestAHardenedServiceIsExposedLittle(t *testing.T) {
	exposure := func(hardened bool) float64 {
		t.Helper()
		out, err := analyze(t, systemUnit(), hardened, "security", "--offline=true", "--no-pager")
		m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("systemd-analyze security: %v\n%s", err, out)
		}
		x, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	plain, hardened := exposure(false), exposure(true)
	t.Logf("exposure: %.1f plain, %.1f hardened", plain, hardened)
	if hardened > 3 || plain <= hardened {
		t.Errorf("exposure hardened: %.1f, want at most 3.0, and less than %.1f", hardened, plain)
	}
}

func TestWhatCanNotBeAUnitIsRefused(t *testing.T) {
	good := systemUnit()
	for name, change := range map[string]func(u *service.Unit){
		"no name":                  func(u *service.Unit) { u.Name = "" },
		"a path as a name":         func(u *service.Unit) { u.Name = "../x" },
		"an odd letter":            func(u *service.Unit) { u.Name = "a b" },
		"a hidden name":            func(u *service.Unit) { u.Name = ".x" },
		"a template":               func(u *service.Unit) { u.Name = "x@" },
		"a relative program":       func(u *service.Unit) { u.Program = "tranter" },
		"a relative config":        func(u *service.Unit) { u.Config = "config.toml" },
		"a line in a path":         func(u *service.Unit) { u.WorkingDir = "/x\nExecStartPre=/bin/evil" },
		"a line in a user":         func(u *service.Unit) { u.InitUser = "x\nUser=root" },
		"a user's with user":       func(u *service.Unit) { u.PerUser, u.StateDir, u.JobUser = true, "/x", "nobody" },
		"a user's without a state": func(u *service.Unit) { u.PerUser = true },
	} {
		t.Run(name, func(t *testing.T) {
			u := good
			change(&u)
			if text, err := u.Text(); err == nil {
				t.Errorf("no error, but:\n%s", text)
			}
		})
	}
}

func TestTheUnitSaysWhatTheFlagsDo(t *testing.T) {
	u := service.Unit{Name: "x", Program: "/opt/tranter", Config: "/c.toml", WorkingDir: "/home/a b", JobUser: "a", InitUser: "root", StateDir: "/s"}
	got := text(t, u)
	for _, want := range []string{
		`ExecStart=/opt/tranter run --config /c.toml --service x --working-directory "/home/a b" --state-dir /s --user a` + "\n",
		"ExecStop=/opt/tranter stop --from-systemd --config /c.toml --service x --state-dir /s\n",
		"KillMode=process\n", "Type=notify\n", "WatchdogSec=2min\n", "OOMPolicy=continue\n", "WorkingDirectory=-/s\n", "WantedBy=multi-user.target\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the unit lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "\nUser=") || strings.Contains(got, "\nStateDirectory=") {
		t.Errorf("the unit has a user or a state directory of systemd's:\n%s", got)
	}
}
