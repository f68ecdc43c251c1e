package docker

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// Programs knows this program as it is put on engines: what is the same for all of them is worked out once for all
// executors that have the same Programs.
type Programs struct {
	process string // tells this process from another one of the same manager
	dir     string

	mu      sync.Mutex
	known   map[string]*agentProgram
	volumes map[agentPlace]*agentVolume
}

// agentPlace is a program on an engine.
type agentPlace struct {
	program string
	owner   string
	engine  engineAddress
}

// NewPrograms returns what knows nothing yet. A file of half the program's size may be made in dir; empty: in the system's
// directory for such files.
func NewPrograms(dir string) *Programs {
	return &Programs{process: rand.Text(), dir: dir, known: map[string]*agentProgram{}, volumes: map[agentPlace]*agentVolume{}}
}

// volume returns what puts the program at a path on an engine. That of a machine is its executor's alone, and goes with it.
func (p *Programs) volume(path, owner string, on engineAddress) *agentVolume {
	p.mu.Lock()
	defer p.mu.Unlock()
	place := agentPlace{program: path, owner: owner, engine: on}
	if v := p.volumes[place]; v != nil {
		return v
	}
	program := p.known[path]
	if program == nil {
		program = &agentProgram{path: path, dir: p.dir}
		p.known[path] = program
	}
	v := &agentVolume{program: program, owner: owner, process: p.process, turn: make(chan struct{}, 1)}
	if on.Machine == "" {
		p.volumes[place] = v
	}
	return v
}

// agentProgram is this program, or that for another system or architecture, as it was when it was looked at first: it is
// kept open, so that one that is put in its place later does not get into the volume that is named after this one.
type agentProgram struct {
	path string
	dir  string // for a file without a name; empty: that of the system

	mu     sync.Mutex
	file   *os.File
	size   int64
	volume string      // name of the volume that it is in; empty: it was not looked at yet
	zipped io.ReaderAt // what pack writes, compressed; nil: it was not needed yet
	length int64       // of that
}

// identify names the volume after the program's content: another version gets another volume, and the one that running
// jobs use stays as it is.
func (p *agentProgram) identify() (volume string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err = p.look()
	return p.volume, err
}

// look reads the program the first time.
func (p *agentProgram) look() error {
	if p.volume != "" {
		return nil
	}
	f, err := os.Open(p.path)
	if err != nil {
		return fmt.Errorf("read this program for the engine: %w", err)
	}
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("read this program for the engine: %w", err)
	}
	p.file, p.size, p.volume = f, size, "tranter-agent-"+hex.EncodeToString(sum.Sum(nil))[:16]
	return nil
}

// pack writes the volume's content as a tar archive. The program comes last and is complete when it has its size.
func (p *agentProgram) pack(w io.Writer) error {
	t := tar.NewWriter(w)
	worker := tar.Header{Typeflag: tar.TypeSymlink, Name: path.Base(spec.WorkerProgram), Linkname: path.Base(spec.AgentProgram), Mode: 0o777}
	program := tar.Header{Typeflag: tar.TypeReg, Name: path.Base(spec.AgentProgram), Mode: 0o755, Size: p.size}
	if err := t.WriteHeader(&worker); err != nil {
		return err
	}
	if err := t.WriteHeader(&program); err != nil {
		return err
	}
	if _, err := io.Copy(t, io.NewSectionReader(p.file, 0, p.size)); err != nil {
		return err
	}
	return t.Close()
}

// zip returns what pack writes, compressed with gzip, which every engine takes: less than half, at a fifth of a second of
// processor time. Machines that come one after the other get the same bytes, which are in a file that has no name any more:
// in memory they would make up most of what a manager takes.
func (p *agentProgram) zip() (io.Reader, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.zipped == nil {
		if err := p.makeZip(); err != nil {
			return nil, fmt.Errorf("compress this program for machines: %w", err)
		}
	}
	return io.NewSectionReader(p.zipped, 0, p.length), nil
}

func (p *agentProgram) makeZip() error {
	f, err := os.CreateTemp(p.dir, "tranter-agent-*.tar.gz")
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err == nil {
		err = errors.Join(p.pack(z), z.Close())
	}
	if err == nil {
		p.length, err = f.Seek(0, io.SeekCurrent)
	}
	if removed := os.Remove(f.Name()); removed == nil && err == nil {
		p.zipped = f
		return nil
	}
	defer os.Remove(f.Name()) //nolint:errcheck // once it is closed, where open files have to keep their names
	defer f.Close()
	if err != nil {
		return err
	}
	data := make([]byte, p.length)
	_, err = f.ReadAt(data, 0)
	p.zipped = bytes.NewReader(data)
	return err
}
