package command

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// Whatever a program prints, what is believed of it is harmless, and what is kept of it is read back as it was.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "[]", `{"address":"h"}`, `{"id":"1"}{"address":"192.0.2.1","user":"u","port":22,"ref":{"a":[1]}}`, "{\"address\":\"h\",\n\"power\":\"stopped\"}",
		`{"address":"-o"}`, `{"address":"h","port":99999}`, `{"ref":"\u0000"}`, `{"retry_after":1e400}`, `{"name":"a","owner":"o","pool":"p","address":"h"}`, "Created.",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, output []byte) {
		var a answer
		r := replies{take: func(value json.RawMessage) error {
			var e entry
			if err := decode(value, &e); err != nil {
				return err
			}
			a = e.over(a)
			return nil
		}}
		err := r.read(bytes.NewReader(output))
		if r.retry < 0 || r.retry > longestRetry {
			t.Errorf("again after %s", r.retry)
		}
		if err != nil || a.check() != nil {
			if ref := a.keep(); len(ref) > 2*maxRef {
				t.Errorf("%d bytes are kept", len(ref))
			}
			return
		}
		m := a.machine("m")
		if m.Login.Host == "" || strings.ContainsAny(m.Login.Host, " \n/@") || strings.HasPrefix(m.Login.Host, "-") || m.Power == "" || m.Login.Port < 0 {
			t.Errorf("believed: %+v", m)
		}
		again := kept(m.Ref).machine("m")
		again.Power = m.Power
		if !reflect.DeepEqual(m, again) {
			t.Errorf("kept: %+v\nread: %+v", m, again)
		}
	})
}
