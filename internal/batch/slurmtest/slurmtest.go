// Package slurmtest gives tests a real Slurm cluster of their own: a controller and several virtual nodes on this machine,
// as tools/hpc configures them. It starts in about a second and is gone after the test, also when the test is killed.
//
// Slurm starts batch jobs at the ticks of a clock of one second, which nothing makes faster: let jobs of a test wait side by
// side.
package slurmtest

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/batch"
)

// Options say what the cluster is like.
type Options struct {
	Nodes      int    // 0: 2; at most 24. Each has 4 processors, 4000 MB and two pretended GPUs, called n1, n2 ...
	Users      bool   // other users than ours have jobs: the test has to run as root
	Accounting bool   // ended jobs are written to a file that sacct -c reads: jobcomp/filetxt
	Config     string // further lines of slurm.conf
}

// Cluster is a running cluster. Its partitions: batch (the default one), short (at most an hour), preempt (its jobs give way
// to those of batch).
type Cluster struct {
	Conf string   // value of SLURM_CONF
	Env  []string // what Slurm's commands need in their environment

	t     testing.TB
	dir   string
	tool  string
	nodes int

	mu      sync.Mutex
	daemons map[string]<-chan struct{} // "slurmctld", "n1" ... → closed when it has ended
	pids    map[string]int
}

const (
	startLimit = 60 * time.Second
	mostNodes  = 24
	// firstPort and ports: the clusters of all tests on this machine lie below the ports that the kernel gives away.
	firstPort, ports = 20000, 12000
)

// Start starts a cluster that ends with the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Users && os.Geteuid() != 0 {
		t.Fatal("a cluster for several users is started by root only")
	}
	nodes := cmp.Or(o.Nodes, 2)
	if nodes > mostNodes {
		t.Fatalf("a cluster of %d nodes: at most %d", nodes, mostNodes)
	}
	// Sockets lie in the directory: t.TempDir is too long, and closed to other users.
	dir, err := os.MkdirTemp("", "slurm") //nolint:usetesting // it is removed with the cluster
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{
		Conf: filepath.Join(dir, "slurm.conf"), t: t, dir: dir, tool: tool(t), nodes: nodes,
		daemons: map[string]<-chan struct{}{}, pids: map[string]int{},
	}
	c.Env = []string{"SLURM_CONF=" + c.Conf}
	ctx, stop := context.WithTimeout(context.Background(), startLimit)
	defer stop()
	c.configure(ctx, o)
	c.removeAtTheEnd()
	c.daemon("munged", "munged", "--foreground", "--force", "--key-file="+dir+"/munge.key", "--socket="+dir+"/munge.sock",
		"--pid-file="+dir+"/munged.pid", "--log-file="+dir+"/log/munged.log", "--seed-file="+dir+"/munged.seed")
	c.until(ctx, "munged answers", func() bool {
		conn, err := net.Dial("unix", dir+"/munge.sock")
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	c.daemon("slurmctld", "slurmctld", "-D", "-c", "-i")
	for n := range nodes {
		c.startNode(n + 1)
	}
	c.until(ctx, "all nodes are idle", func() bool { return c.idle() == nodes })
	return c
}

// configure has the configuration written, for ports that are ours as long as this process lives.
func (c *Cluster) configure(ctx context.Context, o Options) {
	c.t.Helper()
	base := c.reserve()
	cmd := exec.CommandContext(ctx, c.tool, "configure", c.dir, strconv.Itoa(c.nodes), strconv.Itoa(base))
	cmd.Env = append(os.Environ(), "EXTRA="+o.Config)
	if !o.Accounting {
		cmd.Env = append(cmd.Env, "JOBCOMP=no")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("configure a cluster: %v: %s", err, out)
	}
}

// reserve finds ports for the controller and the nodes. A name in the kernel keeps other tests off them.
func (c *Cluster) reserve() int {
	c.t.Helper()
	const block = mostNodes + 1
	for range 200 {
		base := firstPort + block*rand.IntN(ports/block) // #nosec G404 -- it need not be secret
		name, err := net.Listen("unix", "@tranter-slurmtest-"+strconv.Itoa(base))
		if err != nil {
			continue
		}
		if free(base, c.nodes+1) {
			c.t.Cleanup(func() { _ = name.Close() })
			return base
		}
		_ = name.Close()
	}
	c.t.Fatal("no free ports for a cluster")
	return 0
}

func free(base, count int) bool {
	for port := base; port < base+count; port++ {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// removeAtTheEnd starts a process that waits for the end of the test, or of this process, and then ends the cluster.
func (c *Cluster) removeAtTheEnd() {
	c.t.Helper()
	ours, theirs, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `cat; exec "$0" stop "$1"`, c.tool, c.dir)
	cmd.Stdin = ours
	apart(cmd)
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ours.Close()
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Log(c.story())
		}
		theirs.Close()
		if err := cmd.Wait(); err != nil {
			c.t.Errorf("end the cluster: %v", err)
		}
		c.mu.Lock()
		ended := c.daemons
		c.mu.Unlock()
		for _, d := range ended {
			<-d
		}
	})
}

// story is what the controller has logged, for tests that fail.
func (c *Cluster) story() string {
	log, err := os.ReadFile(filepath.Join(c.dir, "log/slurmctld.log"))
	if err != nil {
		return err.Error()
	}
	return "the controller's log ends:\n" + string(log[max(0, len(log)-4000):])
}

func (c *Cluster) daemon(key, name string, args ...string) {
	c.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "SLURM_CONF="+c.Conf, "TRANTER_HPC="+c.dir, "TRANTER_HPC_NODE="+filepath.Join(c.dir, key),
		"PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	if path, err := exec.LookPath(filepath.Join("/usr/sbin", name)); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	ended, err := bound(cmd)
	if err != nil {
		c.t.Fatalf("start %s: %v (tools/setup test installs it)", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.daemons[key], c.pids[key] = ended, cmd.Process.Pid
}

// Client runs Slurm's commands on this cluster.
func (c *Cluster) Client() batch.Client { return batch.Client{Environment: slices.Clone(c.Env)} }

// Slurm runs one of Slurm's commands; that it fails ends the test.
func (c *Cluster) Slurm(name string, args ...string) string {
	c.t.Helper()
	out, err := c.Client().Run(context.Background(), batch.Call{Name: name, Args: args})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// Queue is what squeue says of all jobs that it knows, for people.
func (c *Cluster) Queue() string {
	c.t.Helper()
	return c.Slurm("squeue", "-a", "-h", "-t", "all", "-o", "%i %j %u %T %r %N")
}

// WaitEmpty waits until no job waits or runs.
func (c *Cluster) WaitEmpty() {
	c.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), startLimit)
	defer stop()
	c.until(ctx, "no job is left", func() bool { return strings.TrimSpace(c.Slurm("squeue", "-a", "-h")) == "" })
}

// StopController ends the controller in an orderly way: jobs go on, and commands fail after a few seconds.
func (c *Cluster) StopController() {
	c.t.Helper()
	c.mu.Lock()
	ended, pid := c.daemons["slurmctld"], c.pids["slurmctld"]
	c.mu.Unlock()
	p, err := os.FindProcess(pid)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := p.Signal(os.Interrupt); err != nil {
		c.t.Fatal(err)
	}
	<-ended
}

// StartController starts the controller again, with the jobs that it had, and waits until it answers.
func (c *Cluster) StartController() {
	c.t.Helper()
	c.daemon("slurmctld", "slurmctld", "-D", "-i")
	ctx, stop := context.WithTimeout(context.Background(), startLimit)
	defer stop()
	c.until(ctx, "the controller answers", func() bool { return c.idle() >= 0 })
}

// KillNode kills all that runs on a node, 1 being the first, as if its power was cut.
func (c *Cluster) KillNode(n int) {
	c.t.Helper()
	if out, err := exec.Command(c.tool, "kill", c.dir, node(n)).CombinedOutput(); err != nil {
		c.t.Fatalf("kill node %d: %v: %s", n, err, out)
	}
}

// RestartNode kills a node's daemon and starts it again. What runs on the node goes on.
func (c *Cluster) RestartNode(n int) {
	c.t.Helper()
	c.mu.Lock()
	ended, pid := c.daemons[node(n)], c.pids[node(n)]
	c.mu.Unlock()
	p, err := os.FindProcess(pid)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		c.t.Fatal(err)
	}
	<-ended
	c.startNode(n)
}

// StartNode starts a node that was killed.
func (c *Cluster) StartNode(n int) {
	c.t.Helper()
	c.startNode(n)
}

// Down has the controller take a node for lost, at once: its jobs end so, with their processes. A node that is not dead comes
// back by itself within seconds.
func (c *Cluster) Down(n int) {
	c.t.Helper()
	c.Slurm("scontrol", "update", "nodename="+node(n), "state=down", "reason=test")
}

// Resume takes a node into service again.
func (c *Cluster) Resume(n int) {
	c.t.Helper()
	c.Slurm("scontrol", "update", "nodename="+node(n), "state=resume")
}

func (c *Cluster) startNode(n int) {
	c.t.Helper()
	c.daemon(node(n), "slurmd", "-D", "-N", node(n))
}

func node(n int) string { return fmt.Sprintf("n%d", n) }

// idle counts the nodes that have answered and have nothing to do; -1: the controller does not answer.
func (c *Cluster) idle() (count int) {
	out, err := c.Client().Run(context.Background(), batch.Call{Name: "sinfo", Args: []string{"-h", "-N", "-p", "batch", "-o", "%T"}})
	if err != nil {
		return -1
	}
	for state := range strings.FieldsSeq(out) {
		if state == "idle" {
			count++
		}
	}
	return count
}

// until waits for something to be so.
func (c *Cluster) until(ctx context.Context, what string, so func() bool) {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			c.t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// tool is the path of tools/hpc, in the directory that has go.mod.
func tool(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "tools", "hpc")
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod in this directory or above it")
		}
		dir = parent
	}
}
