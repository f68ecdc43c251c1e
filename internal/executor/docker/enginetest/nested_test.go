package enginetest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

func TestAnEngineRunsInsideAContainer(t *testing.T) {
	for _, c := range []struct{ name, certificates, port string }{{"open", "", "2375"}, {"TLS", "/certs", "2376"}} {
		t.Run(c.name, func(t *testing.T) {
			api := Client(t, Host(t))
			host, dir := Nested(), t.TempDir()
			host.Binds = append(host.Binds, dir+":/certs")
			began := time.Now()
			id := start(t, api, &container.Config{Image: Image(t, "dind"), Env: []string{"DOCKER_TLS_CERTDIR=" + c.certificates}}, host)
			found, err := api.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			address := "tcp://" + found.Container.NetworkSettings.Networks["bridge"].IPAddress.String() + ":" + c.port
			inner := nestedClient(t, address, dir, c.certificates != "", func() string { return logs(t, api, id) })
			t.Logf("answers after %v", time.Since(began))
			reference := loadInto(t, inner, "busybox")
			if got, code := run(t, inner, &container.Config{Image: reference, Cmd: []string{"echo", "inside"}}); got != "inside\n" || code != 0 {
				t.Errorf("%q, exit code %d", got, code)
			}
		})
	}
}

// nestedClient returns a client of the engine at address once that answers.
func nestedClient(t *testing.T, address, dir string, tls bool, said func() string) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		options := []client.Opt{client.WithHost(address)}
		if tls {
			file := func(name string) string { return filepath.Join(dir, "client", name) }
			options = append(options, client.WithTLSClientConfig(file("ca.pem"), file("cert.pem"), file("key.pem")))
		}
		api, err := client.New(options...)
		if err == nil {
			_, err = api.Ping(ctx, client.PingOptions{})
		}
		if err == nil {
			t.Cleanup(func() { _ = api.Close() })
			return api
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v\n%s", address, err, said())
		case <-tick.C:
		}
	}
}
