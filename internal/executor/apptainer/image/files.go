package image

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// mostNote is the size in bytes up to which a file of our own is read.
const mostNote = 1 << 20

// Names below a store's directory.
const (
	imagesDir = "images" // an image each, by digest and form
	refsDir   = "refs"   // what a name was found to be
	blobsDir  = "blobs"
	tmpDir    = "tmp"
	locksDir  = "locks"
	useDir    = "use" // who uses an image
	noteFile  = "image.json"
	condemned = "condemned" // in use/IMAGE: it is about to be removed
)

// note is what the store knows of an image. The time of its file is that of the last use.
type note struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest,omitempty"`
	Form   Form   `json:"form"`
	Size   int64  `json:"size"`
	Config Config `json:"config"`
}

// pointer is what a name was found to be.
type pointer struct {
	Ref      string    `json:"ref"`
	Platform string    `json:"platform"`
	Head     string    `json:"head"`   // what the name stands for: an image or a list of images
	Digest   string    `json:"digest"` // of the image for the platform
	Checked  time.Time `json:"checked"`
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return data, err
}

func readNote(path string, v any) error {
	data, err := readBounded(path, mostNote)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// writeNote writes a file of ours as a whole or not at all.
func writeNote(path string, v any, mode fs.FileMode, durable bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(path), ".next-"+rand.Text())
	if err := writeFile(next, data, mode, durable); err != nil {
		_ = os.Remove(next) // what is wrong is known
		return err
	}
	if err := os.Rename(next, path); err != nil {
		_ = os.Remove(next) // what is wrong is known
		return err
	}
	return nil
}

func writeFile(path string, data []byte, mode fs.FileMode, durable bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// move renames a file, or copies it where it is on another file system.
func move(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	return copyFile(from, to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// removeAll removes a tree whose directories may be closed to us.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) //nolint:gosec // it is removed
		}
		return nil
	})
	return os.RemoveAll(path)
}
