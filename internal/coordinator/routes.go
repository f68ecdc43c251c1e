package coordinator

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
)

func (c *Coordinator) routes() http.Handler {
	mux := http.NewServeMux()
	api := http.NewServeMux()
	(&runnerAPI{c: c}).register(api)
	(&jobAPI{c: c}).register(api)
	(&manageAPI{c: c}).register(api)
	api.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusNotFound, "") })
	mux.Handle("/api/v4/", http.StripPrefix("/api/v4", api))
	mux.Handle("/", &gitHTTP{c: c})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if id == "" {
			id = randomHex(16)
		}
		w.Header().Set("X-Request-Id", id)
		mux.ServeHTTP(w, r)
	})
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// refuse sends an error in GitLab's form: {"message":"403 Forbidden - reason"}.
func refuse(w http.ResponseWriter, status int, reason string) {
	text := strconv.Itoa(status) + " " + http.StatusText(status)
	if reason != "" {
		text += " - " + reason
	}
	answer(w, status, map[string]string{"message": text})
}

// invalid answers a request with a missing or wrong parameter.
func invalid(w http.ResponseWriter, what string) {
	answer(w, http.StatusBadRequest, map[string]string{"error": what})
}

// fault answers a call that failed.
func fault(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ErrNotFound):
		refuse(w, http.StatusNotFound, "")
	case errors.Is(err, ErrNotPossible):
		refuse(w, http.StatusForbidden, err.Error())
	default:
		refuse(w, http.StatusInternalServerError, "")
	}
}

// maxBody is how much JSON a request may have.
const maxBody = 1 << 20

// decode reads a JSON or form body into v. On false it has answered.
func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == "application/x-www-form-urlencoded" || kind == "multipart/form-data" {
		return decodeForm(w, r, v)
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		refuse(w, http.StatusRequestEntityTooLarge, "")
		return false
	}
	if err != nil {
		invalid(w, "the body could not be read")
		return false
	}
	if len(data) == 0 {
		return true
	}
	if err := json.Unmarshal(data, v); err != nil {
		invalid(w, "the body is not valid JSON")
		return false
	}
	return true
}

// decodeForm treats each field as text, with true, false and whole numbers as such.
func decodeForm(w http.ResponseWriter, r *http.Request, v any) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseMultipartForm(maxBody); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		invalid(w, "the form is not valid")
		return false
	}
	fields := map[string]any{}
	for key, values := range r.Form {
		if name, list := strings.CutSuffix(key, "[]"); list {
			fields[name] = values
			continue
		}
		fields[key] = scalar(values[len(values)-1])
	}
	data, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		invalid(w, "the form is not valid")
		return false
	}
	return true
}

func scalar(s string) any {
	if s == "true" || s == "false" {
		return s == "true"
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	return s
}

// tokenOf prefers the parameter to the header (gitlab-server 1.1).
func tokenOf(r *http.Request, parameter tranter.Secret, header string) tranter.Secret {
	if parameter != "" {
		return parameter
	}
	return tranter.Secret(r.Header.Get(header))
}

func pathID(r *http.Request, name string) int64 {
	id, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// tags are written as a list or as one string with commas.
type tags []string

// UnmarshalJSON reads either form.
func (t *tags) UnmarshalJSON(data []byte) error {
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return errors.New("tag_list: neither a list nor text")
		}
		list = strings.Split(text, ",")
	}
	*t = nil
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			*t = append(*t, s)
		}
	}
	return nil
}
