package config

import (
	"bytes"
	"os"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// FuzzParse: nothing panics; what we take for TOML is what the library takes for TOML; edits keep all other bytes.
func FuzzParse(f *testing.F) {
	for _, path := range append(files(f, "testdata/problems/*.toml"), files(f, "testdata/samples/*.toml")...) {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{
		"", "\xef\xbb\xbfconcurrent = 1\r\n", "a.b = 1\n[a]\n", "[a.b.c]\n[a]\nb.d = 1\n", "a = { b.c = 1, b.c.d = 2 }\n",
		"[[runners]]\n[runners.docker]\n[session_server]\n[runners.cache]\n[[runners]]\n", "runners = [{ name = \"a\" }]\n",
		"[[runners]] # x\n# y\n\n# z\n[runners.\"ssh\"]", "a = [ [1, # c\n 2], {b = 1} ]\n", "x = 1979-05-27 07:32:00Z\ny = 0x_1\n",
		"a = '''\n[x]\n'''\n[a", "concurrent = 99999999999999999999\n", "[runners]\n[[runners]]\n", "[[runners]]\nkubernetes.x = 1\n",
		"[[runners.docker.services]]\n[[runners]]\ndocker.services = [\"a\"]\n", "a = 01\nb = 1_\nc = .5\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, problems := Parse(Source{Name: "f", Data: data, Getenv: func(string) string { return "x" }})
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Line > bytes.Count(data, []byte("\n"))+1 {
				t.Fatalf("%v is not in the file", p)
			}
		}
		_, faults := parseTOML(data)
		var plain map[string]any
		libraryErr := toml.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &plain)
		if (libraryErr == nil) != (len(faults) == 0) {
			t.Fatalf("the library says %v, we say %v", libraryErr, faults)
		}
		if _, err := Render(c); err != nil {
			t.Fatal(err)
		}
		if len(faults) == 0 {
			editEverything(t, data)
		}
	})
}

func editEverything(t *testing.T, data []byte) {
	t.Helper()
	e, err := Edit(data)
	if err != nil {
		t.Fatal(err)
	}
	before := e.Bytes()
	if err := e.AppendRunner(Section{{"name", "new"}, {"docker", Section{{"image", "alpine"}}}}); err != nil {
		return // written in a way that has no place for a section
	}
	if !bytes.HasPrefix(e.Bytes(), before) {
		t.Fatalf("adding a runner changed what was there:\n%s", e.Bytes())
	}
	last := e.Runners() - 1
	if err := e.Set(last, "token", "$X"); err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveRunner(last); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimRight(e.Bytes(), "\r\n"), bytes.TrimRight(before, "\r\n")) {
		t.Fatalf("adding and removing a runner left\n%q\nof\n%q", e.Bytes(), before)
	}
}
