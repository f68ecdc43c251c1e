// Package notice watches for a cloud's word that it will take a machine back: a spot or preemptible machine, or one whose
// host is to be repaired. It asks the cloud's metadata server from outside, through the connection to the machine: nothing
// runs there.
//
// What the server says is not believed further than needed: answers are bounded, and only words that are known end up in
// a Notice.
package notice

import (
	"cmp"
	"context"
	"net"
	"slices"
	"time"
)

// Notice says that a machine will go, be stopped or start again without asking.
type Notice struct {
	Reason string
	At     time.Time // when; zero: unknown
}

// Reach makes a connection from the machine to an address.
type Reach = func(ctx context.Context, network, address string) (net.Conn, error)

// Options say where to ask, and how often.
type Options struct {
	Clouds  []string      // of "aws", "gcp", "azure", "alibaba"; others are ignored; empty: all. The one that answers is asked
	Every   time.Duration // 0: as often as the time between a cloud's notice and its deed asks for, five seconds to a minute
	Address string        // host:port of the metadata server; empty: the cloud's own
}

const (
	// refusals is how often in a row all clouds must be absent until the machine is on none of them.
	refusals = 3
	// attempts is how often is tried to find out at all.
	attempts = 25
	// firstPause is the one between two attempts, which grow up to longestPause; so do those after failures later.
	firstPause   = 5 * time.Second
	longestPause = 30 * time.Second
)

// cloud is one kind of metadata server.
type cloud interface {
	// here finds out whether this is the machine's cloud.
	here(ctx context.Context) (bool, error)
	// ask looks for a notice. It may wait for one for about a minute.
	ask(ctx context.Context) (Notice, bool, error)
	// every is the time from one question to the next.
	every() time.Duration
}

// Watch asks until there is a notice, tells found of it, once, and returns. It also returns when ctx ends, or when no cloud
// answers: then the machine is on none that is known. It outlives failures of reach.
func Watch(ctx context.Context, reach Reach, o Options, found func(Notice)) {
	clouds, closeAll := choose(reach, o)
	defer closeAll()
	c := detect(ctx, clouds, cmp.Or(o.Every, firstPause))
	if c == nil {
		return
	}
	every := cmp.Or(o.Every, c.every())
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		n, ok, err := c.ask(ctx)
		if ok {
			found(n)
			return
		}
		pause := every - time.Since(began)
		if failures++; err == nil {
			failures = 0
		} else {
			pause = backoff(every, failures)
		}
		wait(ctx, pause)
	}
}

// choose makes the clouds that o names, and a function that ends their connections.
func choose(reach Reach, o Options) ([]cloud, func()) {
	var clouds []cloud
	var clients []*client
	for _, known := range []struct {
		name, address string
		make          func(*client) cloud
	}{
		{"aws", "169.254.169.254:80", func(c *client) cloud { return &aws{client: c} }},
		{"gcp", "169.254.169.254:80", func(c *client) cloud { return &gcp{client: c} }},
		{"azure", "169.254.169.254:80", func(c *client) cloud { return &azure{client: c} }},
		{"alibaba", "100.100.100.200:80", func(c *client) cloud { return &alibaba{client: c} }},
	} {
		if len(o.Clouds) > 0 && !slices.Contains(o.Clouds, known.name) {
			continue
		}
		c := newClient(reach, cmp.Or(o.Address, known.address))
		clients = append(clients, c)
		clouds = append(clouds, known.make(c))
	}
	return clouds, func() {
		for _, c := range clients {
			c.http.CloseIdleConnections()
		}
	}
}

// detect finds the machine's cloud; nil: it is on none of them, or ctx has ended.
func detect(ctx context.Context, clouds []cloud, pause time.Duration) cloud {
	if len(clouds) == 0 {
		return nil
	}
	for attempt, refused := 1, 0; attempt <= attempts && refused < refusals && ctx.Err() == nil; attempt++ {
		c, sure := which(ctx, clouds)
		if c != nil {
			return c
		}
		if refused++; !sure {
			refused = 0
		}
		if refused < refusals && attempt < attempts {
			wait(ctx, backoff(pause, attempt))
		}
	}
	return nil
}

// which asks all clouds at once. With none found, sure says whether that is certain: a connection that fails on the way to
// the machine says nothing of what is behind.
func which(ctx context.Context, clouds []cloud) (c cloud, sure bool) {
	type verdict struct {
		here bool
		err  error
	}
	verdicts := make([]chan verdict, len(clouds))
	for i, c := range clouds {
		verdicts[i] = make(chan verdict, 1)
		go func() {
			here, err := c.here(ctx)
			verdicts[i] <- verdict{here, err}
		}()
	}
	sure = true
	for i := range clouds {
		v := <-verdicts[i]
		if v.here && c == nil {
			c = clouds[i]
		}
		sure = sure && (v.err == nil || refuses(v.err))
	}
	return c, sure
}

// backoff is the pause after a number of failures in a row.
func backoff(base time.Duration, failures int) time.Duration {
	pause := base
	for range failures - 1 {
		if pause >= longestPause {
			break
		}
		pause *= 2
	}
	return min(pause, max(base, longestPause))
}

func wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
