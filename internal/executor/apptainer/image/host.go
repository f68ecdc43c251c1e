package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/google/go-containerregistry/pkg/name"
)

// fromHost gets an image of a layout or an archive on this host. Whether it has changed is told by its size and time.
func (s *Store) fromHost(ctx context.Context, r reference, w Want) (*Image, error) {
	head, err := stamp(r)
	if err != nil {
		return nil, configError("image %s: it can't be read (%s)", r.asked, shorten(err.Error(), 300))
	}
	if p := s.pointer(r, w); p.Head == head {
		if image := s.present(r, w, p); image != nil {
			return image, nil
		}
	}
	return s.once(ctx, "pull-"+keyOf(r.full(), head, w.Platform, string(w.Form)), order{ref: r, want: w}, head, func(ctx context.Context) (pointer, error) {
		work, err := os.MkdirTemp(s.tmp, "open-")
		if err != nil {
			return pointer{}, err
		}
		defer removeAll(work) //nolint:errcheck // Collect removes what stays
		img, err := s.openHost(ctx, r, w, work)
		if err != nil {
			return pointer{}, onDisk(ctx, err, r)
		}
		digest, err := img.Digest()
		if err != nil {
			return pointer{}, onDisk(ctx, err, r)
		}
		p := pointer{Head: head, Digest: digest.String()}
		if s.has(p.Digest, w.Form) {
			return p, nil
		}
		fmt.Fprintf(w.Log, "Unpacking image %s ...\n", r.asked)
		err = s.make(ctx, order{r, w, digest}, img, func(_ context.Context, l v1.Descriptor) (string, error) { return spill(img, l, work) })
		return p, onDisk(ctx, err, r)
	})
}

// stamp tells versions of a layout or archive apart.
func stamp(r reference) (string, error) {
	path := r.path
	if r.kind == layoutDir {
		path = filepath.Join(path, "index.json")
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(info.Size(), 10) + " " + strconv.FormatInt(info.ModTime().UnixNano(), 10), nil
}

// onDisk types an error about a layout or archive: what is wrong with it is for its maker to correct.
func onDisk(ctx context.Context, err error, r reference) error {
	if err == nil || ctx.Err() != nil || verdict(err) {
		return err
	}
	return configError("image %s can't be used: %s", r.asked, shorten(err.Error(), 600))
}

// openHost opens a layout or archive. What has to be unpacked for that goes below work.
func (s *Store) openHost(ctx context.Context, r reference, w Want, work string) (v1.Image, error) {
	dir := r.path
	switch r.kind {
	case dockerArchive:
		var tag *name.Tag
		if r.tag != "" {
			t, err := name.NewTag(r.tag, name.WeakValidation)
			if err != nil {
				return nil, err
			}
			tag = &t
		}
		return tarball.ImageFromPath(r.path, tag)
	case layoutArchive:
		dir = filepath.Join(work, "archive")
		if err := s.unarchive(ctx, r.path, dir); err != nil {
			return nil, err
		}
	default:
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	platform, err := parsePlatform(w.Platform)
	if err != nil {
		return nil, err
	}
	return choose(index, r.tag, platform, 0)
}

func (s *Store) unarchive(ctx context.Context, path, dir string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	f, err := newFlattener(dir, s.o.MaxSize, false)
	if err != nil {
		return err
	}
	defer f.close()
	return f.layer(ctx, in)
}

// mostNested is how deep lists of images may be in each other.
const mostNested = 3

// choose finds the image of a list that has the name, if one is given, and is for the platform.
func choose(index v1.ImageIndex, tag string, platform v1.Platform, depth int) (v1.Image, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var other error
	for _, d := range m.Manifests {
		named := tag == "" || d.Annotations["org.opencontainers.image.ref.name"] == tag
		switch {
		case !named:
		case d.MediaType.IsIndex() && depth < mostNested:
			var img v1.Image
			if img, other = chooseBelow(index, d.Digest, platform, depth); other == nil {
				return img, nil
			}
		case d.MediaType.IsImage() && suits(d.Platform, platform):
			return index.Image(d.Digest)
		}
	}
	switch {
	case other != nil:
		return nil, other
	case tag != "":
		return nil, fmt.Errorf("it has no image called %s for %s", shorten(tag, 100), platform)
	default:
		return nil, fmt.Errorf("it has no image for %s", platform)
	}
}

func suits(has *v1.Platform, want v1.Platform) bool { return has == nil || has.Satisfies(want) }

func chooseBelow(index v1.ImageIndex, digest v1.Hash, platform v1.Platform, depth int) (v1.Image, error) {
	below, err := index.ImageIndex(digest)
	if err != nil {
		return nil, err
	}
	return choose(below, "", platform, depth+1)
}

// spill writes a layer to a file of its own.
func spill(img v1.Image, l v1.Descriptor, work string) (string, error) {
	layer, err := img.LayerByDigest(l.Digest)
	if err != nil {
		return "", err
	}
	in, err := layer.Compressed()
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(work, "layer-")
	if err != nil {
		return "", err
	}
	n, err := io.Copy(out, io.LimitReader(in, l.Size+1))
	if err == nil && n != l.Size {
		err = errors.New("a layer does not have the size that its manifest says")
	}
	return out.Name(), errors.Join(err, out.Close())
}
