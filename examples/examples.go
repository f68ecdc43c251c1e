// Package examples embeds the sample projects that commands run and tests check. It has no code.
package examples

import "embed"

// Demo is the project that "tranter demo" runs, in the folder demo.
//
//go:embed all:demo
var Demo embed.FS
