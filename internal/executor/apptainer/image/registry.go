package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	askTimeout = time.Minute     // for one question to a registry
	stallAfter = 2 * time.Minute // without a byte of a download
	mostConfig = 4 << 20         // bytes of an image's configuration
	mostLayers = 1000
)

// carrier is how registries are reached: by the proxy that the environment names, and by plain HTTP only where that is
// allowed or does not leave this machine.
type carrier struct {
	*http.Transport
	insecure []string
}

func newCarrier(insecure []string) *carrier {
	return &carrier{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 20 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: askTimeout,
		IdleConnTimeout:       20 * time.Second,
		MaxIdleConnsPerHost:   4,
	}, insecure: insecure}
}

// RoundTrip sends a request.
func (t *carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !contains(t.insecure, r.URL.Host) && !loopback(r.URL.Hostname()) {
		return nil, fmt.Errorf("%s: %w", r.URL.Host, errPlainHTTP)
	}
	return t.Transport.RoundTrip(r)
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// source asks one registry about one image.
type source struct {
	ref      reference
	puller   *remote.Puller
	platform v1.Platform
	chosen   bool // the platform was asked for
	login    string
}

// source prepares the questions. Nothing is asked yet.
func (s *Store) source(r reference, w Want) (*source, error) {
	platform, err := parsePlatform(w.Platform)
	if err != nil {
		return nil, err
	}
	src := &source{ref: r, platform: platform, chosen: w.Platform != ""}
	auth := authn.Anonymous
	if w.Login != nil {
		if user, password, ok := w.Login(r.server()); ok {
			src.login = user
			auth = &authn.Basic{Username: user, Password: password}
		}
	}
	src.puller, err = remote.NewPuller(remote.WithAuth(auth), remote.WithTransport(s.transport), remote.WithPlatform(platform), remote.WithUserAgent("tranter"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.2, Steps: 3}))
	return src, err
}

func parsePlatform(text string) (v1.Platform, error) {
	if text == "" {
		return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	p, err := v1.ParsePlatform(text)
	if err != nil || p.OS == "" || p.Architecture == "" {
		return v1.Platform{}, configError("%q is not a platform: write OS/ARCHITECTURE such as linux/arm64", shorten(text, 100))
	}
	return *p, nil
}

// head returns the digest that the name stands for now.
func (src *source) head(ctx context.Context) (string, error) {
	ctx, stop := context.WithTimeout(ctx, askTimeout)
	defer stop()
	d, err := src.puller.Head(ctx, src.ref.name)
	if err != nil {
		return "", explain(err, src.ref, src.login)
	}
	return d.Digest.String(), nil
}

// image returns the image for the platform behind a digest.
func (src *source) image(ctx context.Context, digest string) (v1.Image, error) {
	asked, stop := context.WithTimeout(ctx, askTimeout)
	defer stop()
	d, err := src.puller.Get(asked, src.ref.name.Context().Digest(digest))
	if err != nil {
		return nil, explain(err, src.ref, src.login)
	}
	img, err := d.Image()
	if err == nil {
		err = loaded(img)
	}
	if err != nil && d.MediaType.IsIndex() && !isAnswer(err) {
		return nil, configError("image %s: it does not exist for the platform %s. Name an image that is built for it (%s)", src.ref.asked, src.platform, shorten(err.Error(), 300))
	}
	return img, explain(err, src.ref, src.login)
}

// loaded reads manifest and configuration while the question's context holds.
func loaded(img v1.Image) error {
	m, err := img.Manifest()
	if err != nil || m.Config.Size > mostConfig {
		return err // the latter is found again
	}
	_, err = img.RawConfigFile()
	return err
}

func isAnswer(err error) bool {
	var n net.Error
	return errors.As(err, &n) || answered(err, reference{}, "") != nil
}

// watched ends a download from which nothing comes any more.
type watched struct {
	io.Reader
	last *atomic.Int64
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.last.Store(time.Now().UnixNano())
	}
	return n, err
}

// blob makes sure that a layer is in the cache, and returns where.
func (s *Store) blob(ctx context.Context, src *source, layer v1.Descriptor) (string, error) {
	if layer.Digest.Algorithm != "sha256" || len(layer.Digest.Hex) != 64 {
		return "", configError("image %s: a layer has a digest that is not of SHA-256", src.ref.asked)
	}
	path := filepath.Join(s.blobs, layer.Digest.Hex)
	if s.hasBlob(path, layer.Size) {
		return path, nil
	}
	ctx, lock, err := s.locks.take(ctx, "blob-"+layer.Digest.Hex, nil)
	if err != nil {
		return "", err
	}
	defer lock.release()
	if s.hasBlob(path, layer.Size) {
		return path, nil
	}
	select {
	case s.downloads <- struct{}{}:
		defer func() { <-s.downloads }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	return path, s.downloadTries(ctx, src, layer, path)
}

// downloadTries begins a download anew that was cut off.
func (s *Store) downloadTries(ctx context.Context, src *source, layer v1.Descriptor, path string) error {
	for try := 1; ; try++ {
		err := s.download(ctx, src, layer, path)
		if err == nil || try == 3 || ctx.Err() != nil || isAnswer(err) && !timeout(err) {
			return err
		}
		s.log.Warn("a layer is downloaded again", "image", src.ref.asked, "try", try, "error", shorten(err.Error(), 300))
	}
}

// hasBlob says whether a layer is there, and that it was used now.
func (s *ground) hasBlob(path string, size int64) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // of another user it can't be, and is only counted as older
	return true
}

// stalled ends a download when nothing has come for long.
func stalled(ctx context.Context, last *atomic.Int64, stop context.CancelCauseFunc) {
	tick := time.NewTicker(stallAfter / 20)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if now.Sub(time.Unix(0, last.Load())) > stallAfter {
				stop(errStalled)
				return
			}
		}
	}
}

// download fetches a layer from its beginning, and lets it be seen only when it is whole and what its digest says.
func (s *Store) download(ctx context.Context, src *source, layer v1.Descriptor, path string) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	l, err := src.puller.Layer(ctx, src.ref.name.Context().Digest(layer.Digest.String()))
	if err != nil {
		return err
	}
	in, err := l.Compressed()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(s.stage, "blob-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) //nolint:errcheck // as a rule it has been moved
	defer out.Close()
	last := &atomic.Int64{}
	last.Store(time.Now().UnixNano())
	var watch sync.WaitGroup
	watch.Go(func() { stalled(ctx, last, stop) })
	defer watch.Wait()
	defer stop(nil)
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(watched{in, last}, layer.Size+1))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case n != layer.Size || hex.EncodeToString(sum.Sum(nil)) != layer.Digest.Hex:
		return fmt.Errorf("what the registry sent is not the layer %s: %w", layer.Digest, io.ErrUnexpectedEOF)
	}
	if err := errors.Join(out.Chmod(s.fileMode()), out.Sync(), out.Close()); err != nil {
		return err
	}
	return move(out.Name(), path)
}
