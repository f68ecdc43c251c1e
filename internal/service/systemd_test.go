package service_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter/internal/service"
)

// host is one on which a script stands in for systemctl.
func host(t *testing.T, booted bool, answers map[string]string) (service.Systemd, *[]string) {
	t.Helper()
	root := t.TempDir()
	if booted {
		if err := os.MkdirAll(filepath.Join(root, "run/systemd/system"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var said []string
	return service.Systemd{Root: root, Command: func(_ context.Context, args ...string) (string, error) {
		said = append(said, strings.Join(args, " "))
		return answers[args[0]], nil
	}}, &said
}

func TestInstallAndUninstallLeaveNothing(t *testing.T) {
	s, said := host(t, true, nil)
	u := service.Unit{Name: "tranter", Program: "/usr/local/bin/tranter", Config: "/c.toml"}
	for _, hardened := range []bool{true, false, true} {
		if err := s.Install(t.Context(), u, hardened); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(s.Path("tranter"))
		if err != nil || string(data) != text(t, u) {
			t.Errorf("the unit is %q (%v)", data, err)
		}
		_, err = os.Stat(s.Path("tranter") + ".d/50-hardened.conf")
		if hardened != (err == nil) {
			t.Errorf("hardened %v, but its drop-in: %v", hardened, err)
		}
	}
	if diff := cmp.Diff([]string{"daemon-reload", "enable tranter.service"}, (*said)[:2]); diff != "" {
		t.Error(diff)
	}
	*said = nil
	if err := s.Uninstall(t.Context(), "tranter"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"disable --now tranter.service", "daemon-reload"}, *said); diff != "" {
		t.Error(diff)
	}
	left, err := os.ReadDir(filepath.Dir(s.Path("tranter")))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
	if err := s.Uninstall(t.Context(), "tranter"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a second uninstall: %v, want that there is none", err)
	}
}

func TestAUnitOfSomebodyElseIsLeftAlone(t *testing.T) {
	s, said := host(t, true, nil)
	if err := os.MkdirAll(filepath.Dir(s.Path("tranter")), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path("tranter"), []byte("[Service]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	u := service.Unit{Name: "tranter", Program: "/usr/local/bin/tranter", Config: "/c.toml"}
	if err := s.Install(t.Context(), u, false); !errors.Is(err, service.ErrForeign) {
		t.Errorf("install: %v, want ErrForeign", err)
	}
	if err := s.Uninstall(t.Context(), "tranter"); !errors.Is(err, service.ErrForeign) {
		t.Errorf("uninstall: %v, want ErrForeign", err)
	}
	if len(*said) > 0 {
		t.Errorf("systemd was told %q", *said)
	}
}

func TestWithoutSystemdTheUnitIsWrittenAndNothingIsOrdered(t *testing.T) {
	s, said := host(t, false, nil)
	u := service.Unit{Name: "tranter", Program: "/usr/local/bin/tranter", Config: "/c.toml"}
	if err := s.Install(t.Context(), u, false); !errors.Is(err, service.ErrNoSystemd) {
		t.Errorf("install: %v, want ErrNoSystemd", err)
	}
	if _, err := os.Stat(s.Path("tranter")); err != nil {
		t.Error(err)
	}
	if err := s.Do(t.Context(), "start", "tranter"); !errors.Is(err, service.ErrNoSystemd) {
		t.Errorf("start: %v, want ErrNoSystemd", err)
	}
	if _, err := s.State(t.Context(), "tranter"); !errors.Is(err, service.ErrNoSystemd) {
		t.Errorf("state: %v, want ErrNoSystemd", err)
	}
	if err := s.Uninstall(t.Context(), "tranter"); !errors.Is(err, service.ErrNoSystemd) {
		t.Errorf("uninstall: %v, want ErrNoSystemd", err)
	}
	if _, err := os.Stat(s.Path("tranter")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unit is still there: %v", err)
	}
	if len(*said) > 0 {
		t.Errorf("systemctl was called: %q", *said)
	}
}

func TestTheStateOfAServiceIsOneSentence(t *testing.T) {
	for name, tt := range map[string]struct {
		show, want string
		running    bool
	}{
		"running": {
			show:    "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nStatusText=running: 1 of 4 jobs, 1 runners\nResult=success\nStateChangeTimestamp=Mon 10:00\nMainPID=12\n",
			want:    "active (running) since Mon 10:00; enabled: running: 1 of 4 jobs, 1 runners",
			running: true,
		},
		"failed":        {show: "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=watchdog\nMainPID=0\nUnitFileState=enabled\n", want: "failed (failed), result watchdog; enabled"},
		"stopped":       {show: "LoadState=loaded\nActiveState=inactive\nSubState=dead\nMainPID=0\nUnitFileState=disabled\n", want: "inactive (dead); disabled"},
		"not installed": {show: "LoadState=not-found\nActiveState=inactive\n", want: "not installed"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := host(t, true, map[string]string{"show": tt.show})
			got, err := s.State(t.Context(), "tranter")
			if err != nil || got.String() != tt.want || got.Running() != tt.running {
				t.Errorf("%q, running %v (%v); want %q, %v", got, got.Running(), err, tt.want, tt.running)
			}
		})
	}
}

func TestJobsAreSparedAtARestartAndAShutdownOnly(t *testing.T) {
	for name, tt := range map[string]struct {
		jobs string
		want bool
	}{
		"stop":                 {jobs: "123 tranter.service stop running\n"},
		"restart":              {jobs: "123 tranter.service restart running\n", want: true},
		"try-restart":          {jobs: "  9 tranter.service try-restart running\n", want: true},
		"another's restart":    {jobs: "1 other.service restart running\n2 tranter.service stop running\n"},
		"shutdown":             {jobs: "1 shutdown.target start waiting\n2 tranter.service stop running\n", want: true},
		"the end of a session": {jobs: "1 exit.target start waiting\n2 tranter.service stop running\n", want: true},
		"nothing":              {jobs: ""},
		"no list":              {jobs: "No jobs running.\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := host(t, true, map[string]string{"list-jobs": tt.jobs})
			got, err := s.Sparing(t.Context(), "tranter")
			if err != nil || got != tt.want {
				t.Errorf("%v (%v), want %v", got, err, tt.want)
			}
		})
	}
}
