package worker

import (
	"os/exec"
	"strings"
	"testing"
)

func TestAJobGetsTheProcessorsOfItsPlace(t *testing.T) {
	all := processors()
	if len(all) == 0 {
		t.Fatal("there are no processors")
	}
	allowed := func(which []int) string {
		var out []byte
		if err := on(which, func() (err error) {
			out, err = exec.Command("grep", "Cpus_allowed_list", "/proc/self/status").Output()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(strings.TrimPrefix(string(out), "Cpus_allowed_list:"))
	}
	before := allowed(nil)
	if got := allowed(all[:1]); strings.ContainsAny(got, ",-") {
		t.Errorf("with one processor: %s", got)
	}
	if got := allowed(nil); got != before {
		t.Errorf("afterwards: %s, before: %s", got, before)
	}
}
