package site

import _ "embed" // for the example

//go:embed example.toml
var example []byte

// Example returns a site file that explains itself.
func Example() []byte { return append([]byte(nil), example...) }
