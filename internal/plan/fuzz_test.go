package plan

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// Whatever a payload says, the job stays in its directories, its caches below theirs, and a secret out of what is shown.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"git_info":{"repo_url":"https://h/a/b.git","sha":"abc"},"steps":[{"name":"script","script":["true"]}]}`,
		`{"variables":[{"key":"GIT_CLONE_PATH","value":"/srv/builds/../etc"},{"key":"S","value":"secret-value","masked":true}],"cache":[{"key":"../$S","paths":["x"],"policy":"$S"}]}`,
		`{"git_info":{"repo_url":"https://h/../../etc"},"variables":[{"key":"GIT_STRATEGY","value":"empty"}],"cache":[{"paths":["x"],"fallback_keys":["%2e%2e/x"]}]}`,
		`{"inputs":[{"key":"x","value":{"type":"string","content":"y"}}],"steps":[{"name":"script","script":["${{ job.inputs.x }}","${{ $ }}"]}]}`,
		`{"inputs":[{"value":null}],"artifacts":[{"paths":["a"],"when":"?"}],"dependencies":[{"artifacts_file":null}]}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		j := &tranter.Job{}
		if json.Unmarshal([]byte(payload), j) != nil {
			return
		}
		s := settings()
		s.Dirs.Custom = true
		Format(j, s)
		p, err := Build(j, s, variables.Slots{})
		if err != nil {
			return
		}
		if !strings.HasPrefix(p.Dirs.Project, "/srv/builds/") || filepath.Clean(p.Dirs.Project) != p.Dirs.Project || p.Dirs.Temp != p.Dirs.Project+".tmp" {
			t.Errorf("the job would work in %q", p.Dirs.Project)
		}
		if !strings.HasPrefix(p.Dirs.Cache, "/srv/cache/") || filepath.Clean(p.Dirs.Cache) != p.Dirs.Cache {
			t.Errorf("its caches would be in %q", p.Dirs.Cache)
		}
		for _, step := range p.Phases[0].Steps {
			if step.Restore == nil {
				continue
			}
			for _, c := range step.Restore.Caches {
				for _, object := range c.Objects {
					if !filepath.IsLocal(object) {
						t.Errorf("a cache would be at %q", object)
					}
				}
			}
		}
	})
}
