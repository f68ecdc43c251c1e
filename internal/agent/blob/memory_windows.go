package blob

func allocate(n int) ([]byte, error) { return make([]byte, n), nil }

func release([]byte) {}
