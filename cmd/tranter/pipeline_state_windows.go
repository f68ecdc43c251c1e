package main

// ownDir has nothing to check: directories for temporary files are the user's own.
func ownDir(string) error { return nil }
