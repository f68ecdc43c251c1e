package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/tranter-ci/tranter/internal/store"
)

// historyFile is the history in a state directory.
const historyFile = "history.db"

// openPast opens what the manager of a state directory has kept of the past, for reading, whether that manager runs or not.
func openPast(ctx context.Context, stateDir string) (*store.History, error) {
	h, err := store.ReadHistory(ctx, filepath.Join(stateDir, historyFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("nothing is known of the past in %s: no manager has kept anything there yet; --state-dir names another directory", stateDir)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run this as the user that the manager runs as", err)
	}
	return h, err
}
