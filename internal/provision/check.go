package provision

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/tranter-ci/tranter"
)

// Check says what is wrong with the settings; nothing is asked of a machine. The error is a *tranter.ConfigError.
func (s Settings) Check() error {
	var errs []error
	fault := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(strings.ContainsFunc(s.Owner, notPlain), "the owner %q has characters other than letters and digits", s.Owner)
	fault(s.Linger < 0, "the time after which a machine ends itself must not be negative")
	for _, text := range []struct{ what, text string }{
		{"before", s.Before}, {"after", s.After}, {"ready_command", s.Ready}, {"gpu_check", s.GPU},
	} {
		fault(strings.ContainsRune(text.text, 0), "%s contains a NUL", text.what)
		fault(len(text.text) > maxScript, "%s has more than %d KiB", text.what, maxScript>>10)
	}
	for what, text := range map[string]string{
		"login.user": s.Login.User, "login.identity_file": s.Login.Identity, "login.jump": s.Login.Jump, "engine.socket": s.Engine.Socket,
		"engine.storage_driver": s.Engine.StorageDriver, "provision.http_proxy": s.Proxy.HTTP, "provision.https_proxy": s.Proxy.HTTPS, "provision.no_proxy": s.Proxy.No,
	} {
		fault(strings.ContainsFunc(text, unicode.IsControl), "%s contains control characters", what)
	}
	fault(s.Login.Port < 0 || s.Login.Port > maxPort, "login.port must be at most %d", maxPort)
	errs = append(errs, s.Engine.check()...)
	if len(errs) == 0 {
		return nil
	}
	return &tranter.ConfigError{Err: fmt.Errorf("settings of machines: %w", errors.Join(errs...))}
}

// maxScript bounds what a user may have a machine run: it is sent to each.
const maxScript = 1 << 20

const maxPort = 1<<16 - 1

func notPlain(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

func (e EngineSettings) check() []error {
	var errs []error
	fault := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(e.Port < 0 || e.Port > maxPort, "the engine's port must be at most %d", maxPort)
	fault(e.Socket != "" && !strings.HasPrefix(e.Socket, "/"), "engine.socket must be an absolute path, not %q", e.Socket)
	fault(e.InstallURL != "" && !isWeb(e.InstallURL), "engine.install_url must be an http or https address")
	fault(e.CertLife < 0, "engine.certificate_life must not be negative")
	for what, list := range map[string][]string{
		"certificate_names": e.ExtraNames, "registry_mirrors": e.Mirrors, "insecure_registries": e.Insecure,
		"labels": e.Labels, "options": e.Options, "environment": e.Environment,
	} {
		wrong := func(text string) bool { return text == "" || strings.ContainsFunc(text, unicode.IsControl) }
		fault(slices.ContainsFunc(list, wrong), "engine.%s has an entry that is empty or contains control characters", what)
	}
	for _, label := range e.Labels {
		name, _, found := strings.Cut(label, "=")
		fault(!found || name == "", "engine.labels has %q, which is not KEY=VALUE", label)
	}
	for _, variable := range e.Environment {
		name, _, found := strings.Cut(variable, "=")
		fault(!found || !isName(name), "engine.environment has %q, which is not the name of a variable; it must be NAME=VALUE", name)
	}
	if _, err := e.daemon(); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func isWeb(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// isName says whether a text is the name of a variable of a shell.
func isName(text string) bool {
	if text == "" || text[0] >= '0' && text[0] <= '9' {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return r != '_' && notPlain(r) })
}
