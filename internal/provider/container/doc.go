// Package container makes machines of privileged containers on a local engine, each with an init, an SSH server and a
// Docker Engine of its own. The demo and the tests run on them. It also makes their image, from the host's own programs.
package container
