package main

import (
	"errors"
	"os"
)

// Windows knows only the interrupt: the first one drains, the next one stops (contract 12.5).
func stopSignals() []os.Signal   { return []os.Signal{os.Interrupt} }
func drainSignals() []os.Signal  { return nil }
func reloadSignals() []os.Signal { return nil }

func upgradeSignals() []os.Signal { return nil }

const canReplace = false

func becomeProgram(string) error { return errors.New("not possible on Windows") }
