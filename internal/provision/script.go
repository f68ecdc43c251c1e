package provision

import (
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

//go:embed script/deadline.sh
var deadlineScript string

//go:embed script/watch.sh
var watchScript string

//go:embed script/prepare.sh
var prepareScript string

//go:embed script/push.sh
var pushScript string

// asRoot returns what is run on a machine: a shell of root's that reads a script of so many bytes from standard input, where
// no other user can see it, all at once, and leaves the rest to the script. The login's own shell may be of any kind.
func asRoot(size int) string {
	return strings.ReplaceAll(`exec sh -c 'if [ "$(id -u)" = 0 ]; then eval "$(head -c SIZE)"; exit; fi; `+
		`if command -v sudo >/dev/null 2>&1; then exec sudo -n sh -c "eval \"\$(head -c SIZE)\""; fi; `+
		`if command -v doas >/dev/null 2>&1; then exec doas -n sh -c "eval \"\$(head -c SIZE)\""; fi; `+
		`echo "there is neither sudo nor doas" >&2; exit 126'`, "SIZE", strconv.Itoa(size))
}

const (
	stateDir    = "/run/tranter"
	usualSocket = "/var/run/docker.sock"
	usualPort   = 2376
	// usualHold is how long a machine that never ends itself is its owner's after a sign of life.
	usualHold = 15 * time.Minute
)

// variables are what a script begins with. Nothing is run before it has arrived whole.
type variables struct{ text strings.Builder }

func (v *variables) set(name, value string) {
	fmt.Fprintf(&v.text, "%s=%s\n", name, shellQuote(value))
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func newMarker() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// holding are the variables of deadline.sh.
func (s Settings) holding(v *variables, marker string) {
	hold := usualHold
	if s.Linger > 0 {
		hold = s.Linger
	}
	v.set("state", stateDir)
	v.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	v.set("LC_ALL", "C")
	v.text.WriteString("export PATH LC_ALL\n")
	v.set("M", marker)
	v.set("OWNER", s.Owner)
	v.set("HOLD", seconds(hold))
	v.set("LINGER", seconds(s.Linger))
	v.set("WATCH", strings.TrimSuffix(watchScript, "\n"))
}

// seconds rounds up, so that nothing becomes never.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// pushing returns the script that puts a machine's end off.
func (s Settings) pushing(marker string) string {
	v := &variables{}
	s.holding(v, marker)
	return v.text.String() + deadlineScript + pushScript
}

// preparing returns the script that makes a machine ready.
func (s Settings) preparing(j *work) (string, error) {
	v := &variables{}
	s.holding(v, j.marker)
	v.set("NAME", j.name)
	v.set("LOGIN", j.login)
	v.set("SOCKET", s.Engine.socket())
	v.set("INSTALL", flag(s.Engine.Install))
	v.set("INSTALL_URL", s.Engine.InstallURL)
	v.set("TLS", flag(s.Engine.TLS))
	v.set("PORT", strconv.Itoa(s.Engine.port()))
	v.set("CA", "")
	if j.credentials != nil {
		v.set("CA", strings.TrimSpace(j.credentials.Authority))
	}
	v.set("CERT", strings.TrimSpace(j.server.certificate))
	v.set("KEY", strings.TrimSpace(j.server.key))
	for name, init := range map[string]string{"DAEMON": systemd, "DAEMON_HOSTS": ""} {
		wanted, err := s.Engine.wanted(init)
		if err != nil {
			return "", err
		}
		text, err := render(wanted)
		if err != nil {
			return "", err
		}
		v.set(name, text)
	}
	environment := append(s.Proxy.environment(), s.Engine.Environment...)
	v.set("ENVIRONMENT", unitEnvironment(environment))
	v.set("EXPORTS", exports(environment))
	v.set("PROXIES", exports(s.Proxy.environment()))
	v.set("BEFORE", s.Before)
	v.set("AFTER", s.After)
	v.set("READY", s.Ready)
	v.set("GPU", s.GPU)
	return v.text.String() + deadlineScript + prepareScript, nil
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func (e EngineSettings) socket() string {
	if e.Socket == "" {
		return usualSocket
	}
	return e.Socket
}

func (e EngineSettings) port() int {
	if e.Port == 0 {
		return usualPort
	}
	return e.Port
}

// systemd is the name of the init whose unit has the engine's address in its command line.
const systemd = "systemd"

// wanted returns what is to be in daemon.json under an init.
func (e EngineSettings) wanted(init string) (map[string]any, error) {
	d, err := e.daemon()
	if err == nil && e.TLS && init != systemd {
		d = listen(d, e.socket(), e.port())
	}
	return d, err
}

// environment returns the variables by which programs find a proxy, in both spellings.
func (p ProxySettings) environment() []string {
	var all []string
	for _, v := range []struct{ name, value string }{{"http_proxy", p.HTTP}, {"https_proxy", p.HTTPS}, {"no_proxy", p.No}} {
		if v.value != "" {
			all = append(all, v.name+"="+v.value, strings.ToUpper(v.name)+"="+v.value)
		}
	}
	return all
}

// exports returns lines of a shell that set variables.
func exports(environment []string) string {
	lines := make([]string, 0, len(environment))
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		lines = append(lines, "export "+name+"="+shellQuote(value))
	}
	return strings.Join(lines, "\n")
}

// unitEnvironment returns lines of a unit of systemd that set variables.
func unitEnvironment(environment []string) string {
	lines := make([]string, 0, len(environment))
	for _, variable := range environment {
		lines = append(lines, `Environment="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(variable)+`"`)
	}
	return strings.Join(lines, "\n")
}
