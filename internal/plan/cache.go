package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
)

type cacheSteps struct {
	restore       []tranter.CacheEntry
	saveSuccess   []tranter.CacheEntry
	saveOnFailure []tranter.CacheEntry
}

func (c cacheSteps) archive() []tranter.Step {
	var steps []tranter.Step
	if len(c.saveSuccess) > 0 {
		steps = append(steps, tranter.Step{Name: "archive_cache", Title: "Saving cache for successful job", When: tranter.OnSuccess, Archive: &tranter.ArchiveStep{Caches: c.saveSuccess}})
	}
	if len(c.saveOnFailure) > 0 {
		steps = append(steps, tranter.Step{Name: "archive_cache_on_failure", Title: "Saving cache for failed job", When: tranter.OnFailure, Archive: &tranter.ArchiveStep{Caches: c.saveOnFailure}})
	}
	return steps
}

// caches returns what to restore and what to save (runner contract, sections 7.2 to 7.6).
func (b *builder) caches() (cacheSteps, error) {
	var out cacheSteps
	for _, c := range b.job.Cache {
		if len(c.Paths) == 0 && !c.Untracked {
			continue
		}
		policy := b.vars.ExpandString(c.Policy, b.dirs.Temp)
		if !slices.Contains([]string{"", "pull-push", "pull", "push"}, policy) {
			return out, &tranter.ConfigError{Err: fmt.Errorf("cache:policy: expected pull, push or pull-push, got %q", policy)}
		}
		entry := b.cacheEntry(c)
		restore, save := entry, entry
		save.Objects = entry.Objects[:min(1, len(entry.Objects))]
		save.Warnings = nil
		if policy == "push" {
			restore.Skip = fmt.Sprintf("Not downloading cache %s due to policy", entry.Key)
		}
		if policy == "pull" {
			save.Skip = fmt.Sprintf("Not uploading cache %s due to policy", entry.Key)
		}
		out.restore = append(out.restore, restore)
		good, bad := b.when("cache", c.When)
		if good {
			out.saveSuccess = append(out.saveSuccess, save)
		}
		if bad {
			out.saveOnFailure = append(out.saveOnFailure, save)
		}
	}
	return out, nil
}

func (b *builder) cacheEntry(c tranter.Cache) tranter.CacheEntry {
	raw := b.vars.ExpandString(c.Key, b.dirs.Temp)
	if raw == "" {
		raw = path.Join(b.job.Info.Name, b.job.Git.Ref)
	}
	entry := tranter.CacheEntry{Key: raw, Paths: c.Paths, Untracked: c.Untracked, Store: b.cacheStore()}
	if key := candidate(&entry, raw, b.flags["FF_HASH_CACHE_KEYS"]); key == "" {
		entry.Skip = fmt.Sprintf("Skipping cache: the key %q is not usable", raw)
		return entry
	} else if !b.flags["FF_HASH_CACHE_KEYS"] {
		entry.Key = key
	}
	for _, k := range c.FallbackKeys {
		candidate(&entry, b.vars.ExpandString(k, b.dirs.Temp), b.flags["FF_HASH_CACHE_KEYS"])
	}
	b.globalFallback(&entry)
	return entry
}

// globalFallback adds CACHE_FALLBACK_KEY, unless it would give a job on an unprotected ref the cache of protected ones
// (runner contract, section 7.5).
func (b *builder) globalFallback(entry *tranter.CacheEntry) {
	raw := b.vars.Get("CACHE_FALLBACK_KEY")
	if raw == "" {
		return
	}
	clean, _ := sanitizeKey(raw)
	if strings.HasSuffix(strings.TrimRight(clean, ". "), "-protected") {
		entry.Warnings = append(entry.Warnings, fmt.Sprintf("CACHE_FALLBACK_KEY %q is not allowed to end in -protected", raw))
		return
	}
	candidate(entry, raw, b.flags["FF_HASH_CACHE_KEYS"])
}

// candidate adds an archive to look for, and returns its name, or "" if the key is not usable.
func candidate(entry *tranter.CacheEntry, raw string, hash bool) string {
	key, warning := cacheKey(hash, raw)
	if warning != "" {
		entry.Warnings = append(entry.Warnings, warning)
	}
	if key == "" {
		return ""
	}
	entry.Objects = append(entry.Objects, key)
	if hash {
		entry.Names = append(entry.Names, raw)
	}
	return key
}

func cacheKey(hash bool, raw string) (key, warning string) {
	if hash {
		if raw == "" {
			return "", ""
		}
		sum := sha256.Sum256([]byte(raw))
		return hex.EncodeToString(sum[:]), ""
	}
	return sanitizeKey(raw)
}

// sanitizeKey makes a path of a key that stays below where it is put (runner contract, section 7.2). A key of which
// nothing is left is not usable.
func sanitizeKey(raw string) (key, warning string) {
	s := strings.NewReplacer("%2f", "/", "%2F", "/", "%2e", ".", "%2E", ".", `\`, "/").Replace(raw)
	s = strings.TrimPrefix(path.Clean("/"+s), "/")
	segments := strings.Split(s, "/")
	for len(segments) > 0 {
		last := strings.TrimRight(segments[len(segments)-1], " \t\r\n\v\f")
		if last != "" && last != "." && last != ".." {
			segments[len(segments)-1] = last
			break
		}
		segments = segments[:len(segments)-1]
	}
	key = strings.Join(segments, "/")
	if key != raw {
		if key == "" {
			return "", fmt.Sprintf("cache key %q could not be sanitized: nothing is left of it", raw)
		}
		warning = fmt.Sprintf("cache key %q sanitized to %q", raw, key)
	}
	return key, warning
}

// cacheStore says where archives are shared. Prefix is what comes before the key (runner contract, section 7.3).
func (b *builder) cacheStore() tranter.CacheStore {
	c := b.settings.Cache
	parts := []string{c.Path}
	if !c.Shared {
		parts = append(parts, "runner", b.settings.ShortToken)
	}
	parts = append(parts, "project", fmt.Sprint(b.job.Info.ProjectID))
	return tranter.CacheStore{Type: c.Type, Directory: c.Directory, Prefix: strings.TrimPrefix(path.Join(parts...), "/"), MaxUpload: c.MaxUpload}
}
