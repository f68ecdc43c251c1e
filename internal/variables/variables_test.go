package variables

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

func list(kv ...string) List {
	var l List
	for i := 0; i < len(kv); i += 2 {
		l = append(l, tranter.Variable{Key: kv[i], Value: kv[i+1]})
	}
	return l
}

func values(l List) []string {
	var out []string
	for _, v := range l {
		out = append(out, v.Key+"="+v.Value)
	}
	return out
}

func TestExpandOnce(t *testing.T) {
	l := append(list("A", "$B", "B", "${C}!", "C", "see", "D", "$$B $1 $? $none.", "E", "old", "E", "$F"),
		tranter.Variable{Key: "RAW", Value: "$C", Raw: true},
		tranter.Variable{Key: "F", Value: "content of $C", File: true},
		tranter.Variable{Key: "G", Value: "$RAW"})
	got := values(l.Expand("/t"))
	want := []string{"A=${C}!", "B=see!", "C=see", "D=$B   .", "E=old", "E=/t/F", "RAW=$C", "F=content of see", "G=$C"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// The vectors of the contract, section 14.3.
func TestExpandVectors(t *testing.T) {
	if got := list("A", "$B", "B", "$C", "C", "1").Expand("").Get("A"); got != "$C" {
		t.Errorf("one pass only: A = %q, want $C", got)
	}
	if got := list("X", "$$HOME ${Y} $1", "Y", "y").Expand("").Get("X"); got != "$HOME y " {
		t.Errorf("X = %q", got)
	}
}

func TestExpandLeavesTheListAlone(t *testing.T) {
	l := list("A", "$B", "B", "x")
	l.Expand("/t")
	if l[0].Value != "$B" {
		t.Errorf("Expand changed its receiver: %q", l[0].Value)
	}
}

func TestExpandStringUsesTheLastOfSeveral(t *testing.T) {
	if got := list("A", "1", "A", "2").ExpandString("x${A}y", ""); got != "x2y" {
		t.Errorf("got %q, want x2y", got)
	}
}

func TestBool(t *testing.T) {
	for value, want := range map[string][2]bool{
		"": {}, "true": {true, true}, "TRUE": {true, true}, "1": {true, true}, "2": {false, true}, "no": {}, "F": {false, true}, "tRuE": {true, true},
	} {
		v, set := list("K", value).Bool("K")
		if v != want[0] || set != want[1] {
			t.Errorf("%q: got %v, %v, want %v", value, v, set, want)
		}
	}
}

func TestMasked(t *testing.T) {
	l := List{{Key: "A", Value: " s3cret ", Masked: true}, {Key: "B", Value: "open"}, {Key: "C", Value: "s3cret", Masked: true}, {Key: "D", Masked: true}}
	if d := cmp.Diff([]string{"s3cret"}, l.Masked()); d != "" {
		t.Error(d)
	}
}

func TestSortAndExpand(t *testing.T) {
	l := append(list("A", "$B-${C}", "B", "%C%", "C", "x", "D", "$$A %% $unknown ${", "E", "$F $R"),
		tranter.Variable{Key: "F", Value: "$C", File: true}, tranter.Variable{Key: "R", Value: "$C", Raw: true})
	want := []string{"A=x-x", "B=x", "C=x", "D=$$A %% $unknown ${", "E=$F $R", "F=x", "R=$C"}
	if d := cmp.Diff(want, values(SortAndExpand(l))); d != "" {
		t.Error(d)
	}
}

func TestSortAndExpandCycle(t *testing.T) {
	l := list("A", "$B", "B", "$C", "C", "$A", "D", "$E", "E", "x")
	if d := cmp.Diff(values(l), values(SortAndExpand(l))); d != "" {
		t.Errorf("a cycle leaves the list as it was: %s", d)
	}
	if got := strings.Join(Cycle(l), " "); got != "A B C A" {
		t.Errorf("cycle: %q, want A B C A", got)
	}
	if Cycle(list("A", "$B", "B", "x")) != nil {
		t.Error("a cycle where there is none")
	}
}

// What comes out refers to nothing known any more, unless there is a cycle.
func TestSortAndExpandResolvesAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"A", "B", "C", "D", "E"}
		var l List
		for _, n := range names {
			l = append(l, tranter.Variable{Key: n, Value: rapid.StringMatching(`(\$[A-E]|\$\{[A-F]\}|%[A-E]%|x|\$\$|%%){0,4}`).Draw(t, n)})
		}
		out := SortAndExpand(l)
		if Cycle(l) != nil {
			return
		}
		for i, v := range out {
			References(v.Value, func(name, text string) string {
				// Expansion may form new references by accident ("$" before a value); only those that were
				// there count, and they are gone.
				if _, known := l.Lookup(name); known && strings.Contains(l[i].Value, text) && !strings.ContainsAny(l[i].Value, "%") && !strings.Contains(l[i].Value, "$$") {
					t.Fatalf("%s=%q still refers to %s", v.Key, v.Value, name)
				}
				return text
			})
		}
	})
}

func TestResolveFlags(t *testing.T) {
	vars := list("FF_SCRIPT_SECTIONS", "true", "FF_TIMESTAMPS", "maybe", "FF_HASH_CACHE_KEYS", "true", "FF_USE_JOB_ROUTER", "true")
	got, warnings := ResolveFlags(map[string]bool{"FF_HASH_CACHE_KEYS": false, "FF_ENABLE_JOB_CLEANUP": true}, vars)
	for name, want := range map[string]bool{"FF_SCRIPT_SECTIONS": true, "FF_TIMESTAMPS": true, "FF_HASH_CACHE_KEYS": false, "FF_ENABLE_JOB_CLEANUP": true, "FF_USE_JOB_ROUTER": false} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "FF_TIMESTAMPS") {
		t.Errorf("warnings: %q", warnings)
	}
	if d := cmp.Diff([]string{"FF_ENABLE_JOB_CLEANUP:true", "FF_SCRIPT_SECTIONS:true"}, ChangedFlags(got)); d != "" {
		t.Error(d)
	}
	if len(Flags()) != 52 {
		t.Errorf("%d flags, want the 52 of the contract", len(Flags()))
	}
}

func TestBuildOrder(t *testing.T) {
	job := &tranter.Job{Variables: []tranter.Variable{
		{Key: "CI_PROJECT_DIR", Value: "mine"}, {Key: "FF_TIMESTAMPS", Value: "false"}, {Key: "CI_RUNNER_VERSION", Value: "mine"}, {Key: "X", Value: "job"},
	}}
	l := Build(job, Provided{
		Flags: map[string]bool{"FF_TIMESTAMPS": true}, Environment: []string{"X=runner", "broken", "Y=a=b"}, Dirs: tranter.Dirs{Project: "/p"},
		Version: "1.0", Shared: true, TLSCA: "pem", TLSCert: "/etc/cert.pem", TLSKey: "/etc/key.pem",
	})
	for key, want := range map[string]string{"CI_PROJECT_DIR": "mine", "FF_TIMESTAMPS": "true", "CI_RUNNER_VERSION": "1.0", "X": "job", "Y": "a=b", "CI_SHARED_ENVIRONMENT": "true"} {
		if got := l.Get(key); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	if v, _ := l.Lookup("Y"); v.Public || !v.Internal {
		t.Errorf("the runner's environment is internal and not public: %+v", v)
	}
	if v, _ := l.Lookup("CI_SERVER_TLS_CA_FILE"); !v.File || v.Value != "pem" {
		t.Errorf("CI_SERVER_TLS_CA_FILE must be a file: %+v", v)
	}
	if v, _ := l.Lookup("CI_SERVER_TLS_CERT_FILE"); v.File || v.Value != "/etc/cert.pem" || !v.Public {
		t.Errorf("CI_SERVER_TLS_CERT_FILE must be the path of the file that is there: %+v", v)
	}
	if v, _ := l.Lookup("CI_SERVER_TLS_KEY_FILE"); v.File || v.Value != "/etc/key.pem" || v.Public {
		t.Errorf("CI_SERVER_TLS_KEY_FILE must be the path of the file that is there: %+v", v)
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$A", "${A}", "$$", "${", "${A", "$1$?", "%A%", "%%", "a$", "${A:-x}", "$Ä"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		l := append(list("A", a, "B", b, "C", "$A${B}", "D", strings.ReplaceAll(a, "$", "$$"), "E", a), tranter.Variable{Key: "RAW", Value: a, Raw: true})
		out := l.Expand("/tmp")
		for i, v := range out {
			if v.Key != l[i].Key {
				t.Fatalf("%s became %s", l[i].Key, v.Key)
			}
		}
		if got := out.Get("C"); got != a+b {
			t.Errorf("$A${B} is %q, want the values as they are, %q", got, a+b)
		}
		if got := out.Get("D"); got != a {
			t.Errorf("with each $ doubled, %q became %q", a, got)
		}
		if got := out.Get("RAW"); got != a {
			t.Errorf("a raw %q became %q", a, got)
		}
		if got := out.Get("E"); got != l.ExpandString(a, "/tmp") || !strings.Contains(a, "$") && got != a {
			t.Errorf("%q became %q", a, got)
		}
		if out := SortAndExpand(l); len(out) != len(l) {
			t.Errorf("%d entries became %d", len(l), len(out))
		}
		if got := References(a, func(_, text string) string { return text }); got != a {
			t.Errorf("References changed %q to %q", a, got)
		}
	})
}

// The table of feature flags that users read is that of the program.
func TestFlagsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Flags() {
		def := "off"
		if f.Default {
			def = "on"
		}
		if row := fmt.Sprintf("| `%s` | %s | %s |", f.Name, def, f.Status); !strings.Contains(string(doc), row) {
			t.Errorf("docs/compatibility.md has no row that begins with %s", row)
		}
	}
}

func TestWithoutEffect(t *testing.T) {
	vars := list("FF_USE_JOB_ROUTER", "true", "FF_USE_ADAPTIVE_REQUEST_CONCURRENCY", "true", "FF_CONCRETE", "true", "FF_SUSPENDABLE_ENVIRONMENTS", "nonsense")
	flags, _ := ResolveFlags(map[string]bool{"FF_EXPORT_HIGH_CARDINALITY_METRICS": true}, vars)
	missing, configOnly := WithoutEffect(flags, vars)
	if d := cmp.Diff([]string{"FF_CONCRETE", "FF_EXPORT_HIGH_CARDINALITY_METRICS"}, missing); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"FF_USE_JOB_ROUTER"}, configOnly); d != "" {
		t.Error(d)
	}
}
