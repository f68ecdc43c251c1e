package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
)

// Missing says whether the engine has no such thing (404).
func Missing(err error) bool { return errdefs.IsNotFound(err) }

// Conflict says whether the thing is not in a state for that, such as a name in use (409). Podman says the latter in words only.
func Conflict(err error) bool {
	return errdefs.IsConflict(err) || errdefs.IsAlreadyExists(err) || err != nil && strings.Contains(err.Error(), "is already in use by")
}

// Invalid says whether the engine does not take the settings (400).
func Invalid(err error) bool { return errdefs.IsInvalidArgument(err) }

// Gone says whether the engine cannot be reached now, and trying again later may help: nothing listens, the socket is
// missing, the connection was lost, the name is not known to DNS, SSH has gone. A refusal for good, such as by permissions
// or TLS, is not it, nor is the end of a context.
func Gone(err error) bool {
	if dial, ok := errors.AsType[*dialError](err); ok {
		return !refusedForGood(dial.cause)
	}
	if err == nil || refusedForGood(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return errdefs.IsUnavailable(err) || brokenOff(err) || client.IsErrConnectionFailed(err)
}

// refusedForGood says whether one side does not let the other in: by permissions, certificates or keys. A machine that is
// lost does not come back either.
func refusedForGood(err error) bool {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, tranter.ErrMachineLost) {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*remote.HostKeyError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*remote.AuthError](err); ok {
		return true
	}
	_, alert := alerted(err)
	return alert
}

// alerted returns what the other side of a TLS connection said when it ended that.
func alerted(err error) (string, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" || op.Err == nil {
		return "", false
	}
	return op.Err.Error(), true
}

func brokenOff(err error) bool {
	for _, known := range []error{
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	_, network := errors.AsType[*net.OpError](err)
	return network
}
