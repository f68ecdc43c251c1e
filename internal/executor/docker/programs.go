package docker

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// Programs knows this program as it is put on engines: what is the same for all of them is worked out once for all
// executors that have the same Programs.
type Programs struct {
	process string // tells this process from another one of the same manager

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

// NewPrograms returns what knows nothing yet.
func NewPrograms() *Programs {
	return &Programs{process: rand.Text(), known: map[string]*agentProgram{}, volumes: map[agentPlace]*agentVolume{}}
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
		program = &agentProgram{path: path}
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

	mu     sync.Mutex
	file   *os.File
	size   int64
	volume string      // name of the volume that it is in; empty: it was not looked at yet
	zipped []byte      // what pack writes, compressed
	drop   *time.Timer // gives that up
}

// zippedLife is for how long after its last use the compressed program is kept in memory.
const zippedLife = 10 * time.Minute

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
// processor time. Machines that come one after the other get the same bytes.
func (p *agentProgram) zip() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drop != nil {
		p.drop.Stop()
	}
	if p.zipped == nil {
		var b bytes.Buffer
		b.Grow(int(p.size / 2))
		z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err != nil {
			return nil, err
		}
		if err := p.pack(z); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		p.zipped = b.Bytes()
	}
	p.drop = time.AfterFunc(zippedLife, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.zipped = nil
	})
	return p.zipped, nil
}
