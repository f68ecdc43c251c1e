package account

import (
	"context"
	"errors"

	"github.com/tranter-ci/tranter"
)

func lookup(context.Context, string) (*tranter.Account, error) {
	return nil, errors.New("jobs can't run as another user on Windows")
}
