package main

import "os"

// Windows tells nobody that a window has another size.
func resizeSignals() []os.Signal { return nil }
