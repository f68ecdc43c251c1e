//go:build unix

package account

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// lookup finds a user. Without C, os/user knows /etc/passwd only: getent knows users of a directory too. The groups are asked
// for in any case, as the directory may have put a local user into some.
func lookup(ctx context.Context, name string) (*tranter.Account, error) {
	if !systemName(name) {
		return nil, errUnknown
	}
	a, err := local(name)
	if errors.Is(err, errUnknown) {
		a, err = fromDirectory(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	if a.Groups, err = groups(ctx, a); err != nil {
		return nil, err
	}
	return a, nil
}

func local(name string) (*tranter.Account, error) {
	u, err := user.Lookup(name)
	if _, ok := errors.AsType[user.UnknownUserError](err); ok {
		return nil, errUnknown
	}
	if err != nil {
		return nil, err
	}
	return account(u.Username, u.Uid, u.Gid, u.HomeDir)
}

// fromDirectory asks the system's name service.
func fromDirectory(ctx context.Context, name string) (*tranter.Account, error) {
	out, err := (batch.Client{}).Run(ctx, batch.Call{Name: "getent", Args: []string{"passwd", name}})
	const unknown = 2 // getent's exit code
	if failed, ok := errors.AsType[*batch.CommandError](err); ok && failed.ExitCode == unknown {
		return nil, errUnknown
	}
	if err != nil {
		return nil, err
	}
	return parsePasswd(out, name)
}

// parsePasswd reads one line of the form of /etc/passwd.
func parsePasswd(line, name string) (*tranter.Account, error) {
	line, _, _ = strings.Cut(line, "\n")
	fields := strings.Split(line, ":")
	const uid, gid, home, least = 2, 3, 5, 6
	if len(fields) < least || fields[0] == "" {
		return nil, fmt.Errorf("getent passwd %s has printed %.100q", name, line)
	}
	if !strings.EqualFold(fields[0], name) {
		return nil, fmt.Errorf("getent passwd %s has answered with user %.100q", name, fields[0])
	}
	return account(fields[0], fields[uid], fields[gid], fields[home])
}

func account(name, uid, gid, home string) (*tranter.Account, error) {
	u, err := number(uid)
	if err != nil {
		return nil, fmt.Errorf("the uid of user %s: %w", name, err)
	}
	g, err := number(gid)
	if err != nil {
		return nil, fmt.Errorf("the group of user %s: %w", name, err)
	}
	if !strings.HasPrefix(home, "/") {
		home = "/"
	}
	return &tranter.Account{Name: name, Home: home, UID: u, GID: g}, nil
}

// number reads a uid or gid. The largest one means none to the system.
func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, err
	}
	if n == 1<<32-1 {
		return 0, fmt.Errorf("%d is no number of a user or group", n)
	}
	return uint32(n), nil
}

// groups returns a user's groups, the main one among them. That there are none, or that they can't be had, is an error: a job
// would run without rights that it needs.
func groups(ctx context.Context, a *tranter.Account) ([]uint32, error) {
	out, err := (batch.Client{}).Run(ctx, batch.Call{Name: "id", Args: []string{"-G", "--", a.Name}})
	if err != nil {
		return nil, fmt.Errorf("the groups of user %s: %w", a.Name, err)
	}
	found, err := parseGroups(out)
	if err != nil {
		return nil, fmt.Errorf("the groups of user %s: %w", a.Name, err)
	}
	return found, nil
}

func parseGroups(text string) ([]uint32, error) {
	var found []uint32
	for field := range strings.FieldsSeq(text) {
		g, err := number(field)
		if err != nil {
			return nil, err
		}
		found = append(found, g)
	}
	if len(found) == 0 {
		return nil, errors.New("id has printed none")
	}
	return found, nil
}
