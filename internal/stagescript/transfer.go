package stagescript

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/script"
)

const (
	defaultUploadTimeout = time.Hour
	defaultHeaderTimeout = 10 * time.Minute
	defaultCacheMinutes  = 10
)

// mover writes the stages that move files.
type mover struct{ *writer }

// transfers begins a script that moves files in or out of the working tree.
func (w mover) transfers() {
	w.functions()
	w.runner()
	w.line("cd %s", script.Quote(w.phase.Dirs.Project))
}

// archivePath returns the file of a cache on the machine of the job (runner contract, section 7.1).
func (w mover) archivePath(object string) string {
	return path.Join(w.phase.Dirs.Cache, object, "cache.zip")
}

// cacheMinutes returns the limit of a cache's transfer in minutes, as the job sets it.
func (w mover) cacheMinutes() string {
	n := defaultCacheMinutes
	for _, v := range w.variables() {
		if v.Key == "CACHE_REQUEST_TIMEOUT" {
			if set, err := strconv.Atoi(strings.TrimSpace(v.Value)); err == nil && set > 0 {
				n = set
			}
		}
	}
	return strconv.Itoa(n)
}

// announce prints what there is to say about c before anything is done, and says whether anything is to be done.
func (w mover) announce(c tranter.CacheEntry) bool {
	if len(c.Paths) == 0 && !c.Untracked {
		return false
	}
	for _, text := range c.Warnings {
		w.warn("%s", text)
	}
	if c.Skip != "" {
		w.info("%s", c.Skip)
		return false
	}
	if c.Store.Type == "directory" && len(c.Objects) > 0 {
		w.warn("the shared directory of the cache is on the runner's machine, which the job can't reach: the cache stays where the job runs")
	}
	return len(c.Objects) > 0
}

// restore unpacks caches, of each the first candidate that can be had (runner contract, section 7.4).
func (w mover) restore(s *tranter.RestoreStep) {
	w.transfers()
	for _, c := range s.Caches {
		if !w.announce(c) {
			continue
		}
		w.line("if [ -z \"$_runner\" ]; then _warn 'Missing gitlab-runner. Extracting cache is disabled.'")
		for i, object := range c.Objects {
			w.line("else")
			w.info("Checking cache for %s...", candidate(c, i))
			args := []string{"--file", w.archivePath(object), "--timeout", w.cacheMinutes()}
			if i < len(c.Remote) && c.Remote[i].Download != nil {
				args = append(args, "--url", c.Remote[i].Download.URL.Reveal())
			}
			w.line("if \"$_runner\" cache-extractor %s; then", words(args))
			w.info("Successfully extracted cache")
			if i == len(c.Objects)-1 {
				w.line("else")
				w.warn("Failed to extract cache")
				w.WriteString(strings.Repeat("fi\n", len(c.Objects)+1))
				continue
			}
		}
	}
}

// candidate is the name of one of a cache's objects for the user.
func candidate(c tranter.CacheEntry, i int) string {
	switch {
	case i < len(c.Names):
		return c.Names[i]
	case i == 0:
		return c.Key
	}
	return c.Objects[i]
}

// archive packs and saves caches (runner contract, section 7.6).
func (w mover) archive(s *tranter.ArchiveStep) {
	w.transfers()
	for _, c := range s.Caches {
		if !w.announce(c) {
			continue
		}
		args := []string{"--file", w.archivePath(c.Objects[0])}
		if other := w.alternate(c); other != "" {
			args = append(args, "--alternate-file", other)
		}
		args = append(args, "--timeout", w.cacheMinutes())
		if c.Store.MaxUpload > 0 {
			args = append(args, "--max-uploaded-archive-size", strconv.FormatInt(c.Store.MaxUpload, 10))
		}
		for _, p := range c.Paths {
			args = append(args, "--path", p)
		}
		if c.Untracked {
			args = append(args, "--untracked")
		}
		args = append(args, uploadTo(c)...)
		w.line("if [ -z \"$_runner\" ]; then _warn 'Missing gitlab-runner. Creating cache is disabled.'; else")
		w.info("Creating cache %s...", c.Key)
		w.line("if CACHE_METADATA=%s \"$_runner\" cache-archiver %s; then", script.Quote(cacheMetadata(c)), words(args))
		w.info("Created cache")
		w.line("else")
		w.warn("Failed to create cache")
		w.line("fi; fi")
	}
}

// alternate is the file of the same cache by the other way to name it: hashed or not.
func (w mover) alternate(c tranter.CacheEntry) string {
	sum := sha256.Sum256([]byte(c.Key))
	if hashed := hex.EncodeToString(sum[:]); hashed != c.Objects[0] {
		return w.archivePath(hashed)
	}
	return ""
}

// uploadTo says where an archive goes besides the file: by the one request that GitLab Runner's program can make.
func uploadTo(c tranter.CacheEntry) []string {
	if len(c.Remote) == 0 || c.Remote[0].Upload == nil || c.Remote[0].Upload.Whole == nil {
		return nil
	}
	whole := c.Remote[0].Upload.Whole
	args := []string{"--url", whole.URL.Reveal()}
	for _, k := range slices.Sorted(maps.Keys(whole.Header)) {
		args = append(args, "--header", k+": "+whole.Header[k])
	}
	return args
}

// cacheMetadata is what is kept with an archive: the key as the user knows it.
func cacheMetadata(c tranter.CacheEntry) string {
	data, _ := json.Marshal(map[string]string{"cachekey": c.Key})
	return string(data)
}

// download fetches the artifacts of earlier jobs (runner contract, section 8.4).
func (w mover) download(s *tranter.DownloadStep) {
	w.transfers()
	for _, d := range s.Dependencies {
		if d.File == nil || d.File.Filename == "" {
			continue
		}
		w.line("if [ -z \"$_runner\" ]; then _warn 'Missing gitlab-runner. Downloading artifacts is disabled.'; else")
		w.info("Downloading artifacts for %s (%d)...", d.Name, d.ID)
		w.call("artifacts-downloader", d.Token, []string{"--url", w.phase.Server.URL, "--id", strconv.FormatInt(d.ID, 10)})
		w.line("fi")
	}
}

// call runs a command on artifacts. The token, which stands in the environment, is in no process list.
func (w mover) call(command string, token tranter.Secret, args []string) {
	w.line("CI_JOB_TOKEN=%s \"$_runner\" %s %s", script.Quote(token.Reveal()), command, words(args))
}

// upload sends artifacts (runner contract, section 8.1).
func (w mover) upload(s *tranter.UploadStep) {
	w.transfers()
	for _, a := range s.Artifacts {
		args := []string{
			"--url", w.phase.Server.URL, "--id", strconv.FormatInt(w.phase.JobID, 10),
			"--timeout", fmt.Sprint(cmp.Or(s.Timeout, defaultUploadTimeout)),
			"--response-header-timeout", fmt.Sprint(cmp.Or(s.HeaderTimeout, defaultHeaderTimeout)),
		}
		for _, p := range a.Paths {
			args = append(args, "--path", p)
		}
		for _, p := range a.Exclude {
			args = append(args, "--exclude", p)
		}
		if a.Untracked {
			args = append(args, "--untracked")
		}
		for _, o := range [][2]string{{"--name", a.Name}, {"--expire-in", a.ExpireIn}, {"--artifact-format", a.Format}, {"--artifact-type", a.Type}} {
			if o[1] != "" {
				args = append(args, o[0], o[1])
			}
		}
		if s.Provenance != nil && a.Format == "zip" {
			args = append(args, w.provenance(s.Provenance)...)
		}
		w.line("if [ -z \"$_runner\" ]; then _warn 'Missing gitlab-runner. Uploading artifacts is disabled.'; else")
		w.info("Uploading artifacts...")
		w.call("artifacts-uploader", w.phase.JobToken, args)
		w.line("fi")
	}
}

// provenance is what the statement about the origin of an archive tells (runner contract, section 8.3).
func (w mover) provenance(p *tranter.Provenance) []string {
	args := []string{"--generate-artifacts-metadata"}
	began := w.around.Now()
	if d := w.phase.Deadline; !d.IsZero() {
		began = d.Add(-w.phase.Timeout)
	}
	for _, o := range [][2]string{
		{"--runner-id", p.RunnerID},
		{"--repo-url", p.RepoURL},
		{"--repo-digest", p.SHA},
		{"--job-name", p.JobName},
		{"--executor-name", p.Executor},
		{"--runner-name", p.RunnerName},
		{"--started-at", began.UTC().Format(time.RFC3339)},
		{"--ended-at", w.around.Now().UTC().Format(time.RFC3339)},
		{"--schema-version", cmp.Or(p.Schema, "v1")},
	} {
		args = append(args, o[0], o[1])
	}
	for _, name := range p.Parameters {
		args = append(args, "--metadata-parameter", name)
	}
	return args
}
