package diskspace

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// distant says whether dir lies on a file system that a server, or another process, answers for, as the table of mounts
// has it. Nothing of the file system itself is looked at.
func distant(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	return distantBy(mounts, dir)
}

func distantBy(mounts []byte, dir string) bool {
	dir = filepath.Clean(dir)
	kind, depth := "", -1
	for line := range bytes.Lines(mounts) {
		before, after, ok := strings.Cut(string(line), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 1 {
			continue
		}
		point := unescape(fields[4])
		if below := strings.TrimSuffix(point, "/"); dir != point && !strings.HasPrefix(dir, below+"/") {
			continue
		}
		if len(point) >= depth { // of those at one place, the last covers the others
			kind, depth = rest[0], len(point)
		}
	}
	served := []string{"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "ocfs2", "gfs2", "virtiofs", "fuse", "fuseblk"}
	return slices.Contains(served, kind) || strings.HasPrefix(kind, "fuse.")
}

// unescape undoes the octal form of blanks and backslashes in the table of mounts.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
