package shell

import (
	"errors"

	"github.com/tranter-ci/tranter/internal/agent"
)

func identity(string) (*agent.Identity, error) {
	return nil, errors.New("jobs can't run as another user on Windows")
}
