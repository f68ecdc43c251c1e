package source

// isNotDir says whether a file stood where err's path has a directory; here that counts as the path not existing.
func isNotDir(error) bool { return false }
