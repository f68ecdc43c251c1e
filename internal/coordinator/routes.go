package coordinator

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
)

const apiPrefix = "/api/v4"

func (c *Coordinator) routes() http.Handler {
	mux := http.NewServeMux()
	api := http.NewServeMux()
	(&runnerAPI{c: c}).register(api)
	(&jobAPI{c: c}).register(api)
	(&runnerAdmin{c: c}).register(api)
	(&pipelineAdmin{c: c}).register(api)
	(&placeAdmin{c: c}).register(api)
	api.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusNotFound, "") })
	mux.Handle(apiPrefix+"/", http.StripPrefix(apiPrefix, api))
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

// maxBody is how much a request may bring, apart from logs and artifacts.
const maxBody = 1 << 20

// decode reads the parameters of a request into v. On false it has answered.
func decode(w http.ResponseWriter, r *http.Request, v any) bool { return decodeUpTo(w, r, maxBody, v) }

// decodeUpTo takes parameters, as GitLab does, from the query and from a body of at most limit bytes, JSON or a form.
func decodeUpTo(w http.ResponseWriter, r *http.Request, limit int64, v any) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	values := r.URL.Query()
	var data []byte
	var err error
	if kind == "multipart/form-data" {
		err = r.ParseMultipartForm(limit)
		maps.Copy(values, r.Form)
	} else {
		data, err = io.ReadAll(r.Body)
	}
	if err == nil && kind == "application/x-www-form-urlencoded" {
		var form url.Values
		form, err = url.ParseQuery(string(data))
		maps.Copy(values, form)
		data = nil
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		refuse(w, http.StatusRequestEntityTooLarge, "")
		return false
	}
	if err != nil {
		invalid(w, "the body could not be read")
		return false
	}
	if err := decodeForm(values, v); err != nil {
		invalid(w, wrongField(err))
		return false
	}
	if len(data) == 0 {
		return true
	}
	if err := json.Unmarshal(data, v); err != nil {
		invalid(w, wrongField(err))
		return false
	}
	return true
}

func wrongField(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return strings.TrimPrefix(wrong.Field, "runnerChange.") + " is invalid" // embedded structs are in the path
	}
	return "the body is not valid"
}

// decodeForm reads fields a, lists a[] and fields of fields a[b]. All are text; what v wants otherwise is converted.
func decodeForm(values url.Values, v any) error {
	fields := map[string]any{}
	for key, all := range values {
		if len(all) == 0 {
			continue
		}
		name, rest, nested := strings.Cut(key, "[")
		switch sub := strings.TrimSuffix(rest, "]"); {
		case !nested:
			fields[name] = all[len(all)-1]
		case sub == "":
			fields[name] = all
		default:
			inner, ok := fields[name].(map[string]any)
			if !ok {
				inner = map[string]any{}
				fields[name] = inner
			}
			inner[sub] = all[len(all)-1]
		}
	}
	var err error
	for range len(values) + 1 { // each time one more field has its type
		var data []byte
		if data, err = json.Marshal(fields); err != nil {
			return err
		}
		err = json.Unmarshal(data, v)
		wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
		if !ok || !convert(fields, strings.Split(wrong.Field, "."), wrong.Type.Kind()) {
			return err
		}
	}
	return err
}

// convert makes a field's text a number or a truth value. False: it is none.
func convert(fields map[string]any, path []string, kind reflect.Kind) bool {
	for len(path) > 1 {
		if inner, ok := fields[path[0]].(map[string]any); ok {
			fields = inner
		}
		path = path[1:] // else it is the name of an embedded struct
	}
	text, ok := fields[path[0]].(string)
	if !ok {
		return false
	}
	if kind == reflect.Bool {
		is, err := strconv.ParseBool(text)
		fields[path[0]] = is
		return err == nil
	}
	n, err := strconv.ParseFloat(text, 64)
	fields[path[0]] = n
	return err == nil && text != "" && !math.IsNaN(n) && !math.IsInf(n, 0)
}

// tokenOf prefers the parameter to the header (gitlab-server 1.1).
func tokenOf(r *http.Request, parameter tranter.Secret, header string) tranter.Secret {
	if parameter != "" {
		return parameter
	}
	return tranter.Secret(r.Header.Get(header))
}

// pathID is the id in the path; 0: it is none.
func pathID(r *http.Request) int64 {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
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
			return &json.UnmarshalTypeError{Value: "value", Type: reflect.TypeFor[tags]()}
		}
		list = []string{text}
	}
	t.set(list)
	return nil
}

// set takes the tags of a list, of which each may be several with commas.
func (t *tags) set(list []string) {
	*t = tags{}
	for s := range strings.SplitSeq(strings.Join(list, ","), ",") {
		if s = strings.TrimSpace(s); s != "" && !slices.Contains(*t, s) {
			*t = append(*t, s)
		}
	}
}
