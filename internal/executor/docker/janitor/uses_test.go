package janitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func openUses(t *testing.T, path string) *Uses {
	t.Helper()
	u, err := OpenUses(path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func save(t *testing.T, u *Uses) {
	t.Helper()
	if err := u.Save(); err != nil {
		t.Fatal(err)
	}
}

// listed renders a log in one line, times as seconds.
func listed(u *Uses) string {
	var out []string
	for _, e := range u.List() {
		out = append(out, fmt.Sprintf("%s %s %d", e.Kind, e.Name, e.Last.Unix()))
	}
	return strings.Join(out, ", ")
}

func TestUsesAreThereAgainAfterARestart(t *testing.T) {
	t.Parallel()
	path := UsesPath(t.TempDir(), "AAAA:BBBB:../x")
	u := openUses(t, path)
	u.Used(Image, "busybox", time.Unix(300, 0))
	u.Used(Volume, "runner-x-cache-y", time.Unix(100, 0))
	u.Used(Image, "docker.io/library/busybox:latest", time.Unix(200, 0)) // the same, earlier
	u.Used(Image, "two\nlines", time.Unix(400, 0))
	u.Used(Image, "", time.Unix(400, 0))
	save(t, u)
	want := "image busybox:latest 300, volume runner-x-cache-y 100"
	if got := listed(openUses(t, path)); got != want {
		t.Errorf("%s", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || filepath.Base(path) != "AAAA-BBBB----x.json" {
		t.Errorf("%v, %v", info, err)
	}
}

func TestTwoManagersShareALog(t *testing.T) {
	t.Parallel()
	path := UsesPath(t.TempDir(), "id")
	one, two := openUses(t, path), openUses(t, path)
	one.Used(Image, "a", time.Unix(100, 0))
	one.Used(Image, "gone", time.Unix(100, 0))
	one.Used(Image, "used-again", time.Unix(100, 0))
	save(t, one)
	two.Used(Image, "a", time.Unix(50, 0))
	two.Used(Volume, "b", time.Unix(300, 0))
	save(t, two)
	one.Forget(Image, "gone", "used-again")
	again := time.Now()
	two.Used(Image, "used-again", again) // it was pulled once more
	two.Used(Image, "gone", time.Unix(200, 0))
	save(t, two)
	save(t, one)
	want := fmt.Sprintf("image used-again:latest %d, volume b 300, image a:latest 100", again.Unix())
	if got := listed(openUses(t, path)); got != want || listed(one) != want {
		t.Errorf("file: %s\nfirst: %s", got, listed(one))
	}
}

func TestADamagedLogCostsOnlyWhatIsDamaged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.json")
	text := `{"kind":"image","name":"a","last":"2026-01-02T03:04:05Z"}
{"kind":"image","name":"b","last":"2026-01-
[]
{"kind":"container","name":"c","last":"2026-01-02T03:04:05Z"}
{"kind":"image","name":"` + strings.Repeat("x", 1000) + `","last":"2026-01-02T03:04:05Z"}
{"kind":"volume","name":"d","last":"2026-01-02T03:04:04Z"}
{"kind":"volume","name":"future","last":"9999-01-02T03:04:04Z"}
` + "\x00\xff\n" + `{"kind":"volume","name":"half`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	u := openUses(t, path)
	if last, ok := u.Last(Volume, "future"); !ok || last.Before(before) || last.After(time.Now()) {
		t.Errorf("a time to come: %v, %v", last, ok)
	}
	if got := listed(u); !strings.HasSuffix(got, ", image a:latest 1767323045, volume d 1767323044") {
		t.Errorf("%s", got)
	}
	u.Used(Image, "new", time.Unix(1, 0))
	save(t, u)
	if got := listed(openUses(t, path)); strings.Count(got, ",") != 3 {
		t.Errorf("%s", got)
	}
}

func TestALogIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.json")
	u := openUses(t, path)
	for i := range mostUses + 500 {
		u.Used(Image, fmt.Sprintf("image-%d", i), time.Unix(int64(i)+1, 0))
	}
	save(t, u)
	read := openUses(t, path).List()
	if len(read) != mostUses || read[0].Last.Unix() != mostUses+500 || len(u.List()) != mostUses {
		t.Errorf("%d entries, first %+v", len(read), read[0])
	}
}

func TestALogThatCanNotBeWrittenIsWrittenLater(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "docker", "log.json")
	if err := os.WriteFile(filepath.Join(dir, "docker"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	u := &Uses{path: path, last: map[useKey]time.Time{}, gone: map[useKey]time.Time{}, held: map[useKey]int{}, claimed: map[useKey]chan struct{}{}}
	u.Used(Image, "a", time.Unix(100, 0))
	if err := u.Save(); err == nil {
		t.Fatal("a file is in the way of the directory, and nothing was said")
	}
	if err := os.Remove(filepath.Join(dir, "docker")); err != nil {
		t.Fatal(err)
	}
	save(t, u)
	if got := listed(openUses(t, path)); got != "image a:latest 100" {
		t.Errorf("%s", got)
	}
}

func TestFlushWritesAtMostEveryFewSeconds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.json")
	u := openUses(t, path)
	u.Used(Image, "a", time.Unix(100, 0))
	save(t, u)
	u.Used(Image, "b", time.Unix(200, 0))
	now := time.Now()
	if err := u.Flush(now); err != nil || strings.Contains(listed(openUses(t, path)), "b:latest") {
		t.Errorf("written at once, or %v", err)
	}
	if err := u.Flush(now.Add(between)); err != nil || !strings.Contains(listed(openUses(t, path)), "b:latest") {
		t.Errorf("not written after a while, or %v", err)
	}
}

func TestWithoutAPathNothingIsWritten(t *testing.T) {
	t.Parallel()
	u := openUses(t, "")
	u.Used(Image, "a", time.Unix(100, 0))
	save(t, u)
	if listed(u) != "image a:latest 100" {
		t.Error(listed(u))
	}
}

func TestSavingFromManySides(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.json")
	var all sync.WaitGroup
	for m := range 4 {
		u := openUses(t, path)
		for i := range 5 {
			all.Go(func() {
				u.Used(Volume, fmt.Sprintf("v-%d-%d", m, i), time.Unix(100, 0))
				if err := u.Save(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if got := len(openUses(t, path).List()); got != 20 {
		t.Errorf("%d entries", got)
	}
	rest, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(rest) != 0 {
		t.Errorf("left: %v, %v", rest, err)
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	u := openUses(t, "")
	one, two := u.Hold(Image, "busybox"), u.Hold(Image, "busybox:latest")
	one()
	one()
	if !u.Held(Image, "sha256:x", "docker.io/library/busybox") {
		t.Error("one release too many has counted")
	}
	if _, ok := u.claim(Image, []string{"sha256:x", "busybox:latest"}); ok {
		t.Error("what is held can be removed")
	}
	two()
	if u.Held(Image, "busybox") || len(u.held) != 0 {
		t.Error("still held")
	}
	if last, ok := u.Last(Image, "busybox"); !ok || time.Since(last) > time.Minute {
		t.Errorf("a hold is a use: %v", last)
	}
}

func TestAHoldWaitsForTheEndOfARemoval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := openUses(t, "")
		done, ok := u.claim(Image, []string{"id", "name:1"})
		if !ok {
			t.Fatal("nobody holds it")
		}
		held := make(chan func())
		go func() { held <- u.Hold(Image, "name:1") }()
		u.Hold(Image, "other")()
		synctest.Wait()
		select {
		case <-held:
			t.Error("held while it is removed")
		default:
		}
		if _, ok := u.claim(Image, []string{"id"}); ok {
			t.Error("removed twice")
		}
		done()
		(<-held)()
	})
}

func FuzzDecodeUses(f *testing.F) {
	f.Add([]byte(`{"kind":"image","name":"a","last":"2026-01-02T03:04:05Z"}` + "\n"))
	f.Add([]byte("{\"kind\":\"volume\",\"name\":\"\\u0000\"}\n\n[]"))
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, e := range decodeUses(data, now) {
			if e.Last.After(now) || !validName(e.Name) || e.Kind != Image && e.Kind != Volume {
				t.Errorf("%+v", e)
			}
		}
	})
}
