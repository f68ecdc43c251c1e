//go:build unix

package shell_test

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
)

// alive says whether a process runs. One that has ended, and whose parent does not ask, does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, state, _ := strings.Cut(string(data), ") ")
	return err != nil || !strings.HasPrefix(state, "Z")
}

// otherUser is whom jobs run as: somebody else if this is root, as only root can, else ourselves.
func otherUser(t *testing.T) *user.User {
	t.Helper()
	if os.Geteuid() == 0 {
		u, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestConformanceAsUser(t *testing.T) {
	t.Parallel()
	executortest.Run(t, subject(executortest.Agent(t), otherUser(t).Username))
}

func TestJobsOfAnotherUser(t *testing.T) {
	t.Parallel()
	u := otherUser(t)
	secret := filepath.Join(executortest.OpenDir(t), "secret")
	if err := os.WriteFile(secret, []byte("of the manager"), 0o600); err != nil {
		t.Fatal(err)
	}
	j := executortest.Open(t, subject(executortest.Agent(t), u.Username))
	r, log := j.Run(`echo "uid=$(id -u) groups=$(id -G) home=$HOME user=$USER:$LOGNAME"`, "touch file", "cat "+secret+" 2>/dev/null || echo denied")
	groups, err := u.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log, "\nuid="+u.Uid+" groups="+strings.Join(groups, " ")+" home="+u.HomeDir+" user="+u.Username+":"+u.Username+"\n") {
		t.Errorf("result %+v\n%s", r, log)
	}
	if os.Geteuid() == 0 && !strings.Contains(log, "\ndenied") {
		t.Errorf("the job could read root's file:\n%s", log)
	}
	info, err := os.Stat(filepath.Join(j.Spec.Dirs.Project, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); strconv.Itoa(int(st.Uid)) != u.Uid {
		t.Errorf("the job's file belongs to %d", st.Uid)
	}
	phase, err := os.Stat(filepath.Join(j.Spec.Dir, "phase-1"))
	if err != nil || phase.Mode().Perm() != 0o700 {
		t.Errorf("the phase's directory: %v, %v", phase.Mode(), err)
	}
	if !strings.Contains(j.Log.String(), u.Username) || r.Status != tranter.PhaseSucceeded {
		t.Errorf("the executor says %q, result %+v", j.Log, r)
	}
}
