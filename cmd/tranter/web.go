package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
)

// openedLog is a log file.
type openedLog struct {
	*os.File
	live func() bool
}

// Size implements web.Log.
func (l *openedLog) Size() (int64, error) {
	info, err := l.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Live implements web.Log.
func (l *openedLog) Live() bool { return l.live() }

func openLog(path string) (*os.File, error) { return os.Open(path) }

// pricedPast is the past, with the prices that hold now for what has none.
type pricedPast struct {
	*store.History
	watch *observatory
}

// Chart implements web.Past.
func (p pricedPast) Chart(ctx context.Context, q view.ChartQuery) (view.Chart, error) {
	return p.History.Chart(ctx, q, p.watch.table())
}

// webTokenFile holds the token of the page in the state directory if the configuration has none.
const webTokenFile = "web-token"

// webTokens returns the tokens of the page: for actions, and for reading.
func webTokens(c config.Web, dir, stateDir string) (action, read tranter.Secret, err error) {
	if action, err = tokenOf(c.Token, c.TokenFile, dir); err != nil {
		return "", "", fmt.Errorf("web.token_file: %w", err)
	}
	if read, err = tokenOf(c.ReadToken, c.ReadTokenFile, dir); err != nil {
		return "", "", fmt.Errorf("web.read_token_file: %w", err)
	}
	if action == "" {
		action, err = madeToken(filepath.Join(stateDir, webTokenFile))
	}
	return action, read, err
}

// tokenOf returns a token that is given, or that stands in a file; relative paths start at the configuration's directory.
func tokenOf(given tranter.Secret, file, dir string) (tranter.Secret, error) {
	if file == "" {
		return given, nil
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("%s is empty: put the token into it", file)
	}
	return tranter.Secret(token), nil
}

// madeToken returns the token in a file, which is made with a new one if it is not there.
func madeToken(path string) (tranter.Secret, error) {
	data, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(data))) > 0 {
		return tranter.Secret(strings.TrimSpace(string(data))), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the web page's token: %w", err)
	}
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	token := hex.EncodeToString(b)
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the web page's token: %w", err)
	}
	return tranter.Secret(token), nil
}
