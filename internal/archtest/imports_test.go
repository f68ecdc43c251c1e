package archtest

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// levels orders the packages: a package imports only what stands below it. A key ending in "/" covers all below it.
var levels = map[string]int{
	"":                       0,
	"examples":               0,
	"internal/variables":     1,
	"internal/redact":        1,
	"internal/joblog":        1,
	"internal/plan":          1,
	"internal/pipeline":      1,
	"internal/config":        1,
	"internal/lazy":          1,
	"internal/fleet":         1,
	"internal/scale":         1,
	"internal/terminal":      1,
	"internal/allocation":    1,
	"internal/sizing":        1,
	"internal/site":          1,
	"internal/view":          1,
	"internal/cost":          1,
	"internal/events":        2,
	"internal/metrics":       2,
	"internal/tracing":       2,
	"internal/service":       2,
	"internal/web":           3,
	"internal/web/":          3,
	"internal/account":       2,
	"internal/batch":         2,
	"internal/batch/":        2,
	"internal/worker":        2,
	"internal/cluster":       3,
	"internal/cluster/":      3,
	"internal/connlimit":     1,
	"internal/agent":         2,
	"internal/agent/":        2,
	"internal/gitlab":        2,
	"internal/sessionserver": 2,
	"internal/store":         2,
	"internal/filelock":      2,
	"internal/diskspace":     2,
	"internal/vault":         2,
	"internal/vault/":        2,
	"internal/cache":         2,
	"internal/referee":       2,
	"internal/cache/":        2,
	"internal/executor/":     2,
	"internal/remote":        2,
	"internal/remote/":       2,
	"internal/provision":     2,
	"internal/provision/":    2,
	"internal/provider/":     2,
	"internal/stagescript":   2,
	"internal/trace":         3,
	"internal/job":           3,
	"internal/manager":       3,
	"internal/pool":          3,
	"internal/pool/":         3,
	"internal/coordinator":   3,
	"internal/coordinator/":  3,
	"internal/job/":          3,
	"internal/archtest":      4,
	"internal/conformance":   4,
	"bench/":                 4,
	"bench/measure":          3,
	"cmd/tranter":            4,
}

// sideways lists the imports between packages of one level that are meant to be.
var sideways = map[string][]string{
	"internal/joblog":                {"internal/redact"},
	"internal/plan":                  {"internal/variables"},
	"internal/pipeline":              {"internal/variables", "internal/lazy"},
	"internal/config":                {"internal/lazy"},
	"internal/agent":                 {"internal/filelock", "internal/diskspace", "internal/agent/env", "internal/agent/script", "internal/agent/source", "internal/agent/archive", "internal/agent/transfer", "internal/agent/process", "internal/agent/driver", "internal/stagescript"},
	"internal/agent/script":          {"internal/agent/env"},
	"internal/agent/source":          {"internal/agent/env"},
	"internal/agent/archive":         {"internal/agent/env", "internal/diskspace"},
	"internal/agent/transfer":        {"internal/agent/env", "internal/agent/archive", "internal/agent/blob", "internal/cache"},
	"internal/cache/builtin":         {"internal/cache/remote"},
	"internal/executor/executortest": {"internal/agent"},
	"internal/executor/shell":        {"internal/agent", "internal/agent/script"},
	"internal/executor/custom":       {"internal/agent", "internal/agent/driver"},

	"internal/agent/link":                 {"internal/agent", "internal/diskspace"},
	"internal/executor/docker":            {"internal/agent", "internal/agent/link", "internal/executor/docker/engine", "internal/executor/docker/spec", "internal/executor/docker/image", "internal/executor/docker/janitor"},
	"internal/executor/docker/engine":     {"internal/remote"},
	"internal/executor/docker/image":      {"internal/executor/docker/engine"},
	"internal/executor/docker/janitor":    {"internal/executor/docker/engine", "internal/diskspace", "internal/filelock"},
	"internal/executor/docker/enginetest": {"internal/filelock", "internal/executor/docker/engine"},
	"internal/stagescript":                {"internal/agent/script"},
	"internal/site":                       {"internal/config"},
	"internal/cost":                       {"internal/lazy"},
	"internal/view":                       {"internal/cost"},
	"internal/account":                    {"internal/batch"},
	"internal/batch/slurm":                {"internal/batch"},
	"internal/batch/pbs":                  {"internal/batch"},
	"internal/batch/lsf":                  {"internal/batch"},
	"internal/batch/flux":                 {"internal/batch"},
	"internal/batch/launch":               {"internal/batch", "internal/filelock"},
	"internal/batch/slurmtest":            {"internal/batch"},
	"internal/batch/batchtest":            {"internal/batch"},
	"internal/batch/pretend":              {"internal/batch"},
	"internal/worker":                     {"internal/agent", "internal/filelock"},
	"internal/executor/apptainer":         {"internal/agent", "internal/agent/script", "internal/agent/env", "internal/executor/apptainer/image"},
	"internal/executor/apptainer/image":   {"internal/filelock", "internal/diskspace"},
	"internal/scale":                      {"internal/fleet"},
	"internal/provision":                  {"internal/remote", "internal/provision/notice"},
	"internal/provider/container":         {"internal/executor/docker/engine"},
	"internal/provider/dockermachine":     {"internal/provider/dockermachine/plugin", "internal/provider/dockermachine/storage"},
	"internal/provider/machinetest":       {"internal/provider/container", "internal/executor/docker/enginetest", "internal/executor/docker/engine"},
	"internal/job":                        {"internal/trace"},
	"internal/cache/remote/s3test":        {"internal/filelock"},
	"internal/manager":                    {"internal/job"},

	"internal/coordinator/coordinatortest": {"internal/coordinator"},
}

func level(pkg string) (int, bool) {
	if l, ok := levels[pkg]; ok {
		return l, true
	}
	best, found := 0, ""
	for prefix, l := range levels {
		if strings.HasSuffix(prefix, "/") && strings.HasPrefix(pkg, prefix) && len(prefix) > len(found) {
			best, found = l, prefix
		}
	}
	return best, found != ""
}

func TestImportsPointDownwards(t *testing.T) {
	_, files := source(t)
	for _, f := range files {
		from, known := level(f.pkg())
		if !known {
			t.Errorf("%s: package %s has no level: give it one in levels", f.path, f.pkg())
		}
		if f.test {
			continue // tests may bring together what they test
		}
		for _, spec := range f.ast.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			target, ours := strings.CutPrefix(path, module)
			target = strings.TrimPrefix(target, "/")
			if !ours {
				if f.pkg() == "" && strings.Contains(path, ".") {
					t.Errorf("%s imports %s: the root imports the standard library only", f.path, path)
				}
				continue
			}
			to, _ := level(target)
			if to < from || allowed(f.pkg(), target) {
				continue
			}
			t.Errorf("%s (level %d) imports %s (level %d): imports point downwards", f.path, from, target, to)
		}
	}
}

func allowed(from, to string) bool {
	return slices.Contains(sideways[from], to)
}
