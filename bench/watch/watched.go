//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
)

// watched is the manager that is measured, as the measuring program has it.
type watched struct {
	options
	cmd    *exec.Cmd
	say    io.WriteCloser
	hear   *bufio.Scanner
	url    string
	client *http.Client
}

// begin starts this program once more, as the manager.
func begin(ctx context.Context, o options) (*watched, error) {
	m := &watched{options: o}
	m.cmd = exec.CommandContext(ctx, "/proc/self/exe", "-serve", "-dir", o.dir, "-machines", strconv.Itoa(o.machines), "-running", strconv.Itoa(o.running), "-turnover", strconv.Itoa(o.turnover), "-profile", o.profile)
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // Ctrl-C is for this process, which ends it
	var err error
	if m.say, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.hear = bufio.NewScanner(out)
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	if !m.hear.Scan() {
		return nil, fmt.Errorf("the manager did not start: %w", m.cmd.Wait())
	}
	m.url = strings.TrimSuffix(m.hear.Text(), "/")
	m.client = &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 2 * o.viewers}}
	return m, nil
}

func (m *watched) end() error {
	m.client.CloseIdleConnections()
	_ = m.say.Close()
	return m.cmd.Wait()
}

// tell tells the manager something, and returns its answer.
func (m *watched) tell(word string) (int64, error) {
	if _, err := fmt.Fprintln(m.say, word); err != nil {
		return 0, err
	}
	if !m.hear.Scan() {
		return 0, fmt.Errorf("the manager has ended: %w", io.ErrUnexpectedEOF)
	}
	return strconv.ParseInt(m.hear.Text(), 10, 64)
}

func (m *watched) busy() time.Duration { return measure.Busy(m.cmd.Process.Pid) }

// answer is what came for a request.
type answer struct {
	took   time.Duration // from the request to the last byte
	packed int
	tag    string
}

// get asks for a path as a browser does; a tag is that of the answer before.
func (m *watched) get(ctx context.Context, path, tag string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Accept-Encoding", "gzip")
	if tag != "" {
		req.Header.Set("If-None-Match", tag)
	}
	start := time.Now()
	res, err := m.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNotModified {
		err = fmt.Errorf("GET %s: %s", path, res.Status)
	}
	return answer{time.Since(start), int(n), res.Header.Get("ETag")}, err
}

// follow reads the live stream until ctx ends, and calls told with each topic.
func (m *watched) follow(ctx context.Context, told func(topic string)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+"/live", nil)
	if err != nil {
		return err
	}
	res, err := m.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /live: %s", res.Status)
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if topic, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			told(topic)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return lines.Err()
}
