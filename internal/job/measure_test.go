package job

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

type watched struct {
	tranter.Session
	selector string
}

func (w watched) Selector() string { return w.selector }

func TestMeasure(t *testing.T) {
	taken := time.Unix(1_700_000_000, 0)
	for name, tt := range map[string]struct {
		session tranter.Session
		want    string
	}{
		"watched":         {watched{selector: `instance="m"`}, `instance="m"`},
		"watched by none": {watched{}, ""},
		"other executor":  {struct{ tranter.Session }{}, ""},
		"no environment":  {nil, ""},
	} {
		got := ""
		r := &run{session: tt.session, Task: Task{
			Log:    slog.New(slog.DiscardHandler),
			Record: tranter.JobRecord{Job: &tranter.Job{ID: 7, Token: "t"}, Taken: taken},
			Measure: func(ctx context.Context, ref tranter.JobRef, selector string, since time.Time) error {
				if _, limited := ctx.Deadline(); !limited || ref.ID != 7 || !since.Equal(taken) {
					t.Errorf("%s: %v since %v", name, ref.ID, since)
				}
				got = selector
				return errors.New("out of reach, which fails no job")
			},
		}}
		r.measure(t.Context())
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
