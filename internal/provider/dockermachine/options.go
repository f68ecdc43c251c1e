package dockermachine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// Engine is what options of docker-machine itself, among a driver's, want of the machine's engine (docker-machine, section 6).
type Engine struct {
	Options       []string // engine-opt: NAME=VALUE or NAME, of dockerd
	Environment   []string // engine-env
	Labels        []string // engine-label
	Mirrors       []string // engine-registry-mirror
	Insecure      []string // engine-insecure-registry
	StorageDriver string   // engine-storage-driver
	InstallURL    string   // engine-install-url
	Names         []string // tls-san
	Swarm         []string // swarm-... as they were given. They do nothing: such swarms are gone from engines
}

// Split takes docker-machine's own options out of a list of options. What remains is the driver's. The drivers read
// engine-install-url and those of swarms as well, so these are in both.
func Split(options []string) (driver []string, engine Engine) {
	for _, o := range options {
		name, value, given := strings.Cut(strings.TrimLeft(o, "-"), "=")
		if strings.HasPrefix(name, "swarm") {
			engine.Swarm = append(engine.Swarm, o)
		}
		switch list := engine.list(name); {
		case list != nil && given:
			*list = append(*list, value)
		case name == "engine-storage-driver" && given:
			engine.StorageDriver = value
		case name == "engine-install-url" && given:
			engine.InstallURL = value
			driver = append(driver, o)
		case !strings.HasPrefix(name, "swarm") || slices.ContainsFunc(shared(), func(f plugin.Flag) bool { return f.Name == name }):
			driver = append(driver, o)
		}
	}
	return driver, engine
}

func (e *Engine) list(name string) *[]string {
	switch name {
	case "engine-opt":
		return &e.Options
	case "engine-env":
		return &e.Environment
	case "engine-label":
		return &e.Labels
	case "engine-registry-mirror":
		return &e.Mirrors
	case "engine-insecure-registry":
		return &e.Insecure
	case "tls-san":
		return &e.Names
	}
	return nil
}

// shared are options that every driver may read without listing them (docker-machine, section 1.5).
func shared() []plugin.Flag {
	return []plugin.Flag{
		{Name: "swarm-master", Default: false},
		{Name: "swarm-host", Default: "tcp://0.0.0.0:3376"},
		{Name: "swarm-discovery", Default: ""},
		{Name: "engine-install-url", EnvVar: "MACHINE_DOCKER_INSTALL_URL", Default: "https://get.docker.com"},
	}
}

// resolve gives each of a driver's options its value: the one that is set, the last if that is done more than once; else that
// of its variable; else its default. A list gets all that are set. The error names all that is wrong.
func resolve(driver string, flags []plugin.Flag, options []string, variable func(string) string) (map[string]any, error) {
	set, wrong := map[string][]string{}, []error(nil)
	for _, o := range options {
		name, value, given := strings.Cut(strings.TrimLeft(o, "-"), "=")
		i := slices.IndexFunc(flags, func(f plugin.Flag) bool { return f.Name == name })
		if i < 0 {
			wrong = append(wrong, unknown(driver, name, flags))
			continue
		}
		if _, yesNo := flags[i].Default.(bool); !given && yesNo {
			value = "true"
		} else if !given {
			wrong = append(wrong, fmt.Errorf("option %s of driver %s needs a value: %s=VALUE", name, driver, name))
			continue
		}
		set[name] = append(set[name], value)
	}
	values := make(map[string]any, len(flags))
	for _, f := range flags {
		v, err := f.Default, error(nil)
		if given := set[f.Name]; given != nil {
			v, err = convert(f, given, "option "+f.Name)
		} else if name, value := fromVariable(f, variable); name != "" {
			v, err = convert(f, splitList(f, value), "variable "+name)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("driver %s: %w", driver, err))
		}
		values[f.Name] = v
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w: %w", tranter.ErrRejected, errors.Join(wrong...))
	}
	return values, nil
}

// fromVariable returns the first variable of an option that is set. Some drivers name several, with commas.
func fromVariable(f plugin.Flag, variable func(string) string) (name, value string) {
	for name := range strings.SplitSeq(f.EnvVar, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if value := variable(name); value != "" {
			return name, value
		}
	}
	return "", ""
}

// splitList returns the elements that a variable gives a list.
func splitList(f plugin.Flag, value string) []string {
	if _, list := f.Default.([]string); !list {
		return []string{value}
	}
	parts := strings.Split(value, ",")
	for i, part := range parts {
		parts[i] = strings.TrimSpace(part)
	}
	return parts
}

func convert(f plugin.Flag, given []string, what string) (any, error) {
	last := given[len(given)-1]
	switch f.Default.(type) {
	case []string:
		return given, nil
	case int:
		n, err := strconv.ParseInt(strings.TrimSpace(last), 0, strconv.IntSize)
		if err != nil {
			return nil, fmt.Errorf("%s: expected a whole number, got %.60q", what, last)
		}
		return int(n), nil
	case bool:
		b, err := strconv.ParseBool(strings.TrimSpace(last))
		if err != nil {
			return nil, fmt.Errorf("%s: expected true or false, got %.60q", what, last)
		}
		return b, nil
	}
	return last, nil
}

// unknown says that a driver has no such option, and which one may be meant.
func unknown(driver, name string, flags []plugin.Flag) error {
	best, distance := "", len(name)/3+2
	for _, f := range flags {
		d := edits(name, f.Name)
		if strings.HasSuffix(f.Name, "-"+name) {
			d = 1 // it lacks the driver's name in front
		}
		if d < distance {
			best, distance = f.Name, d
		}
	}
	if best == "" {
		return fmt.Errorf("driver %s has no option %.100q", driver, name)
	}
	return fmt.Errorf("driver %s has no option %.100q; the nearest is %s", driver, name, best)
}

// maxName is the length from which on a name is not compared letter by letter.
const maxName = 100

// edits counts the letters that have to be put in, taken out or replaced to make b of a.
func edits(a, b string) int {
	if len(a) > maxName || len(b) > maxName {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := corner
			if a[i] != b[j] {
				replaced++
			}
			corner = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// variable returns the value of a variable as the driver sees it.
func (p *Provider) variable(name string) string {
	for _, e := range slices.Backward(p.o.Environment) {
		if n, value, _ := strings.Cut(e, "="); n == name {
			return value
		}
	}
	return os.Getenv(name)
}

// secretValues returns what must not be shown of the values of options.
func secretValues(values map[string]any) []string {
	var secrets []string
	for name, value := range values {
		if s, ok := value.(string); ok && secretName(name) && len(s) >= minSecret {
			secrets = append(secrets, s)
		}
	}
	return secrets
}
