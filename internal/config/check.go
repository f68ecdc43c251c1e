package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// Rules of labels (contract 11.1). Lengths are no part of the patterns: every start of the program would pay for their
// many states.
var (
	labelKey   = lazy.Regexp(`^[a-zA-Z0-9_][a-zA-Z0-9._-]+$`)
	labelValue = lazy.Regexp(`^[a-zA-Z0-9._-]+$`)
)

const (
	maxLabels     = 32
	minLabelKey   = 3
	maxLabelKey   = 65
	maxLabelValue = 256
)

// checker finds what is wrong with settings whose values are right one by one.
type checker struct {
	*decoder
	damaged bool // the section that is being checked has lines that could not be read
	// foreignImages says that the risk of others' images was told of.
	foreignImages bool
}

// checkConfig checks the global keys.
func (d *checker) checkConfig(c *Config, root *node) {
	if n := root.find("concurrent"); n != nil && n.kind == kindInteger && c.Concurrent < 1 {
		d.reportValue(Error, n, d.schema.field("concurrent"), "must be at least 1", "With 0, no job would ever run.")
	}
	d.checkLabels(c.Labels, root, "labels")
	d.checkCacheServer(&c.CacheServer, root)
	if n := root.find("session_server", "advertise_address"); n != nil && strings.Contains(c.SessionServer.AdvertiseAddress, "://") {
		d.report(Error, n, "session_server.advertise_address", "an address with a scheme", "Write host:port, without https://.")
	}
}

func (d *checker) checkLabels(labels map[string]string, n *node, path string) {
	for key, value := range labels {
		at := n.nearest("labels", key)
		switch {
		case len(key) < minLabelKey || len(key) > maxLabelKey || !labelKey().MatchString(key):
			d.report(Error, at, path, fmt.Sprintf("the label name %q is not allowed", key), "Write 3 to 65 letters, digits, dots, hyphens and underscores; the first one a letter, digit or underscore.")
		case len(value) > maxLabelValue || !labelValue().MatchString(value):
			d.report(Error, at, path, fmt.Sprintf("the value of label %s is not allowed", key), "Write 1 to 256 letters, digits, dots, hyphens and underscores.")
		}
	}
}

// checkRunner checks what the keys of one section mean together.
func (d *checker) checkRunner(c *Config, r *Runner, n *node) {
	d.checkServer(r, n)
	d.checkSettings(c, r, n)
}

// checkSettings is checkRunner without server and token.
func (d *checker) checkSettings(c *Config, r *Runner, n *node) {
	d.checkLabels(r.Labels, n, "runners.labels")
	all := map[string]bool{}
	for _, labels := range []map[string]string{c.Labels, r.Labels} {
		for key := range labels {
			all[key] = true
		}
	}
	if len(all) > maxLabels {
		d.report(Error, n.nearest("labels"), "runners.labels", fmt.Sprintf("%d labels together with the global ones, at most %d are allowed", len(all), maxLabels), "Remove some.")
	}
	for i, entry := range r.Environment {
		if name, _, ok := strings.Cut(entry, "="); !ok || name == "" {
			place := n.nearest("environment")
			if place.kind == kindArray && i < len(place.list) {
				place = place.list[i]
			}
			d.report(Error, place, "runners.environment", "an entry is not of the form KEY=VALUE", "Write \"KEY=VALUE\".")
		}
	}
	d.checkExecutor(r, n)
	if r.Executor == "docker+machine" {
		m := machineChecker{d, r, &r.Machine, n.nearest("machine")}
		m.check(c.Concurrent, n)
	}
	if at := n.find("batch"); at != nil && at.kind == kindTable {
		b := batchChecker{d, r, &r.Batch, at}
		b.check(n)
	}
	d.checkCache(r, n)
}

// given tells whether a key is in the section and has a value, even one that was found wrong.
func given(n *node, path ...string) bool {
	child := n.find(path...)
	return child != nil && child.scalar != ""
}

// missing reports a required key, unless the section has lines that could not be read: it may stand there.
func (d *checker) missing(n *node, key, hint string) {
	if d.damaged {
		return
	}
	d.report(Error, n, "runners."+key, "is missing", hint)
}

func (d *checker) checkServer(r *Runner, n *node) {
	if !given(n, "url") {
		d.missing(n, "url", "Write url = \"https://gitlab.example.com\".")
	} else if r.URL != "" && !strings.Contains(r.URL, "$") && !isServer(r.URL) {
		d.report(Error, n.nearest("url"), "runners.url", "is not the address of a server", "Write it with http:// or https://.")
	}
	if !given(n, "token") && !given(n, "token_file") {
		d.missing(n, "token", "Create a runner in GitLab and put its token here, as $VAR, or into a token_file.")
	}
	switch {
	case r.TLSCertFile != "" && r.TLSKeyFile == "":
		d.report(Error, n.nearest("tls-cert-file"), "runners.tls-cert-file", "is given without tls-key-file", "A client certificate needs both.")
	case r.TLSKeyFile != "" && r.TLSCertFile == "":
		d.report(Error, n.nearest("tls-key-file"), "runners.tls-key-file", "is given without tls-cert-file", "A client certificate needs both.")
	}
}

// isServer tells whether a text is the address of a web server.
func isServer(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// checkTogether checks runners against each other, and what names them.
func (d *checker) checkTogether(c *Config, root *node) {
	checkView(d, c, root) // it names runners
	nodes := sectionNodes(root)
	first := map[string]int{}
	for i, r := range c.Runners {
		if r.Token == "" || i >= len(nodes) {
			continue
		}
		key := r.URL + "\n" + r.Token.Reveal()
		if before, ok := first[key]; ok {
			d.report(Warning, nodes[i].nearest("token"), "runners.token", fmt.Sprintf("this runner has the same token as the one in line %d", c.Runners[before].Line), "Both ask for the same jobs; create a runner of its own in GitLab.")
			continue
		}
		first[key] = i
	}
}

func (d *checker) checkCache(r *Runner, n *node) {
	at := n.nearest("cache", "Type")
	section := strings.ToLower(r.Cache.Type)
	switch r.Cache.Type {
	case "directory":
		switch path := r.Cache.Directory.Path; {
		case path == "":
			d.report(Error, at, "runners.cache.Type", "a cache of type directory needs a path", "Add [runners.cache.directory] with Path = \"/srv/cache\".")
		case !strings.HasPrefix(path, "/") && !strings.Contains(path, ":\\"):
			d.report(Error, n.nearest("cache", "directory", "Path"), "runners.cache.directory.Path", "is not an absolute path", "Jobs work in different directories; write the whole path.")
		}
	case "s3":
		d.checkS3(&r.Cache.S3, n.nearest("cache", "s3"))
	case "gcs":
		d.checkGCS(&r.Cache.GCS, n.nearest("cache", "gcs"))
	case "azure":
		d.checkAzure(&r.Cache.Azure, n.nearest("cache", "azure"))
	}
	name := map[string]string{"s3": r.Cache.S3.BucketName, "gcs": r.Cache.GCS.BucketName, "azure": r.Cache.Azure.ContainerName}
	if bucket, ok := name[section]; ok && bucket == "" {
		d.report(Warning, at, "runners.cache."+section, "no bucket or container is named", "Without it, nothing is cached.")
	}
}

// reportUnbuilt notes each key whose feature does not exist yet, once.
func (d *checker) reportUnbuilt(c *Config) {
	var done []*field
	for _, u := range d.unbuilt {
		if u.runner >= 0 && u.runner < len(c.Runners) {
			executor := c.Runners[u.runner].Executor
			if !usesSection(executor, u.field.name) {
				if d.knownExecutor(executor) {
					d.report(Warning, u.node, u.field.path, "has no effect with executor "+executor, "Remove the section, or choose another executor.")
				}
				continue
			}
		}
		if slices.Contains(done, u.field) {
			continue
		}
		done = append(done, u.field)
		d.reportAt(Note, u.node.at, Problem{Key: u.field.path, Text: d.unbuiltText(u.field), NotBuilt: true})
	}
}

// usesSection tells whether a section is one that the executor looks at; all sections that are no executor's are.
func usesSection(executor, section string) bool {
	return !slices.Contains(allExecutorSections(), section) || slices.Contains(executorSections(executor), section)
}

// unbuiltText counts how often a key without effect is given.
func (d *checker) unbuiltText(f *field) string {
	sections, keys := 0, 0
	for _, u := range d.unbuilt {
		if u.field == f {
			sections++
			keys += u.node.leaves()
		}
	}
	text := "known, but not built yet: it has no effect"
	if f.sub != nil {
		text = fmt.Sprintf("known, but not built yet: %s no effect", counted(keys, "key here has", "keys here have"))
	}
	if sections > 1 {
		text += fmt.Sprintf(" (in %d runners)", sections)
	}
	return text
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
