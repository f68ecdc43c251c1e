package link

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLinesAreAddedToAHostsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("127.0.0.1\tlocalhost\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := addHosts(path, []string{"172.17.0.2\tdb", "172.17.0.3\tcache"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "127.0.0.1\tlocalhost\n172.17.0.2\tdb\n172.17.0.3\tcache\n" {
		t.Errorf("the file is %q, %v", got, err)
	}
	if err := addHosts(filepath.Join(t.TempDir(), "none"), []string{"x"}); err == nil {
		t.Error("a file that is not there was written")
	}
}
