package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tranter-ci/tranter/internal/coordinator"
)

// scriptCommands are commands of the scripts besides those of testscript.
func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	servers := &scriptServers{}
	return map[string]func(*testscript.TestScript, bool, []string){"gitlab": servers.command, "mode": checkMode}
}

// scriptGitLab is the GitLab of one script: a coordinator on loopback.
type scriptGitLab struct {
	*coordinator.Coordinator
	server *httptest.Server
	down   atomic.Bool
}

// scriptServers are the servers of the scripts, by working directory.
type scriptServers struct{ byDir sync.Map }

// command is what scripts call as
//
//	gitlab start      sets GITLAB_URL, RUNNER_TOKEN and RUNNER_ID, SECOND_TOKEN, EXPIRING_TOKEN, REGISTRATION, ADMIN_TOKEN
//	gitlab project P  makes a project of that path, whose groups exist then too
//	gitlab down, up   connections are closed without an answer, or not any more
//	gitlab list FILE  writes what the server knows of its runners, one a line
func (s *scriptServers) command(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: gitlab start|project PATH|down|up|list FILE")
	}
	if args[0] == "start" {
		s.start(ts)
		return
	}
	found, ok := s.byDir.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("gitlab start comes first")
	}
	g := found.(*scriptGitLab)
	switch args[0] {
	case "project":
		_, err := g.CreateProject(args[1], "")
		ts.Check(err)
	case "down", "up":
		g.down.Store(args[0] == "down")
	case "list":
		var b strings.Builder
		for _, r := range g.Runners() {
			fmt.Fprintf(&b, "%s: id=%d tags=%v untagged=%v locked=%v paused=%v timeout=%v note=%q managers=%d", r.Description, r.ID, r.Tags, r.RunUntagged, r.Locked, r.Paused, r.MaximumTimeout, r.MaintenanceNote, len(r.Managers))
			for _, m := range r.Managers {
				fmt.Fprintf(&b, " manager=%+v", m)
			}
			b.WriteString("\n")
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o600))
	default:
		ts.Fatalf("gitlab %s?", args[0])
	}
}

func (s *scriptServers) start(ts *testscript.TestScript) {
	const registration = "GR1348941registrationtoken"
	c, err := coordinator.Open(coordinator.Options{Dir: filepath.Join(ts.Getenv("WORK"), ".gitlab"), Registration: registration, LongPoll: 100 * time.Millisecond})
	ts.Check(err)
	g := &scriptGitLab{Coordinator: c}
	handler := c.Handler()
	g.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if g.down.Load() {
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, req)
	}))
	ts.Defer(func() {
		g.server.CloseClientConnections()
		ts.Check(c.Close())
		g.server.Close()
	})
	s.byDir.Store(ts.Getenv("WORK"), g)
	ts.Setenv("GITLAB_URL", g.server.URL)
	ts.Setenv("REGISTRATION", registration)
	ts.Setenv("ADMIN_TOKEN", c.AdminToken().Reveal())
	for name, life := range map[string]time.Duration{"RUNNER": 0, "SECOND": 0, "EXPIRING": 30 * 24 * time.Hour} {
		r, err := c.CreateRunner(coordinator.RunnerSpec{Description: strings.ToLower(name), RunUntagged: true, TokenLifetime: life})
		ts.Check(err)
		ts.Setenv(name+"_TOKEN", r.Token.Reveal())
		ts.Setenv(name+"_SHORT", r.Token.Short())
		ts.Setenv(name+"_ID", fmt.Sprint(r.ID))
	}
}

// checkMode is "mode 0600 FILE".
func checkMode(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: mode MODE FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); (got == args[0]) == neg {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}
