package coordinator

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf16"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// The limits of a dotenv report (gitlab-server 1.7).
const (
	maxDotenvSize      = 5 << 10
	maxDotenvVariables = 150
)

var dotenvKey = lazy.Regexp(`^[A-Za-z0-9_]+$`)

// dotenvError is what is wrong with a report, in GitLab's words.
type dotenvError string

// Error returns the words.
func (e dotenvError) Error() string { return string(e) }

// readDotenv reads an uploaded dotenv report. Its errors are for the runner's log.
func readDotenv(path, format string) ([]tranter.Variable, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, dotenvError("the dotenv file could not be read")
	}
	defer f.Close()
	var from io.Reader = f
	if format == "gzip" {
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, dotenvError("Invalid Format")
		}
		from = z
	}
	data, err := io.ReadAll(io.LimitReader(from, maxDotenvSize+1))
	if err != nil {
		return nil, dotenvError("Invalid Format")
	}
	return parseDotenv(data)
}

// parseDotenv splits each line at its first "=". There are no comments, no quotes and no blank lines; of a key that
// occurs twice the last value holds.
func parseDotenv(data []byte) ([]tranter.Variable, error) {
	if len(data) > maxDotenvSize {
		return nil, dotenvError(fmt.Sprintf("Dotenv Artifact Too Big. Maximum Allowable Size: %d", maxDotenvSize))
	}
	text := decodeText(data)
	var out []tranter.Variable
	at := map[string]int{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		key = strings.TrimSpace(key)
		if !ok {
			return nil, dotenvError("Invalid Format")
		}
		if !dotenvKey().MatchString(key) {
			return nil, dotenvError("Validation failed: Key can contain only letters, digits and '_'.")
		}
		v := tranter.Variable{Key: key, Value: strings.TrimSpace(value), Public: true}
		if i, again := at[key]; again {
			out[i] = v
			continue
		}
		at[key] = len(out)
		out = append(out, v)
	}
	if len(out) > maxDotenvVariables {
		return nil, dotenvError(fmt.Sprintf("Dotenv files cannot have more than %d variables", maxDotenvVariables))
	}
	return out, nil
}

// decodeText undoes UTF-16 with a byte order mark, and drops the mark of UTF-8.
func decodeText(data []byte) string {
	big := bytes.HasPrefix(data, []byte{0xfe, 0xff})
	if !big && !bytes.HasPrefix(data, []byte{0xff, 0xfe}) {
		return string(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	}
	var units []uint16
	for i := 2; i+1 < len(data); i += 2 {
		hi, lo := data[i+1], data[i]
		if big {
			hi, lo = lo, hi
		}
		units = append(units, uint16(hi)<<8|uint16(lo))
	}
	return string(utf16.Decode(units))
}
