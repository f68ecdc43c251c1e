package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/filelock"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/site"
)

// siteRecord is what the state directory knows of a site: <state>/site/<name>.tokens.json, of mode 0600.
type siteRecord struct {
	Site    string               `json:"site"`
	URL     string               `json:"url"`   // of the server that the runners are at
	Owner   string               `json:"owner"` // names this state directory in the runners' notes; random
	Runners map[string]siteEntry `json:"runners"`
}

// siteEntry is one runner that was made for the site, by its name in the file.
type siteEntry struct {
	site.Token
	Scope   site.Scope `json:"scope,omitzero"`
	ScopeID int64      `json:"scope_id,omitempty"` // of the project or group
}

// siteName is what a site's name may be made of to be part of a file's name.
var siteName = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_. -]*$`)

// sitePath returns the path of one of a site's files in the state directory.
func sitePath(stateDir, name, suffix string) (string, error) {
	if !siteName().MatchString(name) || len(name) > 100 {
		return "", fmt.Errorf("%q can't be the name of a site: letters, digits and any of \"_.- \" can", name)
	}
	return filepath.Join(stateDir, "site", name+suffix), nil
}

// siteConfigPath is where the configuration that is made from a site file is written.
func siteConfigPath(stateDir, name string) (string, error) {
	return sitePath(stateDir, name, ".config.toml")
}

const siteTokensSuffix = ".tokens.json"

// readSiteRecord reads what the state directory knows of a site; nothing, if there is no file.
func readSiteRecord(stateDir, name string) (siteRecord, error) {
	path, err := sitePath(stateDir, name, siteTokensSuffix)
	if err != nil {
		return siteRecord{}, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return siteRecord{Site: name, Runners: map[string]siteEntry{}}, nil
	}
	if err != nil {
		return siteRecord{}, fmt.Errorf("read the runners' tokens: %w", err)
	}
	r, err := decodeSiteRecord(data)
	if err != nil {
		return siteRecord{}, fmt.Errorf("read the runners' tokens in %s: %w; nothing is done without them, because runners would be made twice: restore the file, or move it away and apply with --adopt", path, err)
	}
	return r, nil
}

func decodeSiteRecord(data []byte) (siteRecord, error) {
	var r siteRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return siteRecord{}, withoutContent(err)
	}
	if r.Runners == nil {
		r.Runners = map[string]siteEntry{}
	}
	for name, e := range r.Runners {
		if e.ID <= 0 {
			return siteRecord{}, fmt.Errorf("runner %q has no id", name)
		}
	}
	return r, nil
}

// withoutContent keeps what stands in a file of tokens out of an error.
func withoutContent(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s is of a wrong type", wrong.Field)
	}
	return errors.New("it is no JSON")
}

// loadSiteTokens returns the tokens of a site's runners, by their names in the file.
func loadSiteTokens(stateDir, name string) (map[string]site.Token, error) {
	r, err := readSiteRecord(stateDir, name)
	if err != nil {
		return nil, err
	}
	return r.tokens(), nil
}

func (r siteRecord) tokens() map[string]site.Token {
	out := map[string]site.Token{}
	for name, e := range r.Runners {
		if e.Token.Token != "" {
			out[name] = e.Token
		}
	}
	return out
}

// known is the record as a reconciliation wants it.
func (r siteRecord) known() map[string]site.Known {
	out := map[string]site.Known{}
	for name, e := range r.Runners {
		out[name] = site.Known{Token: e.Token, Scope: e.Scope, ScopeID: e.ScopeID}
	}
	return out
}

// write stores the record so that it is there after a crash, whatever the moment. A first one gets an owner.
func (r *siteRecord) write(stateDir string) error {
	if r.Owner == "" {
		var b [8]byte
		_, _ = rand.Read(b[:]) // it never fails
		r.Owner = hex.EncodeToString(b[:])
	}
	path, err := sitePath(stateDir, r.Site, siteTokensSuffix)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the runners' tokens: %w", err)
	}
	if err := replaceFile(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write the runners' tokens: %w", err)
	}
	return nil
}

// siteLockWait is how long a manager waits for a "site apply" that is at work.
const siteLockWait = time.Minute

// replaceSiteToken stores the new token of one runner, for a manager that has got it one. It waits for a "site apply" that is at
// work.
func replaceSiteToken(ctx context.Context, stateDir, name, runner string, token site.Token) error {
	ctx, stop := context.WithTimeout(ctx, siteLockWait)
	defer stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		unlock, err := lockSite(stateDir, name, "", siteApplies)
		if err == nil {
			defer unlock()
			break
		}
		if !errors.Is(err, filelock.ErrLocked) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
	record, err := readSiteRecord(stateDir, name)
	if err != nil {
		return err
	}
	entry, have := record.Runners[runner]
	if !have || entry.ID != token.ID {
		return fmt.Errorf("store the new token of runner %s: the state directory does not know runner %d by this name any more", runner, token.ID)
	}
	entry.Token = token
	record.Runners[runner] = entry
	return record.write(stateDir)
}

// siteUse says what a lock is for.
type siteUse string

const (
	siteApplies siteUse = "apply" // for the time of one command
	siteRuns    siteUse = "run"   // for the life of a manager
)

// lockSite keeps a second command, or a second manager, from the same site. With file, the path of the site file, a second
// manager with another state directory is kept out too, as far as the file's file system knows locks. The two uses do not
// exclude each other: a site can be applied while its manager runs.
func lockSite(stateDir, name, file string, use siteUse) (unlock func(), err error) {
	path, err := sitePath(stateDir, name, "."+string(use)+".lock")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of sites: %w", err)
	}
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the site: %w", err)
	}
	if err := filelock.Try(lock); err != nil {
		return nil, errors.Join(siteLocked(err, name, "the state directory "+stateDir, use), lock.Close())
	}
	if use != siteRuns || file == "" {
		return func() { lock.Close() }, nil
	}
	written, err := os.Open(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the site file: %w", err), lock.Close())
	}
	if err := filelock.Try(written); errors.Is(err, filelock.ErrLocked) {
		return nil, errors.Join(siteLocked(err, name, "the site file "+file, use), written.Close(), lock.Close())
	}
	return func() { written.Close(); lock.Close() }, nil
}

func siteLocked(err error, name, what string, use siteUse) error {
	switch {
	case !errors.Is(err, filelock.ErrLocked):
		return fmt.Errorf("lock the site %s: %w", name, err)
	case use == siteRuns:
		return fmt.Errorf("another manager is at work on %s for the site %s: %w; stop it first: two managers on one site file would take the same jobs", what, name, err)
	}
	return fmt.Errorf("another \"site apply\" is at work on %s for the site %s: %w; try again when it is done", what, name, err)
}

// bridgeTokens is the tokens file of the older bridge: runners by name (hpc, section 1.5).
type bridgeTokens map[string]struct {
	ID    int64          `toml:"id"`
	Token tranter.Secret `toml:"token"`
}

// maxTokensFile is far more than any such file has.
const maxTokensFile = 4 << 20

// decodeBridgeTokens reads the older bridge's file of tokens.
func decodeBridgeTokens(data []byte) (map[string]siteEntry, error) {
	if len(data) > maxTokensFile {
		return nil, errors.New("it is too large")
	}
	var b bridgeTokens
	if err := toml.Unmarshal(data, &b); err != nil {
		return nil, errors.New("it is no file of tokens: each runner has a table with id and token")
	}
	out := map[string]siteEntry{}
	for name, t := range b {
		token := tranter.Secret(strings.TrimSpace(t.Token.Reveal()))
		if t.ID <= 0 || token == "" {
			return nil, fmt.Errorf("runner %q has no id or no token", name)
		}
		out[name] = siteEntry{Token: site.Token{ID: t.ID, Token: token}}
	}
	return out, nil
}

// importTokens adds runners of the older bridge that are not known yet.
func (r *siteRecord) importTokens(path string, log *slog.Logger) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("import tokens: %w", err)
	}
	found, err := decodeBridgeTokens(data)
	if err != nil {
		return fmt.Errorf("import tokens from %s: %w", path, err)
	}
	taken := map[int64]bool{}
	for _, e := range r.Runners {
		taken[e.ID] = true
	}
	for name, e := range maps.All(found) {
		if _, have := r.Runners[name]; have || taken[e.ID] {
			log.Info("A runner is known already and is not imported", "runner", name, "id", e.ID)
			continue
		}
		r.Runners[name] = e
	}
	return nil
}
