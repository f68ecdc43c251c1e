package agent

// freeAt does not tell here.
func freeAt(string) (int64, bool) { return -1, true }
