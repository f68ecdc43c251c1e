package plan

import (
	"cmp"

	"github.com/tranter-ci/tranter"
)

// In returns the settings as they are in an environment that says about itself what s says.
func (s Settings) In(around tranter.Surroundings) Settings {
	s.Dirs.Builds = cmp.Or(around.Builds, s.Dirs.Builds)
	s.Dirs.Cache = cmp.Or(around.Cache, s.Dirs.Cache)
	s.Shell = cmp.Or(around.Shell, s.Shell)
	if around.SharedBuilds != nil {
		s.Dirs.SharedBuilds = *around.SharedBuilds
	}
	return s
}
