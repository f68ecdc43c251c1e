package enginetest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network of its own with a cable to the machine's.
type namespace struct {
	name    string
	gateway string // the machine's end of the cable
	mu      sync.Mutex
	reached map[string]bool // addresses of the machine's loopback interface that are reached in it
}

// newNamespace makes a network namespace.
func newNamespace(name string) (*namespace, error) {
	number, err := freeNumber()
	if err != nil {
		return nil, err
	}
	n := &namespace{name: name, reached: map[string]bool{}, gateway: fmt.Sprintf("10.213.%d.1", number)}
	inside := fmt.Sprintf("10.213.%d.2", number)
	for _, step := range []string{
		"netns add " + name,
		"-n " + name + " link set lo up",
		"link add " + name + " type veth peer name eth0 netns " + name,
		"addr add " + n.gateway + "/30 dev " + name,
		"link set " + name + " up",
		"-n " + name + " addr add " + inside + "/30 dev eth0",
		"-n " + name + " link set eth0 up",
		"-n " + name + " route add default via " + n.gateway,
	} {
		if out, err := exec.Command("ip", strings.Fields(step)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", step, err, out)
		}
	}
	return n, nil
}

// freeNumber finds a network 10.213.N.0 that the machine has no address in. Two test processes may still find the same one
// at the same moment: it starts at a random place.
func freeNumber() (int, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return 0, err
	}
	var random [1]byte
	_, _ = rand.Read(random[:])
	for i := range 256 {
		number := (int(random[0]) + i) % 256
		prefix := fmt.Sprintf("10.213.%d.", number)
		if !slices.ContainsFunc(addresses, func(a net.Addr) bool { return strings.HasPrefix(a.String(), prefix) }) {
			return number, nil
		}
	}
	return 0, errors.New("all networks 10.213.N.0 are in use")
}

func (n *namespace) file() string { return "/run/netns/" + n.name }

// forward makes an address of the machine's loopback interface reachable under the same address in the namespace, until
// the test ends.
func (n *namespace) forward(t testing.TB, address string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.reached[address] {
		return nil
	}
	listener, err := n.listen(address)
	if err != nil {
		return err
	}
	n.reached[address] = true
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { relay(conn, address) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		all.Wait() // the engine has been removed before, and with it its connections: cleanups run last in, first out
	})
	return nil
}

// listen opens a listener inside the namespace. The thread that goes in there is given up.
func (n *namespace) listen(address string) (net.Listener, error) {
	type result struct {
		listener net.Listener
		err      error
	}
	opened := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		f, err := os.Open(n.file())
		if err != nil {
			opened <- result{nil, err}
			return
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			opened <- result{nil, fmt.Errorf("enter the network namespace: %w", err)}
			return
		}
		listener, err := net.Listen("tcp", address)
		opened <- result{listener, err}
	}()
	r := <-opened
	return r.listener, r.err
}

// relay copies both ways until either end closes.
func relay(in net.Conn, address string) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	var both sync.WaitGroup
	copyOne := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.Close()
		_ = from.Close()
	}
	both.Go(func() { copyOne(out, in) })
	both.Go(func() { copyOne(in, out) })
	both.Wait()
}
