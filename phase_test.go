package tranter_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

func TestWhichStepsAreWanted(t *testing.T) {
	all := []tranter.StepWhen{tranter.OnSuccess, tranter.OnFailure, tranter.AfterScript, tranter.Always}
	for name, tt := range map[string]struct {
		prior tranter.PhaseResult
		want  []bool // of all
	}{
		"nothing has run":             {tranter.PhaseResult{}, []bool{true, false, false, true}},
		"all is well":                 {tranter.PhaseResult{Status: tranter.PhaseSucceeded}, []bool{true, false, false, true}},
		"all is well after a script":  {tranter.PhaseResult{Status: tranter.PhaseSucceeded, ScriptReached: true}, []bool{true, false, true, true}},
		"failed before the script":    {tranter.PhaseResult{Status: tranter.PhaseFailed}, []bool{false, true, false, true}},
		"the script failed":           {tranter.PhaseResult{Status: tranter.PhaseFailed, ScriptReached: true}, []bool{false, true, true, true}},
		"cancelled in the script":     {tranter.PhaseResult{Status: tranter.PhaseCanceled, ScriptReached: true}, []bool{false, true, true, true}},
		"aborted in the script":       {tranter.PhaseResult{Status: tranter.PhaseAborted, ScriptReached: true, Over: true}, []bool{false, false, false, true}},
		"over, whatever else is said": {tranter.PhaseResult{Over: true}, []bool{false, false, false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			for i, when := range all {
				s := tranter.Step{When: when}
				p := tranter.Phase{Prior: tt.prior, Steps: []tranter.Step{s}}
				if s.Wanted(tt.prior) != tt.want[i] || p.Wanted() != tt.want[i] {
					t.Errorf("%s: step %v, phase %v, want %v", when, s.Wanted(tt.prior), p.Wanted(), tt.want[i])
				}
			}
			if empty := (tranter.Phase{Prior: tt.prior}); empty.Wanted() {
				t.Error("there is nothing to do")
			}
		})
	}
}

// A record of a job from before it had several phases is read, and one without them is written as it was then.
func TestRecordsFromBeforePhasesHadAState(t *testing.T) {
	var rec tranter.JobRecord
	if err := json.Unmarshal([]byte(`{"key":"k","phase":"job","phase_start":7,"runner_slot":2}`), &rec); err != nil {
		t.Fatal(err)
	}
	if rec.Phase != "job" || rec.PhaseStart != 7 || rec.Prior != nil || rec.Helper || rec.RunnerSlot != 2 {
		t.Errorf("%+v", rec)
	}
	data, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); !strings.Contains(text, `"phase":"job","phase_start":7`) || strings.Contains(text, "prior") || strings.Contains(text, "helper") {
		t.Errorf("%s", text)
	}
}
