package apptainer

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// tied has cmd end when the thread ends that has started it. What is sent to our group it does not get: the runtime would
// end before the script does.
func tied(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// terminate asks all processes below one to end, but not what the runtime consists of: that ends with the last of them,
// and would kill them if it were first.
func terminate(pid int) {
	children := map[int][]int{}
	names := map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		data, err := os.ReadFile(path)
		open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
		if err != nil || open < 0 || end < open {
			continue
		}
		fields := bytes.Fields(data[end+1:])
		if len(fields) < 2 {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(string(fields[1]))
		children[parent] = append(children[parent], id)
		names[id] = string(data[open+1 : end])
	}
	runtimes := []string{"bwrap", "ch-run", "unshare", "nsenter", "apptainer", "singularity", "starter", "starter-suid", "appinit", "sinit"}
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		if !slices.Contains(runtimes, names[queue[0]]) {
			_ = syscall.Kill(queue[0], syscall.SIGTERM)
		}
		queue = append(queue, children[queue[0]]...)
	}
}
