package link

import "io/fs"

// Containers of Windows are no business of this agent: what is here lets the program be built.

const noLink = 0

func setUmask(int) {}

func guardProcess() {}

func isOurs(fs.FileInfo) bool { return true }

func watchChildren(func()) (stop func()) { return func() {} }

func waitAll(int) (code int, ended bool) { return 0, false }
