//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"github.com/tranter-ci/tranter/bench/measure"
)

// proxyHost is the address of the machine that is far away.
const proxyHost = "127.83.0.1"

// proxy is a slow way to the one machine of the tests' driver that runs.
type proxy struct {
	api       *client.Client
	delay     time.Duration // of a round trip
	listeners []net.Listener
	ctx       context.Context //nolint:containedctx // of all connections
	end       context.CancelFunc
	all       sync.WaitGroup
}

func startProxy(ctx context.Context, b *bench) (*proxy, error) {
	p := &proxy{api: b.api, delay: b.delay}
	p.ctx, p.end = context.WithCancel(ctx)
	for _, port := range []string{"22", "2376"} {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", net.JoinHostPort(proxyHost, port))
		if err != nil {
			p.close()
			return nil, err
		}
		p.listeners = append(p.listeners, l)
		p.all.Go(func() { p.accept(l, port) })
	}
	return p, nil
}

func (p *proxy) close() {
	p.end()
	for _, l := range p.listeners {
		_ = l.Close()
	}
	p.all.Wait()
}

func (p *proxy) accept(l net.Listener, port string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() {
			defer c.Close() //nolint:errcheck // whoever is at the ends sees it
			_ = p.serve(c, port)
		})
	}
}

// serve carries one connection. That it is made takes a round trip, as elsewhere.
func (p *proxy) serve(c net.Conn, port string) error {
	due := time.Now().Add(p.delay)
	host, err := p.machine()
	if err != nil {
		return err
	}
	var d net.Dialer
	to, err := d.DialContext(p.ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // the same
	if err := measure.Pause(p.ctx, time.Until(due)); err != nil {
		return err
	}
	stop := context.AfterFunc(p.ctx, func() { _, _ = c.Close(), to.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { p.carry(c, to) })
	both.Go(func() { p.carry(to, c) })
	both.Wait()
	return nil
}

// machine returns the address of the machine that runs.
func (p *proxy) machine() (string, error) {
	found, err := p.api.ContainerList(p.ctx, client.ContainerListOptions{Filters: make(client.Filters).Add("label", "io.tranter.lab").Add("network", network)})
	if err != nil {
		return "", err
	}
	for _, one := range found.Items {
		if n := one.NetworkSettings.Networks[network]; n != nil && n.IPAddress.IsValid() {
			return n.IPAddress.String(), nil
		}
	}
	return "", errors.New("no machine runs")
}

// piece is what was read at a time.
type piece struct {
	due  time.Time
	data []byte
}

// carry passes on what comes from one end, half a round trip later.
func (p *proxy) carry(from, to net.Conn) {
	pieces := make(chan piece, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		for one := range pieces {
			if measure.Pause(p.ctx, time.Until(one.due)) != nil {
				continue
			}
			if _, err := to.Write(one.data); err != nil {
				_ = from.Close()
			}
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	})
	for {
		data := make([]byte, 32<<10)
		n, err := from.Read(data)
		if n > 0 {
			pieces <- piece{time.Now().Add(p.delay / 2), data[:n]}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writing.Wait()
}
