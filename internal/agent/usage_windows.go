package agent

import "time"

// freeAt does not tell here.
func freeAt(string) (int64, bool) { return -1, true }

// own does not tell here.
func own() time.Duration { return 0 }
