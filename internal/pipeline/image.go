package pipeline

import (
	"slices"

	"github.com/tranter-ci/tranter"
)

// readImage reads image: in its short and long form (gitlab-server 2.2). Variables in it are left to the runner.
func readImage(f field) tranter.Image {
	if f.v.is(text) {
		if f.v.text == "" {
			f.errorf("config can't be blank")
		}
		return tranter.Image{Name: f.v.text}
	}
	if !f.v.is(hash) {
		f.errorf("config should be a hash or a string%s", quotesHint(f.v))
		return tranter.Image{}
	}
	f.known([]string{"name", "entrypoint", "ports", "pull_policy", "docker", "kubernetes"})
	return readImageHash(f)
}

func readImageHash(f field) tranter.Image {
	i := tranter.Image{Name: f.text("name"), Entrypoint: f.texts("entrypoint", false)}
	if i.Name == "" {
		f.errorf("name can't be blank")
	}
	i.PullPolicy = f.texts("pull_policy", true)
	policies := []string{"always", "never", "if-not-present"}
	for _, p := range i.PullPolicy {
		if !slices.Contains(policies, p) {
			f.errorf("pull policy contains unknown values: %s%s", p, nearest(p, policies))
		}
	}
	if s, ok := f.sub("ports"); ok {
		i.Ports = s.v.json()
	}
	options := newHash(f.v.at)
	if s, ok := f.sub("docker"); ok && s.isHash("platform", "user") {
		s.text("platform")
		s.text("user")
		options.set("docker", s.v.at, s.v)
	}
	if s, ok := f.sub("kubernetes"); ok && s.isHash("user") {
		options.set("kubernetes", s.v.at, s.v)
	}
	if len(options.pairs) > 0 {
		i.ExecutorOpts = options.json()
	}
	return i
}

func readServices(f field) []tranter.Image {
	if !f.v.is(list) {
		f.errorf("config should be an array%s", listHint(f.v))
		return nil
	}
	items := flatten(f.v, maxNesting) // !reference in an array gives an array in it
	out := make([]tranter.Image, 0, len(items))
	for _, item := range items {
		s := field{report: f.report, v: item, job: f.job, path: f.path + ":service"}
		switch {
		case item.is(text):
			if item.text == "" {
				s.errorf("config can't be blank")
			}
			out = append(out, tranter.Image{Name: item.text})
		case item.is(hash):
			s.known([]string{"name", "entrypoint", "command", "alias", "variables", "ports", "pull_policy", "docker", "kubernetes"})
			i := readImageHash(s)
			i.Alias = s.text("alias")
			i.Command = s.texts("command", false)
			if v, ok := s.sub("variables"); ok {
				i.Variables = payloads(readVariables(v, "value", "expand"))
			}
			out = append(out, i)
		default:
			s.errorf("config should be a hash or a string")
		}
	}
	return out
}
