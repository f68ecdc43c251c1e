package diskspace

import "testing"

func TestDistant(t *testing.T) {
	t.Parallel()
	mounts := []byte(`22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /home rw shared:5 - nfs4 server:/home rw
31 30 0:41 / /home/local rw - tmpfs tmpfs rw
32 22 0:42 / /with\040blank rw - fuse.sshfs x rw
33 22 0:43 / /over rw - nfs x rw
34 22 0:44 / /over rw - xfs /dev/sdb rw
broken line
`)
	for dir, want := range map[string]bool{
		"/": false, "/builds": false, "/home": true, "/home/x/y": true, "/homes": false, "/home/local/x": false,
		"/with blank/x": true, "/over/x": false, "/home/../builds": false,
	} {
		if got := distantBy(mounts, dir); got != want {
			t.Errorf("%s: %v", dir, got)
		}
	}
	if distantBy(nil, "/x") {
		t.Error("without a table")
	}
}
