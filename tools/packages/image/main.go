// Command image writes a container image without an engine or a base image, in the format that "docker load",
// "podman load" and "skopeo copy docker-archive:" read. In it are the program, certificate authorities and time zones: a manager of
// containers and machines needs no more, as git and shells are in the jobs' environments. The same input gives the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

type entry struct {
	name string
	mode int64
	dir  bool
	data []byte
}

func main() {
	var o options
	flag.StringVar(&o.program, "program", "", "path of tranter for Linux")
	flag.StringVar(&o.arch, "arch", "amd64", "processor that it is for")
	flag.StringVar(&o.version, "version", "dev", "version, for labels and tag")
	flag.StringVar(&o.revision, "revision", "", "commit, for a label")
	flag.StringVar(&o.name, "name", "tranter", "name of the image")
	flag.StringVar(&o.authorities, "ca", "/etc/ssl/certs/ca-certificates.crt", "certificate authorities, PEM")
	flag.StringVar(&o.zones, "zones", "", "time zones: lib/time/zoneinfo.zip of Go")
	flag.StringVar(&o.out, "out", "", "file to write")
	flag.Int64Var(&o.time, "time", 0, "time of the build, seconds since 1970")
	flag.Parse()
	if err := o.write(); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

type options struct {
	program, arch, version, revision, name, authorities, zones, out string
	time                                                            int64
}

func (o options) write() error {
	if o.program == "" || o.zones == "" || o.out == "" {
		return errors.New("-program, -zones and -out are needed")
	}
	layer, err := o.layer()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(o.config("sha256:" + hex.EncodeToString(sum[:])))
	if err != nil {
		return err
	}
	id := sha256.Sum256(config)
	configName, layerName := hex.EncodeToString(id[:])+".json", hex.EncodeToString(sum[:])+"/layer.tar"
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{o.name + ":" + o.version, o.name + ":latest"}, "Layers": []string{layerName},
	}})
	if err != nil {
		return err
	}
	archive, err := o.tar([]entry{
		{name: configName, mode: 0o644, data: config},
		{name: hex.EncodeToString(sum[:]) + "/", mode: 0o755, dir: true},
		{name: layerName, mode: 0o644, data: layer},
		{name: "manifest.json", mode: 0o644, data: manifest},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(o.out, archive, 0o644)
}

func (o options) layer() ([]byte, error) {
	files := map[string]string{"program": o.program, "authorities": o.authorities, "zones": o.zones}
	data := map[string][]byte{}
	for what, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the %s: %w", what, err)
		}
		data[what] = b
	}
	dir := func(name string, mode int64) entry { return entry{name: name + "/", mode: mode, dir: true} }
	return o.tar([]entry{
		dir("etc", 0o755),
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\nnobody:x:65534:\n")},
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n")},
		dir("etc/ssl", 0o755), dir("etc/ssl/certs", 0o755),
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, data: data["authorities"]},
		dir("etc/tranter", 0o700),
		dir("root", 0o700),
		dir("tmp", 0o1777),
		dir("usr", 0o755), dir("usr/bin", 0o755),
		{name: "usr/bin/tranter", mode: 0o755, data: data["program"]},
		dir("usr/share", 0o755),
		{name: "usr/share/zoneinfo.zip", mode: 0o644, data: data["zones"]},
		dir("var", 0o755), dir("var/lib", 0o755), dir("var/lib/tranter", 0o711),
	})
}

func (o options) config(layer string) map[string]any {
	at := time.Unix(o.time, 0).UTC().Format(time.RFC3339)
	return map[string]any{
		"architecture": o.arch, "os": "linux", "created": at,
		"config": map[string]any{
			"Entrypoint": []string{"/usr/bin/tranter"}, "Cmd": []string{"up"}, "WorkingDir": "/var/lib/tranter",
			"Env":     []string{"PATH=/usr/bin", "ZONEINFO=/usr/share/zoneinfo.zip"},
			"Volumes": map[string]any{"/var/lib/tranter": map[string]any{}},
			"Labels": map[string]string{
				"org.opencontainers.image.title": "tranter", "org.opencontainers.image.version": o.version,
				"org.opencontainers.image.revision": o.revision, "org.opencontainers.image.created": at,
				"org.opencontainers.image.licenses": "MIT",
			},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{layer}},
		"history": []map[string]any{{"created": at, "created_by": "tools/packages/image"}},
	}
}

func (o options) tar(entries []entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), ModTime: time.Unix(o.time, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if e.dir {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
