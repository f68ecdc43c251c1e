package coordinator_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// The test binary, started with this variable, serves the state directory that it names until it is killed.
const serveVariable = "COORDINATOR_TEST_SERVE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveVariable); dir != "" {
		fmt.Fprintln(os.Stderr, serveForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serveForever(dir string) error {
	var c *coordinator.Coordinator
	c, err := coordinator.Open(coordinator.Options{
		Dir: dir, AdminToken: "glpat-test", LongPoll: -1, SweepEvery: 5 * time.Millisecond,
		NewPipeline: func(ctx context.Context, p coordinator.Project, ref string, _ []tranter.Variable) (int64, error) {
			jobs := stages(
				script("one", "build", func(j *pipeline.Job) { j.Retry.Max = 1 }), script("two", "build"), script("three", "test"),
			)
			return c.StartPipeline(ctx, p.ID, coordinator.PipelineSpec{Pipeline: jobs, Ref: ref, SHA: strings.Repeat("a1", 20)})
		},
	})
	if err != nil {
		return err
	}
	if _, err := c.CreateProject("demo", ""); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	return c.Serve(context.Background(), l)
}

// victim is a coordinator in a process of its own.
type victim struct {
	cmd *exec.Cmd
	url string
}

func startVictim(t *testing.T, dir string) *victim {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), serveVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the coordinator did not start: %v", err)
	}
	return &victim{cmd: cmd, url: strings.TrimSpace(line)}
}

func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}

// promise is what the coordinator has acknowledged about one job.
type promise struct {
	job      tranter.Job
	log      int    // acknowledged bytes
	sent     int    // bytes that were sent, acknowledged or not
	artifact bool   // acknowledged
	state    string // final state that was acknowledged
	asked    string // final state that was sent
}

// logText is the log of every job.
var logText = strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz\n", 400)

// crowd is a number of runners that remember what they were promised.
type crowd struct {
	t     *testing.T
	token string

	mu        sync.Mutex
	jobs      map[int64]*promise
	pipelines []int64
}

var errStatus = errors.New("unexpected status")

// send makes a call. An error means that there was no whole answer.
func (c *crowd) send(url, method, path string, body []byte, headers ...string) (int, []byte, http.Header, error) {
	r, err := http.NewRequestWithContext(c.t.Context(), method, url+"/api/v4/"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, data, resp.Header, err
}

// work takes jobs and works on them until the coordinator is gone.
func (c *crowd) work(url string, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	request, _ := json.Marshal(map[string]any{"token": c.token, "info": map[string]any{"features": features()}})
	for {
		p := c.held(random)
		if p == nil {
			status, data, _, err := c.send(url, "POST", "jobs/request", request)
			if err != nil {
				return
			}
			if status != http.StatusCreated {
				if c.newPipeline(url) != nil {
					return
				}
				continue
			}
			p = c.promised(data)
		}
		if err := c.run(url, p, random); err != nil {
			return
		}
	}
}

// held returns a job that was promised to a runner and is not finished, with a chance, and takes it for the caller.
func (c *crowd) held(random *rand.Rand) *promise {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.jobs {
		if p.asked == "" && random.IntN(2) == 0 {
			p.asked = "taken"
			return p
		}
	}
	return nil
}

func (c *crowd) promised(data []byte) *promise {
	p := &promise{asked: "taken"}
	if err := json.Unmarshal(data, &p.job); err != nil {
		c.t.Errorf("job: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jobs[p.job.ID] != nil {
		c.t.Errorf("job %d was handed out twice", p.job.ID)
	}
	c.jobs[p.job.ID] = p
	return p
}

func (c *crowd) newPipeline(url string) error {
	status, data, _, err := c.send(url, "POST", "projects/1/pipeline", []byte(`{"ref":"main"}`), "Private-Token", "glpat-test")
	if err != nil {
		return err
	}
	var made struct{ ID int64 }
	if err := json.Unmarshal(data, &made); err != nil || status != http.StatusCreated {
		c.t.Errorf("new pipeline: %d %s", status, data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pipelines = append(c.pipelines, made.ID)
	return nil
}

// run goes on with a job. An error means that the coordinator is gone; then somebody else may go on later.
func (c *crowd) run(url string, p *promise, random *rand.Rand) (err error) {
	asked := ""
	defer func() {
		c.mu.Lock()
		p.asked = asked
		c.mu.Unlock()
	}()
	path := fmt.Sprintf("jobs/%d", p.job.ID)
	token := p.job.Token.Reveal()
	for p.log < len(logText) && random.IntN(4) > 0 {
		end := min(len(logText), p.log+1+random.IntN(5000))
		p.sent = max(p.sent, end)
		status, _, h, err := c.send(url, "PATCH", path+"/trace", []byte(logText[p.log:end]), "Job-Token", token,
			"Content-Range", fmt.Sprintf("%d-%d", p.log, end-1))
		if err != nil {
			return err
		}
		var size int
		if _, err := fmt.Sscanf(h.Get("Range"), "0-%d", &size); err != nil || status != 202 && status != 416 || size < p.log {
			c.t.Errorf("PATCH of job %d at %d: %d, Range %q", p.job.ID, p.log, status, h.Get("Range"))
			return errStatus
		}
		p.log = size
	}
	if !p.artifact && random.IntN(2) == 0 {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		w, _ := form.CreateFormFile("file", "artifacts.zip")
		_, _ = io.WriteString(w, token)
		_ = form.Close()
		status, data, _, err := c.send(url, "POST", path+"/artifacts", body.Bytes(), "Job-Token", token, "Content-Type", form.FormDataContentType())
		if err != nil {
			return err
		}
		if status != http.StatusCreated {
			c.t.Errorf("upload of job %d: %d %s", p.job.ID, status, data)
		}
		p.artifact = true
	}
	asked = []string{"success", "failed"}[random.IntN(2)]
	status, data, _, err := c.send(url, "PUT", path, fmt.Appendf(nil, `{"token":%q,"state":%q,"failure_reason":"script_failure"}`, token, asked))
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		c.t.Errorf("final update of job %d: %d %s", p.job.ID, status, data)
	}
	p.state = asked
	return nil
}

// check compares a coordinator that was opened again with what was promised.
func (c *crowd) check(again *coordinator.Coordinator) {
	c.t.Helper()
	for _, id := range c.pipelines {
		if v, err := again.Pipeline(id); err != nil || len(v.Jobs) < 3 {
			c.t.Errorf("pipeline %d is lost: %v", id, err)
		}
	}
	for id, p := range c.jobs {
		v, err := again.Job(id)
		if err != nil {
			c.t.Errorf("job %d is lost: %v", id, err)
			continue
		}
		allowed := []coordinator.Status{coordinator.Running, coordinator.Status(p.asked)}
		if p.state != "" {
			allowed = []coordinator.Status{coordinator.Status(p.state)}
		}
		if v.Status != allowed[0] && v.Status != allowed[len(allowed)-1] {
			c.t.Errorf("job %d is %s, but was promised to be one of %v", id, v.Status, allowed)
		}
		log, err := again.Trace(id)
		if err != nil {
			c.t.Fatal(err)
		}
		data, err := io.ReadAll(log)
		log.Close()
		if err != nil || len(data) < p.log || len(data) > p.sent || string(data) != logText[:len(data)] {
			c.t.Errorf("job %d: log of %d bytes, acknowledged %d, sent %d (%v)", id, len(data), p.log, p.sent, err)
		}
		if p.artifact {
			c.checkArtifact(again, id, p.job.Token.Reveal())
		}
	}
}

func (c *crowd) checkArtifact(again *coordinator.Coordinator, id int64, want string) {
	c.t.Helper()
	f, err := again.OpenArtifact(id, "archive")
	if err != nil {
		c.t.Errorf("artifact of job %d is lost: %v", id, err)
		return
	}
	defer f.Close()
	if data, _ := io.ReadAll(f); string(data) != want {
		c.t.Errorf("artifact of job %d: %q", id, data)
	}
}

// A coordinator that is killed at any moment has kept whatever it had acknowledged.
func TestNothingAcknowledgedIsLostWhenKilled(t *testing.T) {
	t.Parallel()
	const rounds, runners = 20, 4
	dir := t.TempDir()
	c := &crowd{t: t, jobs: map[int64]*promise{}}
	first, err := coordinator.Open(coordinator.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	rn, err := first.CreateRunner(coordinator.RunnerSpec{RunUntagged: true})
	if err != nil {
		t.Fatal(err)
	}
	c.token = rn.Token.Reveal()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	for round := range rounds {
		v := startVictim(t, dir)
		var working sync.WaitGroup
		for range runners {
			seed := random.Uint64()
			working.Go(func() { c.work(v.url, seed) })
		}
		timer := time.NewTimer(time.Duration(5+random.IntN(80)) * time.Millisecond)
		<-timer.C
		v.kill()
		working.Wait()
		again, err := coordinator.Open(coordinator.Options{Dir: dir})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		c.check(again)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		for _, p := range c.jobs {
			if p.state == "" {
				status, err := statusOf(again, p.job.ID)
				if err == nil && status.Finished() {
					p.state = string(status) // it had happened, and only the answer was lost
				} else {
					p.asked = ""
				}
			}
		}
	}
	done := 0
	for _, p := range c.jobs {
		if p.state != "" {
			done++
		}
	}
	if done < rounds {
		t.Errorf("only %d jobs were finished: the test proves little", done)
	}
	t.Logf("%d pipelines, %d jobs, %d of them finished", len(c.pipelines), len(c.jobs), done)
}

func statusOf(c *coordinator.Coordinator, id int64) (coordinator.Status, error) {
	v, err := c.Job(id)
	return v.Status, err
}
