// Package examples embeds the sample projects that commands run and tests check. It has no code.
package examples

import "embed"

// Demo is the project that "tranter demo" runs, in the folder demo.
//
//go:embed all:demo
var Demo embed.FS

// Up are the templates that "tranter up" has of its own, in the folder up.
//
//go:embed up/*.toml
var Up embed.FS
