package plan

import (
	"fmt"

	"github.com/tranter-ci/tranter"
)

// The IDs of phases: all in one, or one after the other in the containers of the job.
const (
	phaseJob     = "job"
	phaseSources = "sources"
	phaseScript  = "script"
	phaseFinish  = "finish"
)

// stages are the job's steps, by what they are for.
type stages struct {
	before  []tranter.Step // what the scripts need
	scripts []tranter.Step
	after   []tranter.Step // what is kept of the job, and what is not
}

// split returns the phases of the job (runner contract, section 9.6). With a helper container, its image has what it
// takes to get sources and to move archives; the job's image need not.
func split(b *builder, s stages) []tranter.Phase {
	if !b.settings.Container || !b.settings.Helper {
		p := b.phase(phaseJob, append(append(s.before, s.scripts...), s.after...))
		if b.settings.Container {
			p.Container = &tranter.Container{Place: tranter.PlaceBuild}
		}
		return []tranter.Phase{p}
	}
	in := func(place tranter.Place, id string, steps []tranter.Step) tranter.Phase {
		p := b.phase(id, steps)
		p.Container = &tranter.Container{Place: place, Shared: true}
		return p
	}
	return []tranter.Phase{
		in(tranter.PlaceHelper, phaseSources, s.before),
		in(tranter.PlaceBuild, phaseScript, s.scripts),
		in(tranter.PlaceHelper, phaseFinish, s.after),
	}
}

// phase returns a phase with all that is the same in each.
func (b *builder) phase(id string, steps []tranter.Step) tranter.Phase {
	return tranter.Phase{
		ID:            id,
		JobID:         b.job.ID,
		JobName:       b.job.Info.Name,
		Dirs:          b.dirs,
		Variables:     b.vars,
		Shell:         b.settings.Shell,
		Login:         b.settings.Login,
		Log:           b.format(),
		Timeout:       b.job.Timeout(),
		ScriptTimeout: b.duration("RUNNER_SCRIPT_TIMEOUT", 0),
		FlatBackoff:   !b.flags["FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY"],
		Steps:         steps,
		Server: tranter.Server{
			URL: b.settings.ServerURL, TLSCA: b.job.Local[tranter.LocalTLSCA],
			TLSCert: serverFile(b, tranter.LocalTLSCert, "CI_SERVER_TLS_CERT_FILE"), TLSKey: serverFile(b, tranter.LocalTLSKey, "CI_SERVER_TLS_KEY_FILE"),
		},
		JobToken:   b.job.Token,
		RunnerName: b.settings.Name,
		Version:    fmt.Sprintf("tranter %s %s", b.settings.Program.Version, b.settings.Program.Arch),
	}
}
