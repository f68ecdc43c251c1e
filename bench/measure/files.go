package measure

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// oneFile makes a file that does not shrink.
func oneFile(dir string, megabytes int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "data.bin"))
	if err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{1})
	_, err = io.CopyN(f, noise, int64(megabytes)*1_000_000)
	return errors.Join(err, f.Close())
}

// manyFiles makes files of words, 100 in each directory. They shrink to about half.
func manyFiles(dir string, files int) error {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same files each time
	var text strings.Builder
	for i := range files {
		sub := filepath.Join(dir, "src", fmt.Sprintf("package-%03d", i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		text.Reset()
		for text.Len() < 3000 {
			fmt.Fprintf(&text, "const value%d = %q // line of file %d\n", random.IntN(1_000_000), fmt.Sprintf("%x", random.Uint64()), i)
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file_%05d.js", i)), []byte(text.String()[:3000]), 0o644); err != nil {
			return err
		}
	}
	return nil
}
