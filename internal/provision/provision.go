// Package provision makes a machine that was created ready for jobs, over SSH and without help on its side: it waits for
// the login, pins the host key, sees to a container engine, and keeps a connection to it. It also has the machine end
// itself when nobody looks after it any more.
package provision

import "time"

// Settings say what is wanted of a machine. Files named here are read when a machine is prepared, so that a change
// holds for the next.
type Settings struct {
	Owner  string // as in tranter.Mark: a machine that another owner holds is refused
	Login  LoginSettings
	Engine EngineSettings
	Proxy  ProxySettings

	Before string        // script, run as root (with sudo if the login is not) before the engine is looked for; the script itself
	After  string        // the same, once the engine answers
	Ready  string        // command that must succeed before the first job; it is tried again until BootTime is over
	GPU    string        // command that proves the devices, such as nvidia-smi; a failure is final; empty: none
	Linger time.Duration // after which the machine ends itself unless Host.Check has put that off; 0: never
}

// LoginSettings change how machines are logged in to.
type LoginSettings struct {
	User     string // in place of the provider's
	Port     int
	Identity string // file with a private key, in place of the provider's
	Jump     string // ssh://[user@]host[:port] of a machine to go through; empty: none. ~/.ssh/config holds for it
}

// EngineSettings say which engine is wanted and how it is reached.
type EngineSettings struct {
	TLS           bool          // reach it at port 2376 with certificates that are made for the machine; otherwise through SSH
	Port          int           // with TLS; 0: 2376
	Socket        string        // empty: /var/run/docker.sock
	Install       bool          // where there is none
	InstallURL    string        // of a script that installs it; empty: the distribution's packages
	CertLife      time.Duration // with TLS; 0: 30 days
	ExtraNames    []string      // further names in the engine's certificate (tls-san)
	Mirrors       []string
	Insecure      []string // registries
	StorageDriver string
	Labels        []string // KEY=VALUE
	Options       []string // KEY=VALUE or KEY, of dockerd, without dashes (engine-opt)
	Environment   []string // KEY=VALUE, of dockerd (engine-env)
}

// ProxySettings are how a machine reaches the internet.
type ProxySettings struct{ HTTP, HTTPS, No string }
