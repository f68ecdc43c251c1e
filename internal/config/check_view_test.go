package config_test

import (
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
)

// viewRunner is a runner whose name prices can be for.
const viewRunner = "\n[[runners]]\nname = \"big\"\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-abcdefghijklmnopqrst\"\nexecutor = \"shell\"\n"

func TestSectionsOfWhatIsVisible(t *testing.T) {
	for text, want := range map[string]string{
		"[web]\ntoken = \"a\"\ntoken_file = \"/t\"":                                                   "c:3:1: error: web.token_file: is given together with token",
		"[web]\nread_token = \"a\"\nread_token_file = \"/t\"":                                         "c:3:1: error: web.read_token_file: is given together with read_token",
		"[web]\ncert_file = \"/a\"":                                                                   "web.key_file: is missing",
		"[web]\nkey_file = \"/a\"":                                                                    "web.cert_file: is missing",
		"[web]\naddress = \"http://127.0.0.1:9253\"":                                                  "c:2:1: error: web.address: is an address with a scheme",
		"[web]\naddress = \"9253\"":                                                                   "not of the form host:port",
		"[web]\naddress = \"127.0.0.1:http\"":                                                         "has the port \"http\"",
		"[web]\naddress = \"127.0.0.1:99999\"":                                                        "has the port \"99999\"",
		"[web]\naddress = \"a b:80\"":                                                                 "has a space in its host",
		"[web]\naddress = \"0.0.0.0:9253\"\ncert_file = \"/a\"\nkey_file = \"/b\"":                    "c:2:1: warning: web.address: is reached from other hosts, and there is no read_token",
		"[web]\naddress = \"ci.example.com:80\"\nread_token_file = \"/r\"":                            "without TLS",
		"[web]\naddress = \"10.0.0.1:80\"\nread_token = \"r\"\ncert_file = \"/a\"\nkey_file = \"/b\"": "",
		"[web]\naddress = \":9253\"":                                                                  "",
		"[web]\naddress = \"localhost:9253\"":                                                         "",
		"[web]\naddress = \"[::1]:9253\"":                                                             "",
		"[history]\nkeep_jobs = \"24h\"\nkeep_logs = \"48h\"":                                         "c:3:1: warning: history.keep_logs: is longer than keep_jobs",
		"[history]\nkeep_jobs = \"10m\"\nkeep_logs = \"0s\"":                                          "less than an hour",
		"[history]\nkeep_jobs = \"0s\"\nkeep_logs = \"9999h\"":                                        "",
		"[history]\nkeep_events = \"-1h\"":                                                            "keep_events",
		"[history]\nmax_logs_mib = -1":                                                                "max_logs_mib",
		"[cost]\ncurrency = \"Euros and more\"":                                                       "c:2:1: error: cost.currency: is not the name",
		"[cost]\ncurrency = \"€\"":                                                                    "",
		"[[cost.price]]\nper_hour = -1.0":                                                             "cost.price.per_hour",
		"[[cost.price]]\nper_hour = inf":                                                              "per_hour",
		"[[cost.price]]\nper_hour = 1.0\nper_second = 1.0":                                            "c:3:1: error: cost.price.per_second: is given together",
		"[[cost.price]]\nrunner = \"big\"":                                                            "the entry has no effect",
		"[[cost.price]]\ncpu_hour = 1.0\nstep = \"1m\"":                                               "for machines only",
		"[[cost.price]]\nper_hour = 1.0\nminimum = \"25h\"":                                           "c:3:1: error: cost.price.minimum: is more than 24h",
		"[[cost.price]]\nper_hour = 1\nrunner = \"small\"" + viewRunner:                               "c:3:1: warning: cost.price.runner: no runner is called \"small\"",
		"[[cost.price]]\nper_hour = 1\nrunner = \"bi?\"" + viewRunner:                                 "",
		"[[cost.price]]\nper_hour = 1\nrunner = \"big\"" + viewRunner:                                 "",
		"[[cost.price]]\nper_hour = 1\n[[cost.price]]\nper_second = -2.0":                             "c:4:",
		"[[cost.factor]]\nrunner = \"small\"" + viewRunner:                                            "cost.factor.runner: no runner",
		"[[cost.factor]]\nvisibility = \"secret\"":                                                    "cost.factor.visibility",
		"[[cost.factor]]\nfactor = 1e9":                                                               "not a sensible number",
		"[tracing]\nendpoint = \"collector:4318\"":                                                    "c:2:1: error: tracing.endpoint: is no address of HTTP",
		"[tracing]\nendpoint = \"http://me:pw@collector:4318\"":                                       "holds a password",
		"[tracing]\nendpoint = \"https://collector/v1\"\nsample = 0.5":                                "",
		"[tracing]\nsample = 1.5":                                                                     "c:2:1: error: tracing.sample: is more than 1",
		"[tracing]\nsample = -0.5":                                                                    "tracing.sample",
		"[tracing.headers]\n\"a b\" = \"x\"":                                                          "is no name of a header",
	} {
		_, problems := config.Parse(config.Source{Name: "c", Data: []byte(text + "\n"), ReadFile: func(string) ([]byte, error) { return []byte("t"), nil }})
		var said []string
		for _, p := range problems {
			said = append(said, p.String())
		}
		all := strings.Join(said, "\n")
		if want == "" && all != "" || !strings.Contains(all, want) {
			t.Errorf("%s: %q", text, all)
		}
		if strings.Contains(all, "me:pw") {
			t.Errorf("%s: the password is told: %q", text, all)
		}
	}
}
