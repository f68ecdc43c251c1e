package builtin

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// ServeHTTP answers a request that is signed.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, err := s.sign.check(r, time.Now())
	if err != nil {
		refuse(w, http.StatusForbidden, "AccessDenied")
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // that of a request before on the connection
	switch t.deed {
	case get:
		s.download(w, r, t)
	case put:
		s.uploadWhole(w, r, t)
	case putPart:
		s.uploadPart(w, r, t)
	case complete:
		s.completeUpload(w, r, t)
	case abort:
		s.abortUpload(w, r, t)
	default:
		refuse(w, http.StatusForbidden, "AccessDenied")
	}
}

// refuse answers with an error in the form of S3.
func refuse(w http.ResponseWriter, code int, name string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", name)
}

// fail answers for a fault of ours, and logs it.
func (s *Store) fail(w http.ResponseWriter, t ticket, err error) {
	if l := (lost{}); errors.As(err, &l) {
		s.log.Debug("An upload to the built-in cache broke off", "archive", t.object, "error", err)
		refuse(w, http.StatusBadRequest, "IncompleteBody")
		return
	}
	if errors.Is(err, errDropped) {
		s.log.Debug("A part came for an upload to the built-in cache that is over", "archive", t.object)
		refuse(w, http.StatusNotFound, "NoSuchUpload")
		return
	}
	s.log.Warn("An archive could not be stored in the built-in cache", "archive", t.object, "error", err)
	if errors.Is(err, errFull) {
		refuse(w, http.StatusInsufficientStorage, "CacheFull")
		return
	}
	refuse(w, http.StatusInternalServerError, "InternalError")
}
