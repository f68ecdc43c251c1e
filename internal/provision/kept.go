package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// kept is what is remembered of a machine that was made ready. It is in the store, which only its owner can read.
type kept struct {
	Version int          `json:"version"`
	HostKey string       `json:"host_key"`
	Socket  string       `json:"socket,omitempty"`
	TLS     *credentials `json:"tls,omitempty"`
}

const keptVersion = 1

// maxKept bounds what is read.
const maxKept = 64 << 10

func parseKept(text json.RawMessage) (kept, error) {
	var k kept
	if len(text) > maxKept {
		return k, errors.New("it is too long")
	}
	if err := json.Unmarshal(text, &k); err != nil {
		return k, errors.New("it is malformed") // the text of the error may have parts of it
	}
	switch {
	case k.Version != keptVersion:
		return k, fmt.Errorf("it has version %d; this program knows %d", k.Version, keptVersion)
	case k.HostKey == "" || strings.ContainsAny(k.HostKey, "\r\n"):
		return k, errors.New("it has no host key")
	case k.TLS != nil && (k.TLS.Port < 1 || k.TLS.Port > maxPort):
		return k, errors.New("it has no port of the engine")
	}
	return k, nil
}

func isEmpty(text json.RawMessage) bool {
	return len(text) == 0 || string(text) == "null" || string(text) == "{}"
}
