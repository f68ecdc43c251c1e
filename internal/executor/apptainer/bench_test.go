package apptainer

import (
	"context"
	"io"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/tranter-ci/tranter"
)

// What a phase takes that does nothing, in a container and on the host.
func BenchmarkPhase(b *testing.B) {
	all := kinds()
	host := all["bubblewrap"]
	host.Image = ""
	all["host"] = host
	for name, s := range all {
		b.Run(name, func(b *testing.B) {
			e := executor(b, s, nil)
			root := b.TempDir()
			spec := tranter.SessionSpec{
				Name: "bench", Dir: filepath.Join(root, "job"), Job: &tranter.Job{ID: 7}, Log: io.Discard,
				Dirs: tranter.Dirs{Project: filepath.Join(root, "project"), Temp: filepath.Join(root, "project.tmp")},
			}
			session, err := e.Open(b.Context(), spec)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = session.Close(context.WithoutCancel(b.Context())) }()
			for i := 0; b.Loop(); i++ {
				p := tranter.Phase{ID: strconv.Itoa(i), Dirs: spec.Dirs, Shell: "sh", Steps: []tranter.Step{
					{Name: "step_script", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: []string{"true"}}},
				}}
				if err := session.Start(b.Context(), p); err != nil {
					b.Fatal(err)
				}
				if _, err := session.Attach(b.Context(), p.ID, 0, io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
