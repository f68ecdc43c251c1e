package cluster_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
)

// withUsers has jobs of alice and bob run as them, and nobody else's.
func withUsers(s cluster.Settings) cluster.Settings {
	s.Account = func(name string) (*tranter.Account, error) { return &tranter.Account{Name: name}, nil }
	s.Accounts = func(_ context.Context, u cluster.User) (*tranter.Account, error) {
		switch u.Name {
		case "alice", "bob":
			return s.Account("u-" + u.Name)
		case "late":
			return nil, errors.New("the directory does not answer")
		}
		return nil, &tranter.ConfigError{Err: errors.New("no system user is given for " + u.Name)}
	}
	return s
}

func specOf(user string, id int64, log *lockedBuffer) tranter.SessionSpec {
	s := spec(id, log)
	s.Job.Variables = []tranter.Variable{{Key: "GITLAB_USER_LOGIN", Value: user}}
	return s
}

func pendingOf(user string, id int64) cluster.Pending {
	p := pending(id)[0]
	p.User.Name = user
	return p
}

func TestAJobThatMayNotRunIsTakenToBeToldSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		c, stop := l.start(withUsers(l.settings(allocateFirst())))
		defer stop()
		pass(time.Second)
		for user, ready := range map[string]bool{"mallory": true, "late": false} {
			if err := c.Demand(t.Context(), []cluster.Pending{pendingOf(user, 1)}); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			if err := c.Ready(); (err == nil) != ready || l.count() != 0 {
				t.Errorf("with a job of %s that waits: %v, %d batch jobs", user, err, l.count())
			}
			var log lockedBuffer
			_, err := c.Executor().Open(t.Context(), specOf(user, 1, &log))
			if _, mistake := errors.AsType[*tranter.ConfigError](err); err == nil || mistake != ready {
				t.Errorf("the job of %s: %v", user, err)
			}
		}
		if err := c.Demand(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if err := c.Ready(); !errors.Is(err, tranter.ErrBusy) {
			t.Errorf("without jobs: %v", err)
		}
	})
}

func TestAPlaceIsForJobsOfItsUserAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		policy := allocateFirst()
		policy.Linger = time.Minute
		settings := withUsers(l.settings(policy))
		var mu sync.Mutex
		owners := map[string]bool{}
		prepare := settings.Hands.Prepare
		settings.Hands.Prepare = func(a allocation.Allocation, as *tranter.Account) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			owners[as.Name] = true
			return prepare(a, as)
		}
		c, stop := l.start(settings)
		defer stop()
		pass(time.Second)
		if err := c.Demand(t.Context(), []cluster.Pending{pendingOf("alice", 1), pendingOf("bob", 2)}); err != nil {
			t.Fatal(err)
		}
		pass(8 * time.Second)
		mu.Lock()
		if len(owners) != 2 || !owners["u-alice"] || !owners["u-bob"] {
			t.Errorf("batch jobs are those of %v", owners)
		}
		mu.Unlock()
		var log lockedBuffer
		s, err := c.Executor().Open(t.Context(), specOf("alice", 1, &log))
		if err != nil {
			t.Fatal(err)
		}
		first := log.String()
		// A job that says that it is alice's, and of which GitLab's list says that it is bob's.
		_, err = c.Executor().Open(t.Context(), specOf("alice", 2, &log))
		if _, mistake := errors.AsType[*tranter.ConfigError](err); !mistake || !strings.Contains(err.Error(), "another user") {
			t.Errorf("the job of two users: %v", err)
		}
		// It asks for no place, and none is kept for it.
		c.Executor().Expect()(3)
		if _, err := c.Executor().Open(t.Context(), specOf("mallory", 3, &log)); err == nil {
			t.Error("mallory's job runs")
		}
		pass(time.Second)
		if err := c.Ready(); err != nil {
			t.Errorf("after a job that was refused: %v", err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var other lockedBuffer
		if _, err := c.Executor().Open(t.Context(), specOf("bob", 2, &other)); err != nil || other.String() == first {
			t.Errorf("bob's job: %v, %q after %q", err, other.String(), first)
		}
	})
}
