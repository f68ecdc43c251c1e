package image

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// parsed is what a file of logins says. Nothing of its content is in faults.
type parsed struct {
	logins  map[string]registry.AuthConfig
	helpers map[string]helper
	store   *helper
	faults  []string
}

// entry is one login of a file.
type entry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// parseConfig reads a config.json of docker's. Its errors tell a position and nothing of the content.
func parseConfig(content []byte) (parsed, error) {
	var file struct {
		Auths       map[string]json.RawMessage `json:"auths"`
		CredsStore  string                     `json:"credsStore"`
		CredHelpers map[string]string          `json:"credHelpers"`
	}
	if err := decode(content, &file); err != nil {
		return parsed{}, err
	}
	p := readEntries(file.Auths, "of auths")
	if file.CredsStore != "" {
		if validProgram(file.CredsStore) {
			p.store = &helper{program: file.CredsStore}
		} else {
			p.faults = append(p.faults, "its credsStore is not the name of a program: only letters, digits, dots, dashes and underscores")
		}
	}
	for i, key := range slices.Sorted(maps.Keys(file.CredHelpers)) {
		program, path := file.CredHelpers[key], pathKey(key)
		switch {
		case program == "":
		case !validProgram(program):
			p.faults = append(p.faults, fmt.Sprintf("entry %d of credHelpers (in the order of the registries' names) is not the name of a program: only letters, digits, dots, dashes and underscores", i+1))
		case path != "":
			p.helpers[path] = helper{program: program, server: key}
		}
	}
	return p, nil
}

// parseOldConfig reads a .dockercfg, which has the entries at its top.
func parseOldConfig(content []byte) (parsed, error) {
	var entries map[string]json.RawMessage
	if err := decode(content, &entries); err != nil {
		return parsed{}, err
	}
	return readEntries(entries, "of it"), nil
}

// readEntries leaves out those that are malformed. Empty ones are common: docker login writes them when a store has the login.
func readEntries(entries map[string]json.RawMessage, of string) parsed {
	p := parsed{logins: map[string]registry.AuthConfig{}, helpers: map[string]helper{}}
	for i, key := range slices.Sorted(maps.Keys(entries)) {
		auth, ok, err := readEntry(entries[key])
		if err != nil {
			p.faults = append(p.faults, fmt.Sprintf("entry %d %s (in the order of the registries' names) is left out: %v", i+1, of, err))
			continue
		}
		path := pathKey(key)
		if !ok || path == "" {
			continue
		}
		auth.ServerAddress = bare(key)
		p.logins[path] = auth
	}
	return p
}

func readEntry(raw json.RawMessage) (registry.AuthConfig, bool, error) {
	var e entry
	if err := json.Unmarshal(raw, &e); err != nil {
		return registry.AuthConfig{}, false, errors.New("it is not an object of texts")
	}
	a := registry.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		plain, err := decodeBase64(e.Auth)
		user, password, ok := strings.Cut(plain, ":")
		if err != nil || !ok || user == "" {
			return registry.AuthConfig{}, false, errors.New("its auth is not user:password in base64 (printf '%s' user:password | base64 -w0)")
		}
		a.Username, a.Password = user, strings.Trim(password, "\x00")
	}
	if a.Username == "<token>" { // how tokens are kept where there is room for a user and a password only
		a.Username, a.Password, a.IdentityToken = "", "", orDefault(a.IdentityToken, a.Password)
	}
	return a, a.Username != "" || a.IdentityToken != "" || a.RegistryToken != "", nil
}

func decodeBase64(text string) (string, error) {
	text = strings.Join(strings.Fields(text), "")
	plain, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		plain, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	}
	return string(plain), err
}

// decode reads JSON into v. What json says of an error has parts of the content in it; the position will do.
func decode(content []byte, v any) error {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	err := json.Unmarshal(content, v)
	if err == nil {
		return nil
	}
	hint := ""
	if first := bytes.TrimSpace(content); len(first) > 0 && first[0] != '{' {
		hint = "; it must begin with a brace: give the content of docker's config.json, not its path and not a password"
	}
	offset := int64(len(content))
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		line, column := position(content, kind.Offset)
		return fmt.Errorf("a value of the wrong kind ends at line %d, column %d%s", line, column, hint)
	}
	line, column := position(content, offset)
	return fmt.Errorf("it is not valid JSON at line %d, column %d%s", line, column, hint)
}

func position(content []byte, offset int64) (line, column int) {
	before := content[:max(0, min(offset, int64(len(content))))]
	return 1 + bytes.Count(before, []byte("\n")), max(1, len(before)-1-bytes.LastIndexByte(before, '\n'))
}
