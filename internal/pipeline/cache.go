package pipeline

import (
	"crypto/sha1" //nolint:gosec // the digest that GitLab has in the keys of caches
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
)

// cacheText is one cache as the file has it.
type cacheText struct {
	cache     tranter.Cache
	files     []string
	commits   bool // files stand for the commits that touched them last, not for their content
	byFiles   bool
	prefix    string
	unprotect bool
}

const (
	maxCaches       = 4
	maxKeyFiles     = 10 // two before GitLab 19
	maxFallbackKeys = 5
)

func readCaches(f field) []cacheText {
	if !f.v.is(list) && !f.v.is(hash) {
		f.errorf("config should be a hash or an array of hashes")
		return nil
	}
	if len(f.v.items) > maxCaches { // those that stand here: the ones of a !reference in the array count as one
		f.errorf("config: no more than %d caches can be created", maxCaches)
	}
	var out []cacheText
	for _, item := range flatten(f.v, maxNesting) {
		s := field{report: f.report, v: item, job: f.job, path: f.path}
		if s.isHash("key", "untracked", "paths", "policy", "unprotect", "when", "fallback_keys") {
			out = append(out, readCache(s))
		}
	}
	return out
}

func readCache(f field) cacheText {
	t := cacheText{cache: tranter.Cache{Key: "default", Policy: "pull-push", When: "on_success"}}
	t.cache.Paths = f.texts("paths", false)
	t.cache.Untracked, _ = f.flag("untracked")
	t.unprotect, _ = f.flag("unprotect")
	if when := f.choice("when", "on_success", "on_failure", "always"); when != "" {
		t.cache.When = when
	}
	if s, ok := f.sub("policy"); ok {
		if s.v.is(text) && strings.Contains(s.v.text, "$") {
			t.cache.Policy = s.v.text
		} else if policy := f.choice("policy", "pull-push", "push", "pull"); policy != "" {
			t.cache.Policy = policy
		}
	}
	t.cache.FallbackKeys = f.texts("fallback_keys", false)
	if len(t.cache.FallbackKeys) > maxFallbackKeys {
		f.errorf("fallback keys has too many entries (maximum %d)", maxFallbackKeys)
	}
	for _, key := range t.cache.FallbackKeys {
		checkCacheKey(f, "fallback_keys", key)
	}
	t.readKey(f)
	return t
}

func (t *cacheText) readKey(f field) {
	s, ok := f.sub("key")
	switch {
	case !ok:
	case s.v.is(text):
		checkCacheKey(f, "key", s.v.text)
		t.cache.Key = s.v.text
		if s.v.text == "" {
			t.cache.Key = "default"
		}
	case s.v.is(hash):
		s.known([]string{"files", "files_commits", "prefix"})
		t.byFiles = true
		t.prefix = s.text("prefix")
		if s.v.given("files") == s.v.given("files_commits") {
			s.errorf("config must use exactly one of these keys: files, files_commits")
			return
		}
		t.commits = s.v.given("files_commits")
		t.files = append(s.texts("files", false), s.texts("files_commits", false)...)
		if n := len(t.files); n == 0 || n > maxKeyFiles {
			s.errorf("files config requires at least 1 item and at most %d", maxKeyFiles)
		}
	default:
		s.errorf("should be a hash, a string or a symbol%s", ifText(s.v.scalar(), " (put it in quotes)"))
	}
}

func checkCacheKey(f field, what, key string) {
	plain, err := url.PathUnescape(key)
	if err != nil {
		plain = key
	}
	switch {
	case strings.Contains(plain, "/"):
		f.report.errorf(f.v.keyAt(what), f.job, "%s:%s cannot contain the \"/\" character", f.path, what)
	case plain == "." || plain == "..":
		f.report.errorf(f.v.keyAt(what), f.job, "%s:%s cannot be \".\" or \"..\"", f.path, what)
	}
}

// payload resolves the key as the server does (gitlab-server 2.2).
func (t cacheText) payload(w *world, s *scope, index int) tranter.Cache {
	out := t.cache
	if t.byFiles {
		out.Key = t.fileKey(w, s, index)
	}
	suffix := ""
	if w.in.SeparateCaches {
		suffix = "-non_protected"
		if w.in.Protected && !t.unprotect {
			suffix = "-protected"
		}
	}
	out.Key += suffix
	out.FallbackKeys = nil
	for _, key := range t.cache.FallbackKeys {
		out.FallbackKeys = append(out.FallbackKeys, key+suffix)
	}
	return out
}

func (t cacheText) fileKey(w *world, s *scope, index int) string {
	prefix := t.prefix
	if prefix == "" {
		prefix = strconv.Itoa(index)
		if !t.commits {
			names := make([]string, 0, len(t.files))
			for _, f := range t.files {
				name, _, _ := strings.Cut(f, ".")
				names = append(names, name)
			}
			prefix += "_" + strings.Join(names, "_")
		}
	}
	return prefix + "-" + t.digest(w, s)
}

func (t cacheText) digest(w *world, s *scope) string {
	idOf := w.in.Blob
	if t.commits {
		idOf = w.in.LastCommit
	}
	var ids []string
	for _, f := range t.files {
		for _, path := range w.filesOf(s.expand(f)) {
			if idOf == nil {
				break
			}
			if id, ok := idOf(path); ok {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		return "default"
	}
	slices.Sort(ids)
	sum := sha1.Sum([]byte(strings.Join(slices.Compact(ids), "-"))) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// filesOf returns the files of the project that a path or glob stands for.
func (w *world) filesOf(path string) []string {
	path = strings.TrimPrefix(path, "/")
	if !isGlob(path) {
		return []string{path}
	}
	pattern := newFnmatch(path)
	var out []string
	for _, f := range w.projectFiles() {
		if pattern.match(f) {
			out = append(out, f)
		}
	}
	return out
}
