package agent

import "time"

// used is not known here.
func used() (cpu time.Duration, memory int64) { return 0, 0 }
