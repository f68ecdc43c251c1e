package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/tranter-ci/tranter"
)

// What there is in the shared directory and in that of an allocation.
const (
	allocationsDir = "allocations"
	programsDir    = "bin"
	hintsDir       = "signs"       // a file in it says that an allocation has something to tell for the first time
	asideDir       = "aside"       // what somebody has left among the hints, until it is removed
	managerFile    = "manager"     // changes as long as a manager is at work
	listenFile     = "listen.json" // certificate and port, over restarts

	assignmentFile = "assignment.json"
	keyFile        = "key"      // with which the worker shows who it is
	requestsFile   = "requests" // lines from the manager
	answersFile    = "answers"  // lines from the worker
	signFile       = "sign"     // what the worker says of itself now
	claimFile      = "claim"    // of the one worker that there is
	bodiesDir      = "in"       // bodies of requests, until they are read
	jobsDir        = "jobs"
)

// folder is an allocation's directory as the manager sees it. It belongs to the user of the allocation, and the manager may be
// root: it never gets out of it, follows no link out, and reads only plain files of that user.
type folder struct {
	root *os.Root
	as   *tranter.Account
}

// open opens a file that is there. It was one of ours, or the worker's; what is there now is looked at.
func (f folder) open(name string, flags int) (*os.File, error) {
	file, err := f.root.OpenFile(filepath.FromSlash(name), flags|noTricks, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a plain file any more", name)
	}
	if err == nil && f.as != nil {
		if uid, _, ok := owner(info); !ok || uid != f.as.UID {
			err = fmt.Errorf("%s does not belong to the user of the allocation", name)
		}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// give makes a new file with content, for the allocation's user. It appears whole.
func (f folder) give(name string, content []byte, durable bool) error {
	temporary := path.Join(path.Dir(name), ".new-"+path.Base(name))
	_ = f.root.Remove(filepath.FromSlash(temporary))
	file, err := f.root.OpenFile(filepath.FromSlash(temporary), os.O_CREATE|os.O_EXCL|os.O_WRONLY|noTricks, 0o600)
	if err != nil {
		return err
	}
	if f.as != nil {
		err = file.Chown(int(f.as.UID), int(f.as.GID))
	}
	if err == nil {
		_, err = file.Write(content)
	}
	if err == nil && durable {
		err = file.Sync()
	}
	// Another host sees what was written once the file was closed.
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.root.Rename(filepath.FromSlash(temporary), filepath.FromSlash(name))
	}
	if err != nil {
		_ = f.root.Remove(filepath.FromSlash(temporary))
	}
	return err
}

// directory makes a directory for the allocation's user.
func (f folder) directory(name string) error {
	switch err := f.root.Mkdir(name, 0o700); {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil || f.as == nil:
		return err
	}
	return f.root.Lchown(name, int(f.as.UID), int(f.as.GID))
}

// read returns the first bytes of a file.
func (f folder) read(name string, most int64) ([]byte, error) {
	file, err := f.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most))
}

// append adds to a file that is there.
func (f folder) append(name string, content []byte) error {
	file, err := f.open(name, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}

// readFrom returns what is in a file from offset on, as far as it fits into buf. It opens the file each time: that is when a
// network file system asks its server.
func (f folder) readFrom(name string, offset int64, buf []byte) (n int, err error) {
	file, err := f.open(name, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	n, err = file.ReadAt(buf, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// size returns a file's size.
func (f folder) size(name string) (int64, error) {
	file, err := f.open(name, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
