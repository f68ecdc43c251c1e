package worker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// listener is where workers connect to. Who it is does not change over restarts: workers of before come back.
type listener struct {
	net.Listener
	config      *tls.Config
	address     string // for workers
	fingerprint string
	close       func()
}

// identity is what is kept of a listener.
type identity struct {
	Certificate string `json:"certificate"` // PEM
	Key         string `json:"key"`         // PEM
	Port        int    `json:"port"`
}

// lifetime is that of the certificate. Nothing looks at it: it is known by its fingerprint.
const lifetime = 20 * 365 * 24 * time.Hour

func newIdentity() (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "tranter"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return identity{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identity{}, err
	}
	return identity{
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})),
		Key:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}, nil
}

// bind binds the address.
func (o *Office) bind() (*listener, error) {
	host, port, err := net.SplitHostPort(o.options.Listen)
	if err != nil {
		return nil, fmt.Errorf("the address %q: %w", o.options.Listen, err)
	}
	shared := folder{root: o.root}
	var id identity
	switch content, err := shared.read(listenFile, maxSign); {
	case errors.Is(err, os.ErrNotExist):
		if id, err = newIdentity(); err != nil {
			return nil, fmt.Errorf("make a certificate: %w", err)
		}
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(content, &id); err != nil {
			return nil, fmt.Errorf("%s is damaged; remove it, and the batch jobs that there are: %w", listenFile, err)
		}
	}
	if port == "0" && id.Port != 0 {
		port = strconv.Itoa(id.Port)
	}
	l := &listener{}
	if l.Listener, err = net.Listen("tcp", net.JoinHostPort(host, port)); err != nil {
		return nil, fmt.Errorf("%w (workers of before know this port)", err)
	}
	l.close = sync.OnceFunc(func() { _ = l.Listener.Close() }) //nolint:staticcheck // close is another
	if err := l.become(id, host); err == nil {
		id.Port = l.Addr().(*net.TCPAddr).Port
		var content []byte
		if content, err = json.Marshal(id); err == nil {
			err = shared.give(listenFile, content, true)
		}
		if err == nil {
			return l, nil
		}
		l.close()
		return nil, err
	}
	l.close()
	return nil, fmt.Errorf("%s is damaged; remove it, and the batch jobs that there are", listenFile)
}

func (l *listener) become(id identity, host string) error {
	certificate, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(certificate.Certificate[0])
	l.fingerprint = hex.EncodeToString(sum[:])
	l.config = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return err
		}
	}
	l.address = net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	return nil
}

const (
	introduceTime = 10 * time.Second // in which who connects has to say who it is
	pingInterval  = 10 * time.Second
	silence       = time.Minute // after which a connection is given up
	writeTime     = 20 * time.Second
	strangers     = 512 // that may connect at the same time
	strangersEach = 64  // from one address: nobody can keep all others out
	maxHello      = 16 << 10
)

// hello is the first line of a worker on a connection.
type hello struct {
	Name   string `json:"name"`
	Key    string `json:"key"`
	Attach string `json:"attach,omitempty"` // the request whose journal comes; empty: the connection is for requests
	Sign   *sign  `json:"sign,omitempty"`
}

// welcome is the answer to it.
type welcome struct {
	OK     bool  `json:"ok"`
	Offset int64 `json:"offset,omitempty"` // from which on the journal is wanted
}

// serve takes connections until ctx ends.
func (o *Office) serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, o.listen.close)()
	var conns sync.WaitGroup
	defer conns.Wait()
	places := make(chan struct{}, strangers)
	guests := guests{from: map[string]int{}}
	for {
		raw, err := o.listen.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			o.log.Warn("A worker's connection can't be taken", "error", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		leave, ok := guests.enter(raw.RemoteAddr())
		if !ok {
			_ = raw.Close()
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			_ = raw.Close()
			return nil
		}
		conns.Go(func() {
			c := newConn(tls.Server(raw, o.listen.config))
			h, hello, err := o.meet(ctx, c)
			<-places
			leave()
			switch {
			case err != nil:
				o.log.Debug("Who has connected is no worker of ours", "from", raw.RemoteAddr(), "error", err)
				c.close()
			case hello.Attach != "":
				h.pass(ctx, hello.Attach, c)
			default:
				o.hold(ctx, h, c, hello.Sign)
			}
		})
	}
}

// guests counts those who have connected and have not said yet who they are, by address.
type guests struct {
	mu   sync.Mutex
	from map[string]int
}

// enter says whether one more may come from an address.
func (g *guests) enter(from net.Addr) (leave func(), ok bool) {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.String()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.from[host] >= strangersEach {
		return nil, false
	}
	g.from[host]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.from[host]--; g.from[host] <= 0 {
			delete(g.from, host)
		}
	}, true
}

// meet finds out who has connected.
func (o *Office) meet(ctx context.Context, c *conn) (*holding, hello, error) {
	defer context.AfterFunc(ctx, c.close)()
	var is hello
	_ = c.SetDeadline(time.Now().Add(introduceTime))
	line, err := c.line(maxHello)
	if err != nil {
		return nil, is, err
	}
	if err := json.Unmarshal(line, &is); err != nil {
		return nil, is, errors.New("its first line is malformed")
	}
	if checkName("allocation", is.Name) != nil || is.Key == "" {
		return nil, is, errors.New("it does not say who it is")
	}
	h := o.followed(is.Name)
	if h == nil || h.loss() != nil {
		return nil, is, errors.New("its allocation is not known")
	}
	f, err := h.in()
	if err != nil {
		return nil, is, err
	}
	key, err := f.read(keyFile, maxHello)
	if err != nil {
		return nil, is, err
	}
	if len(key) == 0 || subtle.ConstantTimeCompare(key, []byte(is.Key)) != 1 {
		return nil, is, fmt.Errorf("it does not have the key of allocation %s", is.Name)
	}
	_ = c.SetDeadline(time.Time{})
	return h, is, nil
}

// hold serves the connection of a worker on which requests go out and answers come in.
func (o *Office) hold(ctx context.Context, h *holding, c *conn, s *sign) {
	defer c.close()
	defer context.AfterFunc(ctx, c.close)()
	if !c.send(welcome{OK: true}) {
		return
	}
	h.adopt(c)
	defer h.release(c)
	if s != nil {
		o.signed(ctx, h, *s)
	}
	var pinging sync.WaitGroup
	defer pinging.Wait()
	stopped, stop := context.WithCancel(ctx)
	defer stop()
	pinging.Go(func() { c.ping(stopped, request{Op: opPing}) })
	_ = c.read(maxAnswer, func(line []byte) {
		var a answer
		if json.Unmarshal(line, &a) == nil && a.Sign != nil {
			o.signed(ctx, h, *a.Sign)
			return
		}
		h.dispatch(line)
	})
}

// adopt makes c the connection of the allocation's worker, and sends on it all that is asked.
func (h *holding) adopt(c *conn) {
	h.mu.Lock()
	before := h.conn
	h.conn = c
	calls, ending := append([]*call(nil), h.calls...), h.ending
	h.mu.Unlock()
	if before != nil {
		before.close()
	}
	if ending != "" {
		c.send(request{Op: opEnd, Reason: ending})
	}
	for _, q := range calls {
		h.sendOn(c, q)
	}
}

// sendOn sends a request, with what followed it, on a connection.
func (h *holding) sendOn(c *conn, q *call) {
	h.mu.Lock()
	all := append([]*call{q}, q.more...)
	h.mu.Unlock()
	for _, q := range all {
		r := q.request
		r.Body = q.body
		c.send(r)
	}
}

func (h *holding) release(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == c {
		h.conn = nil
	}
}

// pass gives a connection to who waits for a journal.
func (h *holding) pass(ctx context.Context, id string, c *conn) {
	q := h.find(id)
	if q == nil || q.request.Op != opAttach {
		c.send(welcome{})
		c.close()
		return
	}
	withdraw, ok := q.offer()
	if !ok {
		c.close()
		return
	}
	defer withdraw()
	select {
	case q.conns <- c:
	case <-q.over:
		c.send(welcome{})
		c.close()
	case <-ctx.Done():
		c.close()
	}
}

// conn is a connection of lines of JSON.
type conn struct {
	net.Conn
	in    *bufio.Reader
	close func()

	mu sync.Mutex // of writing
}

func newConn(c net.Conn) *conn {
	return &conn{Conn: c, in: bufio.NewReaderSize(c, 32<<10), close: sync.OnceFunc(func() { _ = c.Close() })}
}

// send sends a line. A connection on which that does not work is closed.
func (c *conn) send(v any) bool {
	data, err := json.Marshal(v)
	if err == nil {
		err = c.put(append(data, '\n'))
	}
	if err != nil {
		c.close()
	}
	return err == nil
}

func (c *conn) put(data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := c.Write(data)
	return err
}

// line reads one line.
func (c *conn) line(most int) ([]byte, error) {
	var out []byte
	for {
		part, err := c.in.ReadSlice('\n')
		out = append(out, part...)
		if len(out) > most {
			return nil, errLongLine
		}
		if err == nil {
			return bytes.TrimSuffix(out, []byte{'\n'}), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// read reads lines until the connection ends, or is silent for too long.
func (c *conn) read(most int, each func(line []byte)) error {
	for {
		if err := c.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		line, err := c.line(most)
		if err != nil {
			return err
		}
		each(line)
	}
}

// ping sends v from time to time.
func (c *conn) ping(ctx context.Context, v any) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.send(v)
		}
	}
}
