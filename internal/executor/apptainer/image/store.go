package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// The pull policies (runner contract, section 9.7).
const (
	always       = "always"         // ask the registry for the digest; download what is not there
	ifNotPresent = "if-not-present" // download what is not there
	never        = "never"          // take what is there
)

// Form is how an image lies in the store.
type Form string

// The forms. A reference that the runtime itself reads (SIF files, library://, oras:// and the like) is there as Given only
// if it needs no Build, see Want.
const (
	Directory Form = "directory" // a tree of files, which any runtime can use and which needs no FUSE
	OCI       Form = "oci"       // an OCI layout with one image
	File      Form = "file"      // one file, made by Want.Build
	Given     Form = "given"     // a file or directory of the host's that the store only names
)

// Options are a Store's settings.
type Options struct {
	CacheDir string // of layers; "blobs" in the store's directory unless given
	TmpDir   string // for images while they are made; "tmp" in the store's directory unless given
	Insecure []string
	Log      *slog.Logger

	// Shared says that the members of the directory's group write to the store, too, and that all users read it.
	Shared bool
	// Readable says that all users of the machine may read the images, which somebody else's jobs run in.
	Readable bool
	// MaxSize is the most bytes that an image may have once it is unpacked; 64 GiB unless given.
	MaxSize int64
	// Downloads is the most layers that are downloaded at once; 3 unless given.
	Downloads int
}

// Want says how an image is wanted.
type Want struct {
	Policies []string // always, if-not-present, never; each further one after a failure of the ones before
	Form     Form     // Directory unless given
	Platform string   // os/architecture[/variant]; this machine's unless given
	// Login tells the user and the password for a registry, as host or host:port. It may be nil.
	Login func(registry string) (user, password string, ok bool)
	// Log gets lines for people: waiting, downloading. It may be nil.
	Log io.Writer
	// Build makes the single file target of an OCI layout, for File. source is "oci:DIR" then. It is also called for
	// references that only the runtime can get (library://, oras://, shub://, http(s)://, and with it the reference as the
	// source) whatever form is wanted, with the Image's Form being File.
	Build func(ctx context.Context, source, target string) error
}

// Config is what an image says of how it is run.
type Config struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`
	User       string   `json:"user,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	Ports      []int    `json:"ports,omitempty"` // TCP ports that it exposes, in order
}

// Image is an image that is there, and stays until Release.
type Image struct {
	Ref    string // as it was asked for
	Digest string // of its manifest; empty if it is Given or the runtime got it
	Path   string
	Form   Form
	Config Config

	release func()
}

// Release says that the image is not used any more. It may be called more than once.
func (i *Image) Release() {
	if i != nil && i.release != nil {
		i.release()
	}
}

// Limits say what Collect removes.
type Limits struct {
	MaxAge  time.Duration // since the last use; 0: no limit
	MaxSize int64         // of all, in bytes, layers included; 0: no limit
}

// Collected is what Collect removed.
type Collected struct {
	Images, Blobs int
	Bytes         int64
}

// Store is a directory of images. Its methods may be called at the same time, and by processes of several machines.
type Store struct {
	*ground
	locks     *locks
	transport *carrier
	downloads chan struct{}
}

// ground is what lies in the directory: images, what names were found to be, signs of use.
type ground struct {
	dir   string
	o     Options
	blobs string
	stage string // for what is moved to its place as a whole; on the file system of the store
	tmp   string // for what is made with much writing
	log   *slog.Logger
}

const (
	defaultMaxSize   = 64 << 30
	defaultDownloads = 3
)

// Open opens the store in dir, and makes it if there is none. A directory that another user may have changed is not used
// unless it is shared: this user's part is a directory below it then.
func Open(dir string, o Options) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("the directory of images %q is not an absolute path: set image_dir in [runners.apptainer]", dir)
	}
	if o.MaxSize <= 0 {
		o.MaxSize = defaultMaxSize
	}
	if o.Downloads <= 0 {
		o.Downloads = defaultDownloads
	}
	s := &Store{ground: &ground{dir: dir, o: o, log: o.Log}, transport: newCarrier(o.Insecure), downloads: make(chan struct{}, o.Downloads)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.settleDown(); err != nil {
		return nil, fmt.Errorf("open the store of images in %s: %w", dir, err)
	}
	s.blobs, s.stage, s.tmp = filepath.Join(s.dir, blobsDir), filepath.Join(s.dir, tmpDir), o.TmpDir
	if o.CacheDir != "" {
		s.blobs = s.own(o.CacheDir)
	}
	if s.tmp == "" {
		s.tmp = s.stage
	} else {
		s.tmp = s.own(s.tmp)
	}
	for _, d := range []string{s.blobs, s.tmp, s.stage, s.path(imagesDir), s.path(refsDir), s.path(locksDir), s.path(useDir)} {
		if err := s.mkdir(d); err != nil {
			return nil, fmt.Errorf("open the store of images in %s: %w", s.dir, err)
		}
	}
	s.locks = &locks{dir: s.path(locksDir), mode: s.dirMode()}
	return s, nil
}

// settleDown finds the directory that is ours.
func (s *ground) settleDown() error {
	for range 2 {
		info, err := os.Stat(s.dir)
		if errors.Is(err, fs.ErrNotExist) {
			return s.mkdir(s.dir)
		}
		if err != nil {
			return err
		}
		if trust(info, s.o.Shared) {
			return nil
		}
		if s.o.Shared || !info.IsDir() {
			return errors.New("others than its group can write to it, or it does not belong to root or this user: correct its owner and mode, or let each user have an own one")
		}
		s.dir = s.own(s.dir)
	}
	return errors.New("the part of it that is this user's belongs to somebody else, or others can write to it: remove it, or correct its owner and mode")
}

// own is this user's part of a directory of several users, or the directory if it is this user's.
func (s *ground) own(dir string) string {
	if info, err := os.Stat(dir); err != nil || trust(info, s.o.Shared) {
		return dir
	}
	return filepath.Join(dir, "user-"+strconv.Itoa(os.Geteuid()))
}

func (s *ground) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// mkdir makes a directory that is ours, with the store's mode whatever the umask is.
func (s *ground) mkdir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), s.dirMode().Perm()); err != nil {
		return err
	}
	err := os.Mkdir(dir, s.dirMode().Perm())
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, s.dirMode())
}

func (s *ground) dirMode() fs.FileMode {
	switch {
	case s.o.Shared:
		return 0o775 | fs.ModeSetgid
	case s.o.Readable:
		return 0o755
	default:
		return 0o700
	}
}

func (s *ground) fileMode() fs.FileMode {
	switch {
	case s.o.Shared:
		return 0o664
	case s.o.Readable:
		return 0o644
	default:
		return 0o600
	}
}

// Get returns the image of a reference, in the form that is wanted, by the first policy that gives one. The error is a
// *tranter.ConfigError where the name, the policies or the login are at fault, a *tranter.DependencyError where the
// registry or the way to it is, a *tranter.PullError where neither is known to be, or ctx's own.
func (s *Store) Get(ctx context.Context, ref string, w Want) (*Image, error) {
	r, err := parse(ref, s.o.Insecure)
	if err != nil {
		return nil, err
	}
	w = completed(w)
	if w.Form == File && w.Build == nil && r.kind != onHost {
		return nil, errors.New("an image as a file is wanted, and nothing that makes one is given")
	}
	if r.kind == onHost {
		return given(r)
	}
	var failed []error
	for i, policy := range w.Policies {
		if i > 0 {
			fmt.Fprintf(w.Log, "Attempt #%d: Trying %q pull policy\n", i+1, policy)
		}
		image, err := s.try(ctx, policy, r, w)
		if err == nil {
			return image, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for the image %s: %w", r.asked, context.Cause(ctx))
		}
		if !verdict(err) {
			return nil, fmt.Errorf("get the image %s: %w", r.asked, err)
		}
		if len(w.Policies) > 1 {
			fmt.Fprintf(w.Log, "\x1b[0;33mWARNING: Failed to pull image with policy %q: %v\x1b[0;m\n", policy, err)
		}
		failed = append(failed, err)
	}
	return nil, refusal(r, w.Policies, failed)
}

// completed has what is left open in a Want.
func completed(w Want) Want {
	if w.Form == "" {
		w.Form = Directory
	}
	if w.Log == nil {
		w.Log = io.Discard
	}
	if len(w.Policies) == 0 {
		w.Policies = []string{always}
	}
	return w
}

// given is an image that the runtime takes from where it is.
func given(r reference) (*Image, error) {
	info, err := os.Stat(r.path)
	if err != nil {
		return nil, configError("image %s: %s", r.asked, shorten(err.Error(), 300))
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, configError("image %s: it is neither a file nor a directory", r.asked)
	}
	return &Image{Ref: r.asked, Path: r.path, Form: Given}, nil
}

// refusal is the error of Get. When a pull has failed because of the registry, another attempt later may work, whatever
// the policies after it came to; so that decides about the kind of the error before the last policy does.
func refusal(r reference, policies []string, failed []error) error {
	if len(failed) == 1 {
		return failed[0]
	}
	kind := failed[len(failed)-1]
	var said []string
	for _, err := range failed {
		if d := (*tranter.DependencyError)(nil); errors.As(err, &d) {
			kind = err
		}
		if !slices.Contains(said, err.Error()) {
			said = append(said, err.Error())
		}
	}
	whole := fmt.Errorf("failed to pull image %q with specified policies [%s]: %s", r.asked, strings.Join(policies, " "), strings.Join(said, "; "))
	var c *tranter.ConfigError
	var d *tranter.DependencyError
	switch {
	case errors.As(kind, &d):
		return &tranter.DependencyError{Err: whole}
	case errors.As(kind, &c):
		return &tranter.ConfigError{Err: whole}
	default:
		return &tranter.PullError{Err: whole}
	}
}
