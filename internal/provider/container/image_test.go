package container

import (
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

func TestTheImageIsMadeOnce(t *testing.T) {
	api := enginetest.Client(t, enginetest.Host(t))
	start := time.Now()
	ref, err := BuildImage(t.Context(), api)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(ref, time.Since(start))
	start = time.Now()
	again, err := BuildImage(t.Context(), api)
	if err != nil || again != ref {
		t.Errorf("%s, then %s, error %v", ref, again, err)
	}
	t.Log(time.Since(start))
}
