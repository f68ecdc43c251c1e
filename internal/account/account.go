// Package account tells as which system user the jobs of a GitLab user run.
//
// It asks a table, then a program of the site's, then the system for a user of the same name. Whatever it is told, a job never
// runs as root or as a user below a least uid. GitLab's user names come from strangers: only those that GitLab allows are
// looked at.
package account

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// Options say how users are mapped.
type Options struct {
	Table      map[string]string // system users by GitLab user names; it is asked first
	Command    []string          // program that prints the system user; the GitLab user's name is its last argument
	Same       bool              // a GitLab user is the system user of the same name; this is asked last
	MinimumUID int               // least uid that jobs may run as; root may never
	Timeout    time.Duration     // of the program, and of questions to the system; 0: 10 s
}

// User is a GitLab user whose job is to run.
type User struct {
	Name    string
	ID      int64
	Project string // path of the job's project
}

// UnmappedError means that a user has no system user as whom jobs may run.
type UnmappedError struct {
	User   string // as far as it is one
	Reason string // and what to do
}

func (e *UnmappedError) Error() string {
	return fmt.Sprintf("jobs of GitLab user %.100q can't run here: %s", e.User, e.Reason)
}

// errUnknown means that there is no such system user.
var errUnknown = errors.New("there is no such user")

const (
	defaultTimeout = 10 * time.Second
	keep           = time.Minute
	mostKept       = 10000
	longestName    = 255 // GitLab's limit
	longestSystem  = 256 // Linux's
)

// Mapper maps users. What it has found it keeps for a minute. All methods may be called at the same time.
type Mapper struct {
	o Options

	mu    sync.Mutex
	known map[User]answer
}

type answer struct {
	account *tranter.Account
	err     error
	until   time.Time
}

// New returns a Mapper.
func New(o Options) *Mapper {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	return &Mapper{o: o, known: map[User]answer{}}
}

// Map returns the system user as whom a user's job runs. The error is an *UnmappedError if there is none; other errors, such
// as that the site's program has failed, may pass.
func (m *Mapper) Map(ctx context.Context, u User) (*tranter.Account, error) {
	if !plausible(u.Name) {
		return nil, &UnmappedError{User: u.Name, Reason: "this is not a user name of GitLab's: it has letters, digits, dashes, dots and underscores, and begins with neither a dash nor a dot"}
	}
	now := time.Now()
	if a, ok := m.kept(u, now); ok {
		return copied(a.account), a.err
	}
	account, err := m.find(ctx, u)
	var unmapped *UnmappedError
	if err == nil || errors.As(err, &unmapped) {
		m.keep(u, answer{account: account, err: err, until: now.Add(keep)}, now)
	}
	return copied(account), err
}

func (m *Mapper) kept(u User, now time.Time) (answer, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.known[u]
	return a, ok && now.Before(a.until)
}

func (m *Mapper) keep(u User, a answer, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= mostKept {
		for u, a := range m.known {
			if !now.Before(a.until) {
				delete(m.known, u)
			}
		}
	}
	if len(m.known) < mostKept {
		m.known[u] = a
	}
}

// find asks all sources.
func (m *Mapper) find(ctx context.Context, u User) (*tranter.Account, error) {
	ctx, stop := context.WithTimeout(ctx, m.o.Timeout)
	defer stop()
	name, source, err := m.name(ctx, u)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, &UnmappedError{User: u.Name, Reason: "no system user is given for it in [runners.batch.users]: add it to table, or see to it that the program named by command prints one"}
	}
	account, err := lookup(ctx, name)
	switch {
	case errors.Is(err, errUnknown) && source == "":
		return nil, &UnmappedError{User: u.Name, Reason: "this host has no user of that name: create it, or name another one in table of [runners.batch.users]"}
	case errors.Is(err, errUnknown):
		return nil, &UnmappedError{User: u.Name, Reason: fmt.Sprintf("%s names system user %.100q, which this host does not have", source, name)}
	case err != nil:
		return nil, fmt.Errorf("find a system user for GitLab user %s: %w", u.Name, err)
	}
	if err := m.allowed(account); err != nil {
		return nil, &UnmappedError{User: u.Name, Reason: err.Error()}
	}
	return account, nil
}

// name returns the name of a user's system user, which may be none, and who has said so: empty for the same name.
func (m *Mapper) name(ctx context.Context, u User) (name, source string, err error) {
	if name, ok := m.o.Table[u.Name]; ok { // an empty one shuts the user out
		return name, "table", nil
	}
	for gitlab, name := range m.o.Table { // GitLab's user names are the same in any case
		if strings.EqualFold(gitlab, u.Name) {
			return name, "table", nil
		}
	}
	if len(m.o.Command) > 0 {
		name, err := m.ask(ctx, u)
		if name != "" || err != nil {
			return name, "command", err
		}
	}
	if m.o.Same {
		return u.Name, "", nil
	}
	return "", "", nil
}

// ask runs the site's program.
func (m *Mapper) ask(ctx context.Context, u User) (string, error) {
	client := batch.Client{Timeout: m.o.Timeout, Environment: []string{
		"TRANTER_USER=" + u.Name, "TRANTER_USER_ID=" + strconv.FormatInt(u.ID, 10), "TRANTER_PROJECT=" + strings.ReplaceAll(u.Project, "\x00", ""),
	}}
	args := append(append([]string(nil), m.o.Command[1:]...), u.Name) // which does not begin with a dash
	out, err := client.Run(ctx, batch.Call{Name: m.o.Command[0], Args: args})
	if err != nil {
		return "", fmt.Errorf("ask for the system user of GitLab user %s: %w", u.Name, err)
	}
	name := strings.TrimSpace(out)
	if name != "" && !systemName(name) {
		return "", fmt.Errorf("ask for the system user of GitLab user %s: %s has printed %.100q, which is not the name of a user", u.Name, m.o.Command[0], name)
	}
	return name, nil
}

// allowed says whether jobs may run as an account.
func (m *Mapper) allowed(a *tranter.Account) error {
	switch {
	case a.UID == 0:
		return fmt.Errorf("its system user %s is root, as whom no job runs", a.Name)
	case int64(a.UID) < int64(m.o.MinimumUID):
		return fmt.Errorf("its system user %s has uid %d, and minimum_uid of [runners.batch.users] is %d", a.Name, a.UID, m.o.MinimumUID)
	case a.GID == 0:
		return fmt.Errorf("its system user %s has the group root, with whose rights no job runs", a.Name)
	}
	return nil
}

// Lookup returns a user of this system, by whatever it takes its users from.
func Lookup(name string) (*tranter.Account, error) {
	ctx, stop := context.WithTimeout(context.Background(), defaultTimeout)
	defer stop()
	a, err := lookup(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look up user %.100q: %w", name, err)
	}
	return a, nil
}

// plausible says whether a text can be a user name of GitLab's.
func plausible(name string) bool {
	return name != "" && len(name) <= longestName && !strings.ContainsRune("-.", rune(name[0])) && !strings.ContainsFunc(name, func(r rune) bool { return !wordly(r) })
}

func wordly(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r)
}

// systemName says whether a text can be the name of a system user, such as one of a directory with its domain. One that is
// all digits is none: it would be taken for a uid.
func systemName(name string) bool {
	odd := func(r rune) bool { return !wordly(r) && !strings.ContainsRune(`$@+\`, r) }
	return name != "" && len(name) <= longestSystem && !strings.ContainsRune("-+.", rune(name[0])) && !strings.ContainsFunc(name, odd) &&
		strings.Trim(name, "0123456789") != ""
}

func copied(a *tranter.Account) *tranter.Account {
	if a == nil {
		return nil
	}
	c := *a
	c.Groups = append([]uint32(nil), a.Groups...)
	return &c
}
