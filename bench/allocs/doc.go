// Package allocs holds the hot paths to what they allocate: a test compares each with testdata/allocs.txt and fails when
// one has grown. Unlike times, allocations are the same on every machine. It has no code of its own.
package allocs
