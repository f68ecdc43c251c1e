package agent_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// TestFormatOfFiles reads what the first version with this format writes. A manager and an agent of different versions
// work together for as long as a job takes, so nothing that was written once may be lost on the other.
//
// A field that is new has to be added to the files. One that goes, or means something else now, needs a new format, a new
// directory of files, and code that still reads the old ones.
func TestFormatOfFiles(t *testing.T) {
	t.Parallel()
	for file, into := range map[string]any{"phase.json": &writtenPhase{}, "result.json": &tranter.PhaseResult{}} {
		path := filepath.Join("testdata", fmt.Sprint("format-", tranter.PhaseFormat), file)
		if os.Getenv("UPDATE_FORMAT") != "" {
			fill(reflect.ValueOf(into).Elem(), 0)
			reflect.ValueOf(into).Elem().FieldByName("Format").SetInt(tranter.PhaseFormat)
			data, err := json.MarshalIndent(into, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		written, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(written))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil {
			t.Errorf("%s is not understood any more: %v", path, err)
			continue
		}
		again, err := json.Marshal(into)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := errors.Join(json.Unmarshal(written, &want), json.Unmarshal(again, &got)); err != nil {
			t.Fatal(err)
		}
		for _, lost := range missing("", want, got) {
			t.Errorf("%s: %s is lost", path, lost)
		}
		for _, added := range missing("", got, want) {
			t.Errorf("%s: %s is new: run this test once with UPDATE_FORMAT=1 and look at the difference", path, added)
		}
	}
}

// writtenPhase is what the phase's file holds.
type writtenPhase struct {
	Format int `json:"format"`
	tranter.Phase
}

// missing lists what of want is not the same in got.
func missing(at string, want, got any) []string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return []string{at}
		}
		var out []string
		for k, v := range w {
			out = append(out, missing(at+"."+k, v, g[k])...)
		}
		return out
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) < len(w) {
			return []string{at}
		}
		var out []string
		for i, v := range w {
			out = append(out, missing(fmt.Sprintf("%s[%d]", at, i), v, g[i])...)
		}
		return out
	}
	if !reflect.DeepEqual(want, got) {
		return []string{at}
	}
	return nil
}

// fill gives everything in v a value that is not zero.
func fill(v reflect.Value, n int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		if v.Type().String() == "time.Time" {
			return // written as it is
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), n+i)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n)
		fill(value, n)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(fmt.Sprint("text ", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Uint8:
		if v.CanInt() {
			v.SetInt(int64(n + 1))
		} else {
			v.SetUint(uint64(n + 1))
		}
	default:
		panic(fmt.Sprintf("no value is known for a field of kind %v: say one here", v.Kind()))
	}
}

// Who meets what a newer version has written says so.
func TestANewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	newer := fmt.Sprintf(`{"format": %d, "id": "job"}`, tranter.PhaseFormat+1)
	if err := os.WriteFile(filepath.Join(dir, "phase.json"), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := agent.Run(t.Context(), dir, agent.Work{}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("an agent with a newer phase: %v", err)
	}
	for name, text := range map[string]string{"journal": "", "result.json": fmt.Sprintf(`{"format": %d, "status": "succeeded"}`, tranter.PhaseFormat+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := agent.Attach(t.Context(), dir, 0, &bytes.Buffer{}); !errors.Is(err, tranter.ErrAgentLost) || !strings.Contains(err.Error(), "format") {
		t.Errorf("a newer result: %v", err)
	}
}

// A request to end is written by managers and read by agents of other versions.
func TestFormatOfCancel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "phase.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := agent.Cancel(dir, true, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(dir, "cancel"))
	if want := `{"abort":true,"grace":10000000000}`; err != nil || string(written) != want {
		t.Errorf("%s, %v; an agent of format 1 reads %s", written, err, want)
	}
}
