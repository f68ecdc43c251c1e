package pbs_test

import (
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch/batchtest"
	"github.com/tranter-ci/tranter/internal/batch/pbs"
	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
)

func TestSlurmBehindTorquesCommandsIsOneOfTheFamily(t *testing.T) {
	cluster := slurmtest.Start(t, slurmtest.Options{})
	s, err := pbs.New(pbs.Options{Client: cluster.Client()})
	if err != nil {
		t.Fatal(err)
	}
	batchtest.Run(t, batchtest.Subject{
		Scheduler: s, Dir: t.TempDir(), IDVariable: "SLURM_JOB_ID",
		Wait:    func(spec *tranter.BatchSpec) { spec.Shape.Options = []string{"-h"} },
		Refuse:  func(spec *tranter.BatchSpec) { spec.Shape.Partition = "nowhere" },
		Unknown: "999999",
		Without: batchtest.Without{ExitCodes: true, Signals: true, Cancelled: true, Check: true},
	})
}
