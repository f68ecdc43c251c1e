package worker

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAnswersThatNobodyTakesTakeNoMemory(t *testing.T) {
	for name, each := range map[string]func(answer) error{"of a journal": nil, "of an opening": func(answer) error { return nil }} {
		c, err := newCall(request{Op: opAttach}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.each = each
		for range 10000 {
			c.deliver(answer{Log: strings.Repeat("x", logPiece)})
		}
		held := 0
		for _, a := range c.came {
			held += len(a.Log)
		}
		if held > maxCame || each == nil && held > 0 {
			t.Errorf("%s: %d bytes are held", name, held)
		}
		for range 100 {
			c.deliver(answer{Done: true})
		}
		if last := c.came[len(c.came)-1]; !last.Done || len(c.came) > 1 && c.came[len(c.came)-2].Done {
			t.Errorf("%s: the last answer is not there once", name)
		}
	}
}

func TestAWorkerHasFewConnectionsForOneJournal(t *testing.T) {
	c, err := newCall(request{Op: opAttach}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var withdraw []func()
	for range 100 {
		if w, ok := c.offer(); ok {
			withdraw = append(withdraw, w)
		}
	}
	if n := len(withdraw); n < 1 || n > 8 {
		t.Fatalf("%d connections wait", n)
	}
	for _, w := range withdraw {
		w()
	}
	if _, ok := c.offer(); !ok {
		t.Error("none may come any more")
	}
}

func TestADirectoryThatSomebodyElseHasMadeIsRefused(t *testing.T) {
	const nobody = 65534
	for _, theirs := range []string{".", programsDir, hintsDir, allocationsDir} {
		dir := filepath.Join(t.TempDir(), "class")
		if err := os.MkdirAll(filepath.Join(dir, theirs), 0o700); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() != 0 {
			continue // it takes root to make one that is another user's
		}
		if err := os.Chown(filepath.Join(dir, theirs), nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if _, err := NewOffice(Options{Dir: dir, Self: os.Args[0]}); err == nil || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("%s is another user's: %v", theirs, err)
		}
	}
}

func TestWhatLiesAmongTheSignsHoldsUpNobody(t *testing.T) {
	dir := t.TempDir()
	o, err := NewOffice(Options{Dir: dir, Self: os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, hintsDir, "x", "y")
	if err := os.MkdirAll(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := o.hints(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, hintsDir)); err != nil || len(left) > 0 {
		t.Errorf("%v, %v among the signs", left, err)
	}
	if aside, err := os.ReadDir(filepath.Join(dir, asideDir)); err != nil || len(aside) != 1 {
		t.Errorf("%v, %v put aside", aside, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); o.aside.sweep(ctx) }()
	limit := time.After(10 * time.Second)
	for gone := false; !gone; {
		_, err := os.Lstat(filepath.Join(dir, asideDir))
		gone = os.IsNotExist(err)
		select {
		case <-limit:
			t.Fatal("it is not removed")
		case <-time.After(time.Millisecond):
		}
	}
	stop()
	<-ran
}

func TestOneAddressKeepsNobodyElseOut(t *testing.T) {
	g := guests{from: map[string]int{}}
	from := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	var leave []func()
	for range strangers {
		if l, ok := g.enter(from("10.0.0.1")); ok {
			leave = append(leave, l)
		}
	}
	if _, ok := g.enter(from("10.0.0.2")); !ok || len(leave) >= strangers {
		t.Errorf("%d from one address", len(leave))
	}
	for _, l := range leave {
		l()
	}
	if _, ok := g.enter(from("10.0.0.1")); !ok || len(g.from) != 2 {
		t.Errorf("after they have left: %v", g.from)
	}
}
