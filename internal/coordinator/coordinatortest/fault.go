package coordinatortest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"
)

// Fault disturbs calls. Without Status, Drop, Lose, Truncate, Cut or Dead the call is answered as usual, after Delay and Hold.
type Fault struct {
	Endpoint Endpoint // Any: every call
	Job      int64    // 0: of every job
	Skip     int      // so many calls pass first
	Times    int      // so many calls are disturbed; 0: one, negative: all

	Delay    time.Duration
	Hold     <-chan struct{} // wait until it is closed
	Drop     bool            // close the connection instead of answering; the server has not seen the call
	Lose     bool            // carry the call out, then close the connection: the answer is lost
	Truncate bool            // announce the whole answer, send half of it, and close the connection
	Cut      bool            // read half of the call's body, then close the connection; the server has not seen the call
	Reset    bool            // what closes the connection resets it, as a proxy does that is killed
	Dead     bool            // never answer, not even after Clear; the server has not seen the call
	Status   int             // answer with it, such as 202, 409, 412 or 429; the server has not seen the call
	Body     string          // of the answer with Status
	Header   http.Header     // more headers, in place of those of the same name; with Status they are all but the content's type
}

type fault struct {
	Fault
	left int
	gone chan struct{} // closed by Clear
}

// Inject puts a fault in front of the server. Of several that fit, the one that was injected first counts.
func (g *GitLab) Inject(f Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	g.faults = append(g.faults, &fault{Fault: f, left: f.Times, gone: make(chan struct{})})
}

// Clear takes all faults away. Calls that are held go on.
func (g *GitLab) Clear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.faults {
		close(f.gone)
	}
	g.faults = nil
}

// match finds the fault for a call and counts it.
func (g *GitLab) match(e Endpoint, job int64) *fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.faults {
		if f.Endpoint != Any && f.Endpoint != e || f.Job != 0 && f.Job != job || f.left == 0 {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.left > 0 {
			f.left--
		}
		return f
	}
	return nil
}

// handler records calls and applies faults before next.
func (g *GitLab) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e, job := endpoint(r)
		call := Call{Time: time.Now(), Endpoint: e, Job: job, Method: r.Method, URL: r.URL, Header: r.Header.Clone()}
		f := g.match(e, job)
		if f != nil && f.Cut {
			_, _ = io.CopyN(io.Discard, r.Body, max(0, r.ContentLength/2))
			f.close(&watched{ResponseWriter: w}, nil)
		}
		if e != Upload && e != Git {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler) // the client has gone
			}
			call.Body = body
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		seen := &watched{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			call.Status = seen.status
			g.mu.Lock()
			g.calls = append(g.calls, call)
			g.mu.Unlock()
		}()
		if f != nil {
			f.apply(seen, r, next)
			return
		}
		next.ServeHTTP(seen, r)
	})
}

// apply answers a call as the fault wants it.
func (f *fault) apply(w *watched, r *http.Request, next http.Handler) {
	f.wait(r)
	switch {
	case r.Context().Err() != nil: // the client has not waited: the call has never arrived
		w.abort()
	case f.Dead:
		<-r.Context().Done()
		w.abort()
	case f.Drop:
		f.close(w, nil)
	case f.Status != 0:
		if json := f.Body != "" && f.Body[0] == '{'; json {
			w.Header().Set("Content-Type", "application/json")
		}
		maps.Copy(w.Header(), f.Header)
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
	case f.Lose, f.Truncate:
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		if f.Truncate && !f.Reset {
			f.half(w, answer)
		}
		if !f.Truncate {
			answer = nil
		}
		f.close(w, answer)
	default:
		w.extra = f.Header
		next.ServeHTTP(w, r)
	}
}

// close closes the connection, after half of an answer if there is one to reset in.
func (f *fault) close(w *watched, answer *httptest.ResponseRecorder) {
	if !f.Reset {
		w.abort()
	}
	conn, _, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		w.abort()
	}
	if answer != nil {
		var whole bytes.Buffer
		_ = answer.Result().Write(&whole) // into memory
		_, _ = conn.Write(whole.Bytes()[:whole.Len()/2])
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	w.abort()
}

func (f *fault) half(w *watched, answer *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), answer.Header())
	body := answer.Body.Bytes()
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w.ResponseWriter).Flush() // what cannot be flushed is lost with the rest
}

func (f *fault) wait(r *http.Request) {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.gone:
		case <-r.Context().Done():
		}
	}
	if f.Hold != nil {
		select {
		case <-f.Hold:
		case <-f.gone:
		case <-r.Context().Done():
		}
	}
}

// watched remembers the status of an answer, and sends extra headers with it.
type watched struct {
	http.ResponseWriter
	status int
	extra  http.Header
}

// WriteHeader notes and sends the status.
func (w *watched) WriteHeader(status int) {
	w.status = status
	maps.Copy(w.Header(), w.extra)
	w.extra = nil
	w.ResponseWriter.WriteHeader(status)
}

// Write sends headers before the first byte.
func (w *watched) Write(data []byte) (int, error) {
	if w.extra != nil {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(data)
	if err != nil {
		return n, fmt.Errorf("answer: %w", err)
	}
	return n, nil
}

// Unwrap gives http.ResponseController the connection.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// abort closes the connection.
func (w *watched) abort() {
	w.status = 0
	panic(http.ErrAbortHandler)
}
