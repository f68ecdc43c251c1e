// Package archtest holds tests about the shape of the code: which package may import which, how large types, files and
// functions may be, and that each package says what it is. It has no code of its own.
package archtest
