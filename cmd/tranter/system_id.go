package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// systemIDFile holds the system id, beside config.toml (contract 1.4).
const systemIDFile = ".runner_system_id"

// systemIDPattern is what a system id looks like: s_ for one that was made from the machine's id, r_ for a random one.
var systemIDPattern = lazy.Regexp(`^[sr]_[0-9a-zA-Z]{12}$`)

// systemID tells this manager from others that use the same token (contract 1.4). It is read from the file beside the
// configuration, which is written if it is not there or holds something else.
func systemID(configPath string, log *slog.Logger) string {
	path := filepath.Join(filepath.Dir(configPath), systemIDFile)
	data, err := os.ReadFile(path)
	id := strings.TrimSpace(string(data))
	if err == nil && systemIDPattern().MatchString(id) {
		return id
	}
	id = machineSystemID(machineID())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("The system id can't be read; this host may show up in GitLab as a further manager of its runners", "file", path, "system_id", id, "error", err)
		return id
	}
	if err == nil {
		log.Warn("What the file of the system id holds is none: it is replaced", "file", path, "system_id", id)
	}
	if err := replaceFile(path, []byte(id)); err != nil {
		log.Warn("The system id can't be saved; it may be another one at the next start", "file", path, "system_id", id, "error", err)
	}
	return id
}

// machineSystemID makes a system id from the id of the machine, or a random one if the machine has none. The machine's
// id itself must not get out, so only a hash with it as the key is used.
func machineSystemID(machine string) string {
	if machine == "" {
		return newSystemID()
	}
	mac := hmac.New(sha256.New, []byte(machine))
	mac.Write([]byte("gitlab-runner"))
	return "s_" + hex.EncodeToString(mac.Sum(nil))[:12]
}

// machineIDPattern is what the id of a machine looks like. Containers have an empty file where there is one at all,
// images that wait for their first start have the word "uninitialized", and /etc/hostid of some systems is no text.
var machineIDPattern = lazy.Regexp(`^[0-9a-fA-F-]{8,}$`)

// machineID is the id of this machine's installation, or empty.
func machineID() string {
	for _, path := range []string{"/var/lib/dbus/machine-id", "/etc/machine-id", "/etc/hostid"} {
		data, err := os.ReadFile(path)
		id := strings.TrimSpace(string(data))
		if err == nil && machineIDPattern().MatchString(id) {
			return id
		}
	}
	return ""
}
