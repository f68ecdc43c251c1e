package spec

import (
	"crypto/md5" //nolint:gosec // names of volumes, as the stock runner makes them
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/variables"
)

// SharedBuilds says whether the builds directory is on the host, so that jobs which run at the same time share it and
// need a directory each (runner contract, section 9.9). Destinations with variables of a job in them are not looked at.
func SharedBuilds(d config.Docker, builds string) bool {
	return slices.ContainsFunc(d.Volumes, func(text string) bool {
		v, err := parseVolume(text)
		return err == nil && v.source != "" && inside(v.target, builds)
	})
}

// inside says whether a path is a directory or below it.
func inside(dir, p string) bool {
	dir, p = path.Clean(dir), path.Clean(p)
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// volume is one entry of volumes.
type volume struct {
	source  string // directory on the host or a volume's name; "": a cache volume
	target  string // in the container
	options string
}

// parseVolume reads CONTAINER, HOST:CONTAINER or HOST:CONTAINER:OPTIONS, and CONTAINER:OPTIONS.
func parseVolume(text string) (volume, error) {
	parts := strings.Split(text, ":")
	v := volume{target: parts[0]}
	switch {
	case len(parts) == 2 && isVolumeOptions(parts[1]):
		v.options = parts[1]
	case len(parts) == 2:
		v.source, v.target = parts[0], parts[1]
	case len(parts) > 2:
		v.source, v.target, v.options = parts[0], parts[1], strings.Join(parts[2:], ",")
	}
	if v.target == "" || len(parts) > 1 && parts[0] == "" || strings.ContainsRune(text, 0) {
		return v, fmt.Errorf("%q is not a volume: write CONTAINER_PATH or HOST_PATH:CONTAINER_PATH, with :ro and the like after it", text)
	}
	return v, nil
}

// isVolumeOptions says whether all of a list with commas between are options of volumes.
func isVolumeOptions(text string) bool {
	known := []string{
		"ro", "rw", "z", "Z", "nocopy", "shared", "rshared", "slave", "rslave", "private", "rprivate",
		"cached", "delegated", "consistent",
	}
	return !slices.ContainsFunc(strings.Split(text, ","), func(o string) bool { return !slices.Contains(known, o) })
}

var (
	oneVariable   = lazy.Regexp(`^\$(\w+|\{\w+\})$`)
	eachReference = lazy.Regexp(`\$(\w+|\{[^}]*\})`)
)

// expandVolume puts the job's variables into an entry. Whoever writes the job sets them: they may name a directory, but
// neither leave the one they are put into nor turn a cache volume into a directory of the host.
func (j *job) expandVolume(text string) (volume, error) {
	expanded := j.expand(text)
	if !oneVariable().MatchString(text) {
		if strings.Count(expanded, ":") != strings.Count(eachReference().ReplaceAllString(text, ""), ":") {
			return volume{}, fmt.Errorf("%q: a variable of the job has a colon in it", text)
		}
		if climbs(expanded) && !climbs(text) {
			return volume{}, fmt.Errorf("%q: a variable of the job has .. in it", text)
		}
	}
	return parseVolume(expanded)
}

func climbs(p string) bool {
	return slices.Contains(strings.FieldsFunc(p, func(r rune) bool { return r == '/' || r == ':' }), "..")
}

// volumes are what is mounted into all containers of a job.
type volumes struct {
	*job

	labels    labels
	prefix    string // of names that are this job's alone
	binds     []string
	mounts    []mount.Mount
	targets   []string // cleaned mount points of binds and mounts
	open      []string
	caches    []string
	temporary []string
}

// compile works out what is mounted where (runner contract, section 9.9).
func (v *volumes) compile(prefix string) error {
	v.prefix = prefix
	for _, text := range v.in.Settings.Volumes {
		if err := v.add(text); err != nil {
			return invalid("volumes", err)
		}
	}
	if builds := v.in.Dirs.Builds; !v.mounted(builds) {
		if err := v.checkTarget(builds); err != nil {
			return invalid("builds_dir", err)
		}
		v.addOwn(volume{target: builds}, v.strategy() == "fetch" && !v.in.Settings.DisableCache)
	}
	// The agent tells how much room is in the first: it is to be that of the sources.
	slices.SortStableFunc(v.open, func(a, b string) int { return len(a) - len(b) })
	if i := slices.Index(v.open, path.Clean(v.in.Dirs.Builds)); i > 0 {
		v.open = slices.Insert(slices.Delete(v.open, i, i+1), 0, path.Clean(v.in.Dirs.Builds))
	}
	return nil
}

func (v *volumes) add(text string) error {
	entry, err := v.expandVolume(text)
	if err != nil {
		return err
	}
	if !path.IsAbs(entry.target) {
		entry.target = path.Join(v.in.Dirs.Project, entry.target)
	}
	if err := v.checkTarget(entry.target); err != nil {
		return err
	}
	if entry.source == "" {
		v.addOwn(entry, !v.in.Settings.DisableCache)
		return nil
	}
	v.bind(entry.source, entry)
	return nil
}

func (v *volumes) bind(source string, entry volume) {
	bind := source + ":" + entry.target
	if entry.options != "" {
		bind += ":" + entry.options
	}
	v.binds = append(v.binds, bind)
	v.targets = append(v.targets, path.Clean(entry.target))
	v.openUp(entry.target, false)
}

// checkTarget refuses mount points that can't be.
func (v *volumes) checkTarget(target string) error {
	clean := path.Clean(target)
	switch {
	case clean == "/" || !path.IsAbs(clean):
		return fmt.Errorf("%q can't be a volume: it must be a directory below /", target)
	case inside(path.Dir(AgentRoot), clean):
		return fmt.Errorf("%q can't be a volume: the runner uses it", target)
	case slices.Contains(v.targets, clean):
		return fmt.Errorf("%q is the target of two volumes", target)
	}
	return nil
}

// mounted says whether a directory is in a volume already.
func (v *volumes) mounted(dir string) bool {
	return slices.ContainsFunc(v.targets, func(t string) bool { return inside(t, dir) })
}

// addOwn adds a volume that is ours to name. keep says that the next job of the slot gets it again.
func (v *volumes) addOwn(entry volume, keep bool) {
	sum := md5.Sum([]byte(entry.target)) //nolint:gosec // see above
	hash := hex.EncodeToString(sum[:])
	base := VolumeBase(v.in.Runner, v.in.Job.Info.ProjectID, v.in.Slots.Project)
	suffix := ""
	if v.protected() {
		suffix = "-protected"
	}
	if dir := v.in.Settings.CacheDir; keep && dir != "" {
		v.bind(path.Join(dir, base, hash+suffix), entry)
		return
	}
	name := v.prefix + "-cache-" + hash
	if keep {
		name = base + "-cache-" + hash + suffix
		v.caches = append(v.caches, name)
	} else {
		v.temporary = append(v.temporary, name)
	}
	options := strings.Split(entry.options, ",")
	v.mounts = append(v.mounts, mount.Mount{
		Type: mount.TypeVolume, Source: name, Target: entry.target, ReadOnly: slices.Contains(options, "ro"),
		VolumeOptions: &mount.VolumeOptions{
			NoCopy: slices.Contains(options, "nocopy"), Labels: v.labelsOf(entry.target, keep), DriverConfig: v.driver(),
		},
	})
	v.targets = append(v.targets, path.Clean(entry.target))
	v.openUp(entry.target, !slices.Contains(options, "ro"))
}

// Volumes returns the requests for the job's volumes. Docker makes them when a container is made that mounts them, with all
// that is in here; Podman does that without the labels, so there they must be made before.
func (s *Spec) Volumes() []client.VolumeCreateOptions {
	var out []client.VolumeCreateOptions
	for _, m := range s.vols.mounts {
		r := client.VolumeCreateOptions{Name: m.Source, Labels: m.VolumeOptions.Labels}
		if d := m.VolumeOptions.DriverConfig; d != nil {
			r.Driver, r.DriverOpts = d.Name, d.Options
		}
		out = append(out, r)
	}
	return out
}

func (v *volumes) driver() *mount.Driver {
	d := v.in.Settings
	if d.VolumeDriver == "" && len(d.VolumeDriverOps) == 0 {
		return nil
	}
	return &mount.Driver{Name: d.VolumeDriver, Options: d.VolumeDriverOps}
}

// openUp has a mount point made writable for everybody, and the directories between the builds directory and it: the engine
// makes them when it mounts, and they would be root's.
func (v *volumes) openUp(target string, itself bool) {
	builds := path.Clean(v.in.Dirs.Builds)
	target = path.Clean(target)
	var parents []string
	for p := path.Dir(target); inside(builds, p) && p != builds; p = path.Dir(p) {
		parents = append(parents, p)
	}
	slices.Reverse(parents)
	if itself {
		parents = append(parents, target)
	}
	for _, p := range parents {
		if !slices.Contains(v.open, p) {
			v.open = append(v.open, p)
		}
	}
}

// labelsOf returns those of a volume. The stock runner calls all of them caches; the sweeper leaves caches alone.
func (v *volumes) labelsOf(target string, keep bool) map[string]string {
	more := map[string]string{
		"type": stockCache, "destination": target, "reusable": strconv.FormatBool(keep), "protected": strconv.FormatBool(v.protected()),
	}
	if keep {
		return v.labels.ofCache(more)
	}
	more["type"] = stockTemporary
	out := v.labels.of(more)
	out[LabelTemporary] = "1"
	return out
}

// protected says whether the job may see what is kept for protected refs only. What the server says counts; of an older
// one, its variable, which comes before those that a user has set (runner contract, section 2.3), or the ending that it
// gives to cache keys.
func (j *job) protected() bool {
	if p := j.in.Job.Git.Protected; p != nil {
		return *p
	}
	list := variables.List(j.in.Job.Variables)
	if i := slices.IndexFunc(list, func(v tranter.Variable) bool { return v.Key == "CI_COMMIT_REF_PROTECTED" }); i >= 0 {
		if v, _ := list[:i+1].Bool("CI_COMMIT_REF_PROTECTED"); v {
			return true
		}
	}
	for _, c := range j.in.Job.Cache {
		if strings.HasSuffix(c.Key, "-protected") {
			return true
		}
	}
	return false
}

// strategy returns how the job gets its sources (runner contract, section 5.6).
func (j *job) strategy() string {
	switch v := j.vars.Get("GIT_STRATEGY"); {
	case v == "clone", v == "fetch", v == "none", v == "empty":
		return v
	case j.in.Job.AllowGitFetch:
		return "fetch"
	}
	return "clone"
}
