package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// engine asks the local engine. A nil answer is not read.
func engine(method, path string, body, answer any) error {
	var content io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case []byte:
		content, kind = bytes.NewReader(b), "application/x-tar"
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequest(method, "http://engine/v1.41"+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	response, err := client().Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		var message struct{ Message string }
		_ = json.Unmarshal(data, &message)
		return fmt.Errorf("error %d: %s", response.StatusCode, message.Message)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(data, answer)
}

func client() *http.Client {
	socket := "/var/run/docker.sock"
	if path, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		socket = path
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

func imageExists(image string) error {
	return engine("GET", "/images/"+image+"/json", nil, nil)
}

// createContainer makes the machine's container. It may do what a privileged one may, save for the one capability that
// sandboxes lack.
func (d *driver) createContainer() (id string, err error) {
	config := map[string]any{
		"Hostname": d.MachineName, "Image": d.Image, "Labels": d.labels(),
		"HostConfig": map[string]any{
			"CapAdd": []string{"ALL"}, "CapDrop": []string{"SYS_RESOURCE"},
			"SecurityOpt": []string{"seccomp=unconfined", "apparmor=unconfined"},
			"Tmpfs":       map[string]string{"/run": "", "/run/lock": ""},
			"Binds":       []string{"/sys/fs/cgroup:/sys/fs/cgroup"}, "DeviceCgroupRules": []string{"a *:* rwm"},
			"MaskedPaths": []string{}, "ReadonlyPaths": []string{},
			"NetworkMode": d.Network, "NanoCpus": d.wanted.size * 1e9,
		},
	}
	if d.wanted.command != "" {
		config["Entrypoint"], config["Cmd"] = []string{"/bin/sh", "-c"}, []string{d.wanted.command}
	}
	var made struct{ ID string }
	if err := engine("POST", "/containers/create?name="+url.QueryEscape(d.MachineName), config, &made); err != nil {
		return "", err
	}
	return made.ID, nil
}

// container is what of one is of interest.
type container struct {
	State           struct{ Status string }
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

func inspect(id string) (container, error) {
	var c container
	err := engine("GET", "/containers/"+id+"/json", nil, &c)
	return c, err
}

func addressOf(id string) (string, error) {
	c, err := inspect(id)
	if err != nil {
		return "", err
	}
	for _, n := range c.NetworkSettings.Networks {
		if n.IPAddress != "" {
			return n.IPAddress, nil
		}
	}
	return "", errors.New("the machine has no address")
}

// putFiles writes files into a container, readable for root only.
func putFiles(id string, files map[string][]byte) error {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "root/.ssh/", Mode: 0o700}); err != nil {
		return err
	}
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return engine("PUT", "/containers/"+id+"/archive?path=/", buffer.Bytes(), nil)
}

// execute has a container run a command, and does not wait for its end.
func execute(id, command string) error {
	var made struct{ ID string }
	if err := engine("POST", "/containers/"+id+"/exec", map[string]any{"Cmd": []string{"/bin/sh", "-c", command}}, &made); err != nil {
		return err
	}
	return engine("POST", "/exec/"+made.ID+"/start", map[string]any{"Detach": true}, nil)
}
