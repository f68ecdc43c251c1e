package container

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// imageName is the name of the images that BuildImage makes; the tag says what is in them.
const imageName = "tranter-machine"

// labelImage is on these images.
const labelImage = "io.tranter.machine.image"

// imageRecipe is what an image has besides its files. It is part of the tag.
func imageRecipe() []string {
	return []string{
		`CMD ["/sbin/init"]`,
		"VOLUME /var/lib/docker", // overlay2 cannot sit on overlay
		"EXPOSE 22",
		"LABEL " + labelImage + "=1",
	}
}

// BuildImage makes the image of a machine from programs of this machine, in the engine behind api, and returns its name:
// a Docker Engine, an SSH server, and an init that keeps both up (docker-machine, section 5.1). Where the engine has it
// already, nothing is made. The error is a *MissingError when a program is not there.
//
// Who starts a container of it puts public keys into the variable TRANTER_AUTHORIZED_KEYS, and gives it the rights that
// Privileges returns. A file /etc/tranter-user-data in it is executed at each start. With the variable TRANTER_ENGINE=off it
// has no engine running.
func BuildImage(ctx context.Context, api *client.Client) (ref string, err error) {
	files, err := machineFiles()
	if err != nil {
		return "", err
	}
	tag, err := contentHash(files)
	if err != nil {
		return "", fmt.Errorf("read the programs for the image of machines: %w", err)
	}
	ref = imageName + ":" + tag
	if _, err = api.ImageInspect(ctx, ref); err == nil {
		return ref, nil
	}
	if !engine.Missing(err) {
		return "", fmt.Errorf("look for the image %s: %w", ref, engine.Explain(err))
	}
	if err := importImage(ctx, api, ref, files); err != nil {
		return "", fmt.Errorf("import the image %s: %w", ref, engine.Explain(err))
	}
	return ref, nil
}

func importImage(ctx context.Context, api *client.Client, ref string, files []file) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait: it ends a request that is half sent
	from, to := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := writeTar(to, files)
		to.CloseWithError(err)
		written <- err
	}()
	answer, err := api.ImageImport(ctx, client.ImageImportSource{Source: from, SourceName: "-"}, ref, client.ImageImportOptions{Changes: imageRecipe()})
	if err == nil {
		err = imported(answer)
	}
	_ = from.CloseWithError(err)
	if sent := <-written; err == nil || errors.Is(err, context.Canceled) && sent != nil {
		return errors.Join(sent, err)
	}
	return err
}

// imported reads what the engine says while it imports an image.
func imported(answer io.ReadCloser) error {
	const limit = 1 << 20
	defer func() { _ = answer.Close() }()
	said := json.NewDecoder(io.LimitReader(answer, limit))
	for {
		var line struct {
			Error string `json:"error"`
		}
		err := said.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's answer: %w", err)
		case line.Error != "":
			return errors.New(line.Error)
		}
	}
}

// file is a file of the image. A name that ends in a slash is a directory.
type file struct {
	name string
	mode int64
	link string // a symbolic link to this
	data []byte
	from string // it is read from this path of the machine instead
	size int64  // with from
}

func (f file) header() *tar.Header {
	h := &tar.Header{Name: f.name, Mode: f.mode, Typeflag: tar.TypeReg, Size: int64(len(f.data)), Format: tar.FormatPAX}
	switch {
	case f.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
	case f.name[len(f.name)-1] == '/':
		h.Typeflag = tar.TypeDir
	case f.from != "":
		h.Size = f.size
	}
	return h
}

// content copies what is in the file.
func (f file) content(to io.Writer) error {
	if f.from == "" {
		_, err := to.Write(f.data)
		return err
	}
	source, err := os.Open(f.from)
	if err != nil {
		return err
	}
	defer source.Close()
	n, err := io.Copy(to, io.LimitReader(source, f.size))
	if err == nil && n < f.size {
		err = fmt.Errorf("%s has become shorter", f.from)
	}
	return err
}

// contentHash names what is in an image of the files: 12 hexadecimal digits.
func contentHash(files []file) (string, error) {
	h := sha256.New()
	for _, f := range files {
		head := f.header()
		fmt.Fprintln(h, head.Name, head.Mode, head.Typeflag, head.Linkname, head.Size)
		if err := f.content(h); err != nil {
			return "", err
		}
	}
	fmt.Fprintln(h, imageRecipe())
	const digits = 12
	return hex.EncodeToString(h.Sum(nil))[:digits], nil
}

// writeTar writes the files of an image. The same files always make the same tarball.
func writeTar(to io.Writer, files []file) error {
	w := tar.NewWriter(to)
	for _, f := range files {
		if err := w.WriteHeader(f.header()); err != nil {
			return err
		}
		if err := f.content(w); err != nil {
			return err
		}
	}
	return w.Close()
}
