//go:build !linux

package main

import "errors"

// thisProcess is empty: a process can't be told from an earlier one with its number.
func thisProcess() string { return "" }

// asInit is for the first process of a container.
func asInit() error { return errors.New("this is for containers of Linux") }
