package sizing

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tranter-ci/tranter"
)

// asked is what one source asks for.
type asked struct {
	number map[string]int64  // nodes, cpus, memory, gpus, walltime and what they are computed from
	text   map[string]string // partition and the like
	from   map[string]string // the variable, or flag, by what is asked for
	alone  bool              // exclusive
	shared bool              // not exclusive
	more   []string          // options
}

func newAsked() *asked {
	return &asked{number: map[string]int64{}, text: map[string]string{}, from: map[string]string{}}
}

// mostText bounds the length of a text that is asked for.
const mostText = 256

// put reads what is asked for under a name.
func (a *asked) put(name, value, source string, d dialect) error {
	a.from[name] = source
	bad := func(err error) error { return &Error{source, err.Error()} }
	switch name {
	case "nodes", "cpus", "gpus", "tasks", "tasks per node", "cpus per task", "gpus per task":
		n, err := count(value)
		if err != nil {
			return bad(err)
		}
		a.number[name] = n
	case "all gpus":
		return a.putGPUs(name, value, source)
	case "node gpus":
		return a.putGPUs("gpus", value, source)
	case "memory", "memory per cpu", "memory per gpu":
		n, err := Memory(value, d.memory)
		if err != nil {
			return bad(err)
		}
		a.number[name] = n
	case "walltime":
		t, err := Time(value, d.alone, d.two)
		if err != nil {
			return bad(err)
		}
		a.number[name] = int64(t)
	case "exclusive":
		return a.putExclusive(value, source)
	default:
		if err := checkText(value); err != nil {
			return bad(err)
		}
		a.text[name] = value
	}
	return nil
}

// putGPUs reads [TYPE:]NUMBER.
func (a *asked) putGPUs(name, value, source string) error {
	kind, number, ok := strings.Cut(value, ":")
	if !ok {
		kind, number = "", value
	}
	n, err := count(number)
	if err != nil {
		return &Error{source, err.Error()}
	}
	a.number[name] = n
	a.from[name] = source
	if kind != "" {
		if err := checkText(kind); err != nil {
			return &Error{source, err.Error()}
		}
		a.text["gpu type"], a.from["gpu type"] = kind, source
	}
	return nil
}

func (a *asked) putExclusive(value, source string) error {
	switch strings.ToLower(value) {
	case "", "1", "true", "yes", "on":
		a.alone, a.shared = true, false
	case "0", "false", "no", "off":
		a.alone, a.shared = false, true
	default:
		return &Error{source, fmt.Sprintf("%q is neither true nor false", clip(value))}
	}
	return nil
}

func checkText(value string) error {
	switch {
	case value == "":
		return fmt.Errorf("it is empty")
	case len(value) > mostText:
		return fmt.Errorf("it is longer than %d bytes", mostText)
	case value[0] == '-', strings.ContainsFunc(value, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) || c == unicode.ReplacementChar }):
		return fmt.Errorf("%q is no name", clip(value))
	}
	return nil
}

// perNode computes what a node is asked to have from what tasks are.
func (a *asked) perNode(s *tranter.Shape) {
	nodes := max(int64(s.Nodes), 1)
	if n, ok := a.number["nodes"]; ok {
		nodes = max(n, 1)
	}
	tasks, perNode := a.either("tasks per node", "tasks")
	if tasks > 0 && perNode == "tasks" {
		tasks = (tasks + nodes - 1) / nodes
	}
	each, _ := a.either("cpus per task")
	if _, given := a.number["cpus"]; !given && (tasks > 0 || each > 0) {
		a.number["cpus"], a.from["cpus"] = max(tasks, 1)*max(each, 1), first(a.from["cpus per task"], a.from["tasks per node"], a.from["tasks"])
	}
	if n, ok := a.number["all gpus"]; ok {
		a.number["gpus"], a.from["gpus"] = (n+nodes-1)/nodes, a.from["all gpus"]
	}
	if n, ok := a.number["gpus per task"]; ok {
		a.number["gpus"], a.from["gpus"] = n*max(tasks, 1), a.from["gpus per task"]
	}
	a.memoryOf("memory per cpu", "cpus", s.CPUs)
	a.memoryOf("memory per gpu", "gpus", s.GPUs)
}

// memoryOf computes a node's memory from that of each of its things.
func (a *asked) memoryOf(name, things string, otherwise int) {
	each, ok := a.number[name]
	if !ok {
		return
	}
	n, given := a.number[things]
	if !given {
		n = int64(otherwise)
	}
	a.number["memory"], a.from["memory"] = each*min(max(n, 1), 1<<16), a.from[name]
	if each > 1<<44 {
		a.number["memory"] = each
	}
}

func (a *asked) either(names ...string) (int64, string) {
	for _, name := range names {
		if n, ok := a.number[name]; ok {
			return n, name
		}
	}
	return 0, ""
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// grant takes over what a source asks for, as far as that is allowed.
func (s *sizer) grant(a *asked) error {
	a.perNode(&s.shape)
	if err := s.grantNumbers(a); err != nil {
		return err
	}
	allow := &s.rules.Allow
	for _, f := range [...]struct {
		name    string
		to      *string
		allowed []string
	}{
		{"gpu type", &s.shape.GPUType, allow.GPUTypes},
		{"partition", &s.shape.Partition, allow.Partitions},
		{"account", &s.shape.Account, allow.Accounts},
		{"qos", &s.shape.QOS, allow.QOS},
		{"constraint", &s.shape.Constraint, allow.Constraints},
		{"reservation", &s.shape.Reservation, allow.Reservations},
	} {
		value, ok := a.text[f.name]
		if !ok || value == *f.to {
			continue
		}
		if !allows(f.allowed, value, f.name != "constraint") {
			return &Error{a.from[f.name], fmt.Sprintf("%s %q is not allowed here; %s", f.name, clip(value), choices(f.allowed))}
		}
		*f.to = value
	}
	if a.alone && !s.shape.Exclusive && !allow.Exclusive {
		return &Error{a.from["exclusive"], "nodes for one batch job alone are not allowed here"}
	}
	if a.alone || a.shared && allow.Exclusive {
		s.shape.Exclusive = a.alone
	}
	return s.grantOptions(a)
}

func (s *sizer) grantNumbers(a *asked) error {
	allow := &s.rules.Allow
	for _, f := range [...]struct {
		name    string
		allowed Range
		show    func(int64) string
		now     int64
		set     func(int64)
	}{
		{"nodes", allow.Nodes, decimal, int64(s.shape.Nodes), func(n int64) { s.shape.Nodes = int(n) }},
		{"cpus", allow.CPUs, decimal, int64(s.shape.CPUs), func(n int64) { s.shape.CPUs = int(n) }},
		{"gpus", allow.GPUs, decimal, int64(s.shape.GPUs), func(n int64) { s.shape.GPUs = int(n) }},
		{"memory", allow.Memory, mebibytes, s.shape.Memory, func(n int64) { s.shape.Memory = n }},
		{"walltime", allow.Walltime, func(n int64) string { return time.Duration(n).String() }, int64(s.shape.Walltime), func(n int64) { s.shape.Walltime = time.Duration(n) }},
	} {
		n, ok := a.number[f.name]
		if !ok || n == f.now {
			continue
		}
		if !f.allowed.Given && n == 1 && f.now == 0 && (f.name == "nodes" || f.name == "cpus") {
			continue // one is what schedulers give without being asked
		}
		if !f.allowed.Holds(n) {
			what := "nothing else than what is configured is allowed here"
			if f.allowed.Given {
				what = fmt.Sprintf("allowed here are %s to %s", f.show(f.allowed.Min), f.show(f.allowed.Max))
			}
			return &Error{a.from[f.name], fmt.Sprintf("%s: %s is too much or too little; %s", f.name, f.show(n), what)}
		}
		f.set(n)
	}
	return nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func mebibytes(n int64) string {
	if n%(1<<30) == 0 {
		return decimal(n>>30) + "G"
	}
	return decimal(n>>20) + "M"
}

func (s *sizer) grantOptions(a *asked) error {
	for _, o := range a.more {
		switch source := first(a.from["options"], a.from[o]); {
		case banned(s.rules.Scheduler, o):
			return &Error{source, fmt.Sprintf("%q is never allowed: the batch job's owner, environment, files and lifetime are not the job's to choose", clip(o))}
		case measures(s.rules.Scheduler, o) && !allows(s.rules.Allow.named(), o, false):
			return &Error{source, fmt.Sprintf("option %q is not allowed here: what a batch job has is asked for with variables, such as TRANTER_BATCH_CPUS", clip(o))}
		case !allows(s.rules.Allow.Options, o, false):
			return &Error{source, fmt.Sprintf("option %q is not allowed here; %s", clip(o), choices(s.rules.Allow.Options))}
		}
		s.shape.Options = append(s.shape.Options, o)
	}
	return nil
}

// named are the options that are allowed by their names: those that only a * stands for are not.
func (a Allow) named() (options []string) {
	for _, pattern := range a.Options {
		if head, _, more := strings.Cut(pattern, "*"); !more || strings.Contains(head, "=") {
			options = append(options, pattern)
		}
	}
	return options
}

func choices(allowed []string) string {
	if len(allowed) == 0 {
		return "none can be chosen"
	}
	return "allowed are " + strings.Join(allowed, ", ")
}

// allows tells whether a text, or each part of a list, is one of those that are allowed.
func allows(allowed []string, value string, list bool) bool {
	parts := []string{value}
	if list {
		parts = strings.Split(value, ",")
	}
	for _, p := range parts {
		ok := false
		for _, pattern := range allowed {
			ok = ok || match(pattern, p)
		}
		if !ok || p == "" {
			return false
		}
	}
	return true
}

// match tells whether a text is as a pattern says, in which * stands for any text.
func match(pattern, text string) bool {
	head, rest, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == text
	}
	text, ok = strings.CutPrefix(text, head)
	for ok {
		var next string
		var more bool
		if next, rest, more = strings.Cut(rest, "*"); !more {
			return strings.HasSuffix(text, next)
		}
		i := strings.Index(text, next)
		if ok = i >= 0; ok {
			text = text[i+len(next):]
		}
	}
	return false
}
