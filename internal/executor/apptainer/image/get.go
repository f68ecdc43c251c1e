package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// fresh is how old a pointer, or the time of the last use, may be without being written again.
const fresh = time.Minute

// try gets an image by one policy.
func (s *Store) try(ctx context.Context, policy string, r reference, w Want) (*Image, error) {
	switch policy {
	case always:
	case ifNotPresent, never:
		p := s.pointer(r, w)
		if image := s.present(r, w, p); image != nil {
			if policy == ifNotPresent {
				fmt.Fprintf(w.Log, "Using locally found image version due to %q pull policy\n", policy)
			}
			return image, nil
		}
		if policy == never {
			return nil, configError("the image %s is not there, and the pull policy %q does not let it be pulled: allow the policy %q, or pull it with a job that may", r.asked, never, ifNotPresent)
		}
	default:
		return nil, configError("unsupported pull policy %q: there are %s, %s and %s", shorten(policy, 100), always, ifNotPresent, never)
	}
	switch r.kind {
	case registry:
		return s.fromRegistry(ctx, r, w)
	case foreign:
		return s.fromRuntime(ctx, r, w)
	default:
		return s.fromHost(ctx, r, w)
	}
}

// fromRegistry asks the registry what the name stands for, and gets what is not there.
func (s *Store) fromRegistry(ctx context.Context, r reference, w Want) (*Image, error) {
	src, err := s.source(r, w)
	if err != nil {
		return nil, err
	}
	head, err := src.head(ctx)
	if err != nil {
		return nil, err
	}
	if p := s.pointer(r, w); p.Head == head {
		if image := s.present(r, w, p); image != nil {
			s.point(r, w, p)
			return image, nil
		}
	}
	return s.once(ctx, "pull-"+keyOf(head, w.Platform, string(w.Form)), order{ref: r, want: w}, head, func(ctx context.Context) (pointer, error) {
		img, err := src.image(ctx, head)
		if err != nil {
			return pointer{}, err
		}
		digest, err := img.Digest()
		if err != nil {
			return pointer{}, explain(err, r, src.login)
		}
		p := pointer{Head: head, Digest: digest.String()}
		if !s.has(p.Digest, w.Form) {
			fmt.Fprintf(w.Log, "Pulling image %s with digest %s ...\n", r.asked, digest)
			err = s.make(ctx, order{r, w, digest}, img, func(ctx context.Context, l v1.Descriptor) (string, error) { return s.blob(ctx, src, l) })
		}
		return p, explain(err, r, src.login)
	})
}

// once makes an image that is not there: one of all who want it does, and the others wait.
func (s *Store) once(ctx context.Context, lockName string, o order, head string, work func(context.Context) (pointer, error)) (*Image, error) {
	waiting := func(host string) { fmt.Fprintf(o.want.Log, "Waiting for %s to pull %s\n", host, o.ref.asked) }
	for began := time.Now(); time.Since(began) < 2*deadAfter; { // it may be removed between being made and being held
		held, lock, err := s.locks.take(ctx, lockName, waiting)
		if err != nil {
			return nil, err
		}
		image, err := s.locked(held, o.ref, o.want, head, work)
		if lost := context.Cause(held); err != nil && errors.Is(lost, errLockLost) {
			err = lost
		}
		lock.release()
		if image != nil || err != nil {
			return image, err
		}
		waiting = nil
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(firstWait):
		}
	}
	return nil, fmt.Errorf("the image %s is removed again and again", o.ref.asked)
}

func (s *Store) locked(ctx context.Context, r reference, w Want, head string, work func(context.Context) (pointer, error)) (*Image, error) {
	if p := s.pointer(r, w); p.Head == head && head != "" {
		if image := s.present(r, w, p); image != nil {
			return image, nil
		}
	}
	p, err := work(ctx)
	if err != nil {
		return nil, err
	}
	s.pardon(p.Digest, w.Form)
	s.point(r, w, p)
	return s.present(r, w, p), nil
}

// pointerPath is where it is written what a name was found to be.
func (s *ground) pointerPath(r reference, w Want) string {
	form := ""
	if r.kind != registry && r.kind != foreign { // what is on the host is looked into for each form
		form = string(w.Form)
	}
	return s.path(refsDir, keyOf(r.full(), w.Platform, form)+".json")
}

func keyOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:])
}

// pointer returns what a name was found to be; its zero value: that is not known.
func (s *ground) pointer(r reference, w Want) pointer {
	var p pointer
	if err := readNote(s.pointerPath(r, w), &p); err != nil || p.Ref != r.full() || p.Platform != w.Platform {
		p = pointer{}
	}
	if p.Digest == "" && r.kind == registry && r.digest() != "" {
		p = pointer{Head: r.digest(), Digest: r.digest()} // the image itself is named
	}
	return p
}

// point writes what a name was found to be, unless that is known.
func (s *ground) point(r reference, w Want, p pointer) {
	if p.Ref == r.full() && time.Since(p.Checked) < fresh {
		return
	}
	known := p.Ref == r.full()
	p.Ref, p.Platform, p.Checked = r.full(), w.Platform, time.Now()
	if err := writeNote(s.pointerPath(r, w), p, s.fileMode(), !known); err != nil {
		s.log.Warn("it can't be written what the name of an image stands for", "image", r.asked, "error", err)
	}
}

// identity is the name of an image's directory; empty: the digest is none.
func identity(digest string, form Form) string {
	algorithm, text, _ := strings.Cut(digest, ":")
	if algorithm != "sha256" || len(text) != 64 || strings.Trim(text, "0123456789abcdef") != "" {
		return ""
	}
	return text + "-" + string(form)
}

// content is where the image itself is in its directory.
func content(form Form) string {
	return map[Form]string{Directory: "rootfs", OCI: "layout", File: "image.sif"}[form]
}

func (s *ground) has(digest string, form Form) bool {
	id := identity(digest, form)
	if id == "" {
		return false
	}
	_, err := os.Lstat(s.path(imagesDir, id, noteFile))
	return err == nil
}

// present returns the image of a pointer if it is there, held.
func (s *ground) present(r reference, w Want, p pointer) *Image {
	form := w.Form
	if r.kind == foreign {
		form = File
	}
	id := identity(p.Digest, form)
	if id == "" {
		return nil
	}
	path := s.path(imagesDir, id, noteFile)
	info, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	release, ok, err := s.hold(id)
	if err != nil || !ok {
		if err != nil {
			s.log.Warn("an image can't be used", "image", r.asked, "error", err)
		}
		return nil
	}
	var n note
	if err := readNote(path, &n); err != nil || n.Form != form {
		release()
		return nil
	}
	if time.Since(info.ModTime()) > fresh {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // it is only removed earlier
	}
	return &Image{Ref: r.asked, Digest: p.Digest, Path: s.path(imagesDir, id, content(form)), Form: form, Config: n.Config, release: release}
}

// pardon takes back that an image is about to be removed, if who meant to has not come to it for long.
func (s *ground) pardon(digest string, form Form) {
	id := identity(digest, form)
	mark := s.path(useDir, id, condemned)
	info, err := os.Lstat(mark)
	if err != nil || id == "" {
		return
	}
	if now, err := s.now(); err == nil && now.Sub(info.ModTime()) > deadAfter {
		_ = os.Remove(mark) // the next time
	}
}

// fromRuntime lets the runtime get what only it can. There is no cheap way to ask whether it has changed.
func (s *Store) fromRuntime(ctx context.Context, r reference, w Want) (*Image, error) {
	if w.Build == nil {
		return nil, configError("image %s: only Apptainer and Singularity can get it: name an image of a registry, or use that runtime", r.asked)
	}
	w.Form = File
	began := time.Now()
	return s.once(ctx, "pull-"+keyOf(r.full(), w.Platform), order{ref: r, want: w}, "", func(ctx context.Context) (pointer, error) {
		if p := s.pointer(r, w); p.Checked.After(began) && s.has(p.Digest, File) {
			return p, nil // whom we waited for has got it
		}
		fmt.Fprintf(w.Log, "Pulling image %s ...\n", r.asked)
		work, err := os.MkdirTemp(s.tmp, "pull-")
		if err != nil {
			return pointer{}, err
		}
		defer removeAll(work) //nolint:errcheck // Collect removes what stays
		target := filepath.Join(work, "image.sif")
		if err := w.Build(ctx, r.asked, target); err != nil {
			return pointer{}, built(ctx, err, r)
		}
		digest, err := fileDigest(target, s.o.MaxSize)
		if err != nil {
			return pointer{}, built(ctx, err, r)
		}
		if !s.has(digest, File) {
			err = s.adopt(ctx, order{ref: r, want: w}, digest, target, Config{})
		}
		return pointer{Head: digest, Digest: digest}, err
	})
}

// built types the error of a Build.
func built(ctx context.Context, err error, r reference) error {
	if ctx.Err() != nil || verdict(err) {
		return err
	}
	return explain(err, reference{asked: r.asked, name: noName()}, "")
}

func fileDigest(path string, most int64) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("the runtime says that it has made the image, and there is none")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, most+1))
	if err == nil && n > most {
		err = errTooLarge
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), err
}
