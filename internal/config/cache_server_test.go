package config_test

import (
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
)

func TestCacheServer(t *testing.T) {
	c, problems := config.Parse(config.Source{Name: "c", Data: []byte("[cache_server]\n")})
	if len(problems) > 0 || c.CacheServer.MaxSizeMiB != 10240 || c.CacheServer.ListenAddress != "" {
		t.Errorf("%+v %v", c.CacheServer, problems)
	}
	for text, want := range map[string]string{
		`directory = "cache"`:                           "not an absolute path",
		`tls_cert_file = "/a.crt"`:                      "cache_server.tls_key_file: is missing",
		`tls_key_file = "/a.key"`:                       "cache_server.tls_cert_file: is missing",
		`url = "ci-host:9253"`:                          "no address of HTTP",
		`listen_address = "http://ci-host:9253"`:        "not of the form host:port",
		`listen_address = "ci-host"`:                    "not of the form host:port",
		`max_size_mib = -1`:                             "max_size_mib",
		"tls_cert_file = \"/a\"\ntls_key_file = \"/b\"": "",
		`listen_address = ":9253"`:                      "",
	} {
		_, problems := config.Parse(config.Source{Name: "c", Data: []byte("[cache_server]\n" + text + "\n")})
		var said []string
		for _, p := range problems {
			said = append(said, p.String())
		}
		if all := strings.Join(said, "\n"); want == "" && all != "" || !strings.Contains(all, want) {
			t.Errorf("%s: %q", text, all)
		}
	}
}
