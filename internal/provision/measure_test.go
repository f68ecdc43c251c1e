package provision_test

import (
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
	"github.com/tranter-ci/tranter/internal/provision"
)

// delayed returns the port of a way to an address on which everything takes a while.
func delayed(t testing.TB, port, to string, delay time.Duration) int {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				<-time.After(2 * delay) // of the three steps of TCP
				far, err := net.Dial("tcp", to)
				if err != nil {
					near.Close()
					return
				}
				go late(near, far, delay)
				late(far, near, delay)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// late copies, and delays each part without holding up those after it.
func late(to, from net.Conn, delay time.Duration) {
	type part struct {
		text []byte
		due  time.Time
	}
	parts := make(chan part, 10000)
	go func() {
		defer close(parts)
		for {
			text := make([]byte, 32<<10)
			n, err := from.Read(text)
			if n > 0 {
				parts <- part{text[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range parts {
		<-time.After(time.Until(p.due))
		if _, err := to.Write(p.text); err != nil {
			break
		}
	}
	to.Close()
	io.Copy(io.Discard, from)
}

func BenchmarkMakingAMachineReady(b *testing.B) {
	for _, c := range []struct {
		name  string
		tls   bool
		delay time.Duration
	}{{"socket", false, 0}, {"tls", true, 0}, {"socket 60ms", false, 30 * time.Millisecond}, {"tls 60ms", true, 30 * time.Millisecond}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				m := machinetest.Start(b, machinetest.Options{Stopped: true})
				s := provision.Settings{Owner: "feed", Linger: time.Hour, Engine: provision.EngineSettings{TLS: c.tls}}
				began := time.Now()
				m.PowerOn()
				b.Logf("power on: %v", time.Since(began))
				machine := machineOf(m)
				if c.delay > 0 {
					delayed(b, "2376", m.Address+":2376", c.delay)
					machine.Login.Host = "127.0.0.1"
					machine.Login.Port = delayed(b, "0", m.Address+":"+strconv.Itoa(m.Login.Port), c.delay)
				}
				b.StartTimer()
				h, _, err := provision.New(s, provision.Options{}).Open(b.Context(), machine, nil, func(x tranter.Timing) { b.Log(x.Step, x.Took) })
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				b.ReportMetric(time.Since(began).Seconds(), "s-from-power-on")
				h.Close()
			}
		})
	}
}
