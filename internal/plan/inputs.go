package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/tranter-ci/tranter"
)

// inputValue is the value of a job input (runner contract, section 2.11).
type inputValue struct {
	Type      string          `json:"type"`
	Content   json.RawMessage `json:"content"`
	Sensitive bool            `json:"sensitive"`
}

var (
	expressionPattern = regexp.MustCompile(`\$\{\{(.*?)\}\}`)
	inputPattern      = regexp.MustCompile(`^\s*job\.inputs\.([A-Za-z_][A-Za-z0-9_-]*)\s*$`)
)

// withInputs returns the job with ${{ job.inputs.NAME }} replaced where the runner contract, section 2.11, says so. The
// only expression is the name of an input; anything else is an error, as is a sensitive input.
func withInputs(job *tranter.Job) (*tranter.Job, error) {
	r := inputReplacer{values: map[string]string{}, sensitive: map[string]bool{}}
	for _, in := range job.Inputs {
		if err := r.add(in); err != nil {
			return nil, err
		}
	}
	out := *job
	out.Steps = append([]tranter.JobStep(nil), job.Steps...)
	for i, s := range out.Steps {
		if s.Name == "script" || s.Name == "after_script" {
			out.Steps[i].Script = r.list(s.Script)
		}
	}
	out.Image = r.image(job.Image)
	out.Services = append([]tranter.Image(nil), job.Services...)
	for i := range out.Services {
		out.Services[i] = r.image(out.Services[i])
	}
	out.Artifacts = append([]tranter.Artifact(nil), job.Artifacts...)
	for i, a := range out.Artifacts {
		a.Name, a.When, a.ExpireIn = r.text(a.Name), r.text(a.When), r.text(a.ExpireIn)
		a.Paths, a.Exclude = r.list(a.Paths), r.list(a.Exclude)
		out.Artifacts[i] = a
	}
	out.Cache = append([]tranter.Cache(nil), job.Cache...)
	for i, c := range out.Cache {
		c.Key, c.Policy, c.When = r.text(c.Key), r.text(c.Policy), r.text(c.When)
		c.Paths, c.FallbackKeys = r.list(c.Paths), r.list(c.FallbackKeys)
		out.Cache[i] = c
	}
	return &out, errors.Join(r.problems...)
}

type inputReplacer struct {
	values    map[string]string
	sensitive map[string]bool
	problems  []error
}

func (r *inputReplacer) add(in tranter.Input) error {
	var v inputValue
	if err := json.Unmarshal(in.Value, &v); err != nil || in.Key == "" {
		return fmt.Errorf("job input %q is malformed", in.Key)
	}
	var content any
	if err := json.Unmarshal(v.Content, &content); err != nil || content == nil {
		return fmt.Errorf("job input %q has no value", in.Key)
	}
	matches, text := false, strings.TrimSpace(string(v.Content))
	switch c := content.(type) {
	case string:
		matches, text = v.Type == "string", c
	case float64:
		matches = v.Type == "number"
	case bool:
		matches = v.Type == "boolean"
	case []any:
		matches = v.Type == "array"
	case map[string]any:
		matches = v.Type == "struct"
	}
	if !matches {
		return fmt.Errorf("job input %q is not of its type %q", in.Key, v.Type)
	}
	r.values[in.Key], r.sensitive[in.Key] = text, v.Sensitive
	return nil
}

func (r *inputReplacer) text(s string) string {
	if !strings.Contains(s, "${{") {
		return s
	}
	return expressionPattern.ReplaceAllStringFunc(s, func(whole string) string {
		m := inputPattern.FindStringSubmatch(expressionPattern.FindStringSubmatch(whole)[1])
		if m == nil {
			r.problems = append(r.problems, fmt.Errorf("%s: only job.inputs.NAME can be put in", whole))
			return whole
		}
		value, ok := r.values[m[1]]
		switch {
		case !ok:
			r.problems = append(r.problems, fmt.Errorf("%s: the job has no input %q", whole, m[1]))
			return whole
		case r.sensitive[m[1]]:
			r.problems = append(r.problems, fmt.Errorf("%s: the input is sensitive and can't be put into a text", whole))
			return whole
		}
		return value
	})
}

func (r *inputReplacer) list(in []string) []string {
	if in == nil {
		return nil
	}
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = r.text(s)
	}
	return out
}

func (r *inputReplacer) image(i tranter.Image) tranter.Image {
	i.Name = r.text(i.Name)
	i.Command, i.Entrypoint, i.PullPolicy = r.list(i.Command), r.list(i.Entrypoint), r.list(i.PullPolicy)
	return i
}
