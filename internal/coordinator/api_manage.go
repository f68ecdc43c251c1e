package coordinator

import (
	"io"
	"net/http"
)

// manageAPI is a stub until its routes are written.
type manageAPI struct{ c *Coordinator }

func (a *manageAPI) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "") })
}
