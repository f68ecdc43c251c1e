package builtin_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache/remote"
)

// announce sends the head of an upload and the first byte of its body, and returns the connection.
func (r *rig) announce(address string, length int64) net.Conn {
	r.t.Helper()
	u, err := url.Parse(address)
	must(r.t, err)
	var d net.Dialer
	c, err := d.DialContext(r.t.Context(), "tcp", u.Host)
	must(r.t, err)
	r.t.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\nx", u.RequestURI(), u.Host, length)
	must(r.t, err)
	return c
}

func (r *rig) eventually(what string, holds func() bool) {
	r.t.Helper()
	for began := time.Now(); !holds(); runtime.Gosched() {
		if time.Since(began) > 20*time.Second {
			r.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// What does not fit costs nobody else's archive, whatever length it says that it has.
func TestNothingGoesForWhatDoesNotFit(t *testing.T) {
	r := newRig(t, 20*mib)
	must(t, r.put("other", content(1, 9*mib)))
	for _, n := range []int64{21 * mib, math.MaxInt64 - 20*mib, math.MaxInt64} {
		c := r.announce(r.sign("huge").Upload.Whole.URL.Reveal(), n)
		must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.Contains(line, " 507 ") {
			t.Errorf("%d bytes: %q, %v", n, line, err)
		}
	}
	r.has("other", content(1, 9*mib))
	if r.Size() != 9*mib {
		t.Errorf("%d bytes", r.Size())
	}
}

// Room for an archive is made when its bytes come, not when they are announced.
func TestNothingGoesForWhatDoesNotCome(t *testing.T) {
	r := newRig(t, 20*mib)
	must(t, r.put("other", content(1, 15*mib)))
	before := r.Size()
	r.announce(r.sign("large").Upload.Whole.URL.Reveal(), 20*mib)
	r.eventually("the server has read the first byte", func() bool { return r.Size() != before })
	r.has("other", content(1, 15*mib))
}

// A part that is sent again several times at once is taken off once.
func TestPartsSentAgainAtOnce(t *testing.T) {
	r := newRig(t, 0)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	t.Cleanup(client.CloseIdleConnections)
	for range 40 {
		before, a := r.Size(), r.sign("o")
		address := strings.ReplaceAll(a.Upload.Parts.Part.URL.Reveal(), "{part}", "1")
		send := func(body string) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, address, strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		}
		send(strings.Repeat("x", mib))
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() { send("x") })
		}
		all.Wait()
		if r.Size() <= before {
			t.Fatalf("%d bytes are counted, and there were %d without the part", r.Size(), before)
		}
	}
}

// part is where the first part of an archive goes.
func part(a tranter.RemoteArchive) string {
	return strings.ReplaceAll(a.Upload.Parts.Part.URL.Reveal(), "{part}", "1")
}

// send sends a request and returns the answer's code.
func (r *rig) send(method, address string, body []byte) int {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, address, bytes.NewReader(body))
	must(r.t, err)
	resp, err := http.DefaultClient.Do(req)
	must(r.t, err)
	must(r.t, resp.Body.Close())
	return resp.StatusCode
}

// Nothing comes back of an upload that was aborted, also if a part that was on its way gets there later.
func TestNoPartComesAfterTheAbort(t *testing.T) {
	r := newRig(t, 20*mib)
	a := r.sign("o")
	if code := r.send(http.MethodPut, part(a), content(1, mib)); code != http.StatusOK {
		t.Fatal(code)
	}
	r.send(http.MethodDelete, a.Upload.Parts.Abort.URL.Reveal(), nil)
	if code := r.send(http.MethodPut, part(a), content(1, mib)); code != http.StatusNotFound {
		t.Errorf("a part after the abort: %d", code)
	}
	if r.Size() != 0 || len(r.files("")) > 0 {
		t.Errorf("left: %d bytes, %q", r.Size(), r.files(""))
	}
	must(t, r.put("o", content(2, mib))) // another upload of the archive
	r.has("o", content(2, mib))
}

// Uploads that nobody goes on with take half of the limit at most: then those that were idle for longest go.
func TestUnfinishedUploadsBlockNobody(t *testing.T) {
	r := newRig(t, 20*mib)
	r.opt.Idle = time.Nanosecond
	r.open()
	var begun []tranter.RemoteArchive
	for n := range 6 {
		begun = append(begun, r.sign(fmt.Sprint(n)))
		if code := r.send(http.MethodPut, part(begun[n]), content(1, 4*mib)); code != http.StatusOK {
			t.Fatalf("upload %d: %d", n, code)
		}
		if r.Size() > 10*mib {
			t.Errorf("unfinished uploads take %d bytes", r.Size())
		}
	}
	if code := r.send(http.MethodPut, part(begun[0]), content(1, mib)); code != http.StatusNotFound {
		t.Errorf("the oldest one: %d", code)
	}
	if code := r.send(http.MethodPut, part(begun[5]), content(1, 4*mib)); code != http.StatusOK {
		t.Errorf("the newest one: %d", code)
	}
	must(t, r.put("other", content(2, 15*mib)))
	r.has("other", content(2, 15*mib))
}

// An upload goes once its signature is over, also after a restart.
func TestUploadsWhoseTimeIsOverGo(t *testing.T) {
	r := newRig(t, 20*mib)
	end := time.Now().Truncate(time.Second).Add(2 * time.Second)
	a, err := r.signer.Sign(t.Context(), remote.Object{Name: "o", Upload: true}, end)
	must(t, err)
	if code := r.send(http.MethodPut, part(a), content(1, 6*mib)); code != http.StatusOK {
		t.Fatal(code)
	}
	if r.open(); r.Size() != 6*mib {
		t.Errorf("before the end: %d bytes", r.Size())
	}
	<-time.After(time.Until(end.Add(time.Second)))
	must(t, r.put("other", content(2, mib)))
	if r.Size() != mib || len(r.files(".part")) > 0 {
		t.Errorf("after the end: %d bytes, %q", r.Size(), r.files(".part"))
	}
}

// The bytes of parts that are on their way count, also when their upload is aborted meanwhile.
func TestPartsOfAnAbortedUploadCount(t *testing.T) {
	r := newRig(t, 20*mib)
	var open []net.Conn
	for n := range int64(2) {
		a := r.sign("o")
		open = append(open, r.announce(part(a), 8*mib))
		r.eventually("the part is on its way", func() bool { return len(r.files("content")) == 1 && r.Size() == (n+1)*8*mib })
		r.send(http.MethodDelete, a.Upload.Parts.Abort.URL.Reveal(), nil)
	}
	if r.Size() != 16*mib {
		t.Errorf("%d bytes are counted of two parts on their way", r.Size())
	}
	if err := r.put("other", content(1, 5*mib)); !errors.Is(err, tranter.ErrTooLarge) {
		t.Errorf("more than the limit: %v", err)
	}
	for _, c := range open {
		must(t, c.Close())
	}
	r.eventually("nothing counts any more", func() bool { return r.Size() == 0 })
}

// What an upload has left costs neither memory nor, if it can't go on, space.
func TestUploadsThatACrashHasLeft(t *testing.T) {
	r := newRig(t, 0)
	last := strings.ReplaceAll(r.sign("o").Upload.Parts.Part.URL.Reveal(), "{part}", "10000") // of a file of 80 GB, with holes
	for address, length := range map[string]int64{last: 1, r.sign("whole").Upload.Whole.URL.Reveal(): mib} {
		r.announce(address, length)
	}
	r.eventually("both are there", func() bool { return len(r.files(".part")) == 1 && len(r.files("content")) == 2 })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r.open()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8*mib {
		t.Errorf("%d bytes were allocated", n)
	}
	if len(r.files("content")) != 1 || r.Size() != 1 {
		t.Errorf("left: %q, %d bytes", r.files("content"), r.Size())
	}
}
