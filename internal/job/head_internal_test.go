package job

import "testing"

func TestLinesOfTriesThatHaveFailed(t *testing.T) {
	t.Parallel()
	const head, try, failed = "Running\n", "Using an image\n", "ERROR: Preparation failed: x\n" + retried + "3s ...\n"
	for log, want := range map[string]int{
		"":                                    0,
		head:                                  0,
		head + preparing + "executor\n" + try: 0,
		head + preparing + "executor\n" + try + failed:                          3,
		head + preparing + "executor\n" + try + failed + failed + try:           5,
		head + preparing + "executor\n" + failed + try + "Using half of a line": 2,
		failed: 0,
	} {
		if got := failedTries([]byte(log)); got != want {
			t.Errorf("%q: %d, want %d", log, got, want)
		}
	}
}
