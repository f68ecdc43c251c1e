package main

import "os"

// Windows knows only the interrupt: the first one drains, the next one stops (contract 12.5).
func stopSignals() []os.Signal   { return []os.Signal{os.Interrupt} }
func drainSignals() []os.Signal  { return nil }
func reloadSignals() []os.Signal { return nil }
