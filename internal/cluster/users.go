package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/tranter-ci/tranter"
)

// users are the accounts of those whose jobs wait, as they were found last.
type users map[User]*tranter.Account

// mapLimit is for how long accounts are asked for, for one list of jobs, once one could not be found out.
const mapLimit = 20 * time.Second

// remembering returns settings that ask for the account of each user once, for one list of jobs. While what maps them is out of
// order, those that are known stay.
func (s Settings) remembering(known users) (Settings, users) {
	find, begun := s.Accounts, time.Now()
	now, faults := users{}, map[User]error{}
	var last error
	if find == nil {
		return s, now
	}
	s.Accounts = func(ctx context.Context, u User) (*tranter.Account, error) {
		if a := now[u]; a != nil {
			return a, nil
		}
		err, asked := faults[u]
		switch {
		case asked:
		case last != nil && time.Since(begun) >= mapLimit:
			err = last
		default:
			var a *tranter.Account
			if a, err = find(ctx, u); err == nil {
				now[u] = a
				return a, nil
			}
			if _, mistake := errors.AsType[*tranter.ConfigError](err); !mistake {
				last = err
			}
			faults[u] = err
		}
		if _, mistake := errors.AsType[*tranter.ConfigError](err); !mistake && known[u] != nil {
			now[u] = known[u]
			return known[u], nil
		}
		return nil, err
	}
	return s, now
}
