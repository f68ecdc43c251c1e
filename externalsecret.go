package tranter

import (
	"context"
	"errors"
)

// ExternalSecret is a secret of a job that lies in a Vault or OpenBao server (runner contract, section 2.10), with the
// job's variables put in.
type ExternalSecret struct {
	Variable  string // name of the variable that gets the value
	File      bool   // it becomes a file variable
	URL       string // of the server
	Namespace string
	AuthPath  string // where the login is, such as "auth/jwt/login"
	Role      string // "": the server's default
	JWT       Secret
	Inline    bool   // the login goes with the request (OpenBao), not before it
	Engine    string // kv-v2, kv-v1 or generic
	Mount     string // of the engine
	Path      string // below Mount
	Field     string // of the data at Path
}

// ErrNoSecret means that a server has no such secret, or that it is empty.
var ErrNoSecret = errors.New("the secret does not exist or is empty")

// DependencyError is a failure of a service outside of GitLab and the runner that the job depends on. It maps to the
// failure reason runner_external_dependency_failure.
type DependencyError struct{ Err error }

func (e *DependencyError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *DependencyError) Unwrap() error { return e.Err }

// SecretReader reads the external secrets of one job.
type SecretReader interface {
	// Read returns a secret's value. The error is ErrNoSecret, a *ConfigError, a *DependencyError or a fault of ours.
	Read(ctx context.Context, s ExternalSecret) (Secret, error)
	// Close gives back what was borrowed to read.
	Close(ctx context.Context)
}
