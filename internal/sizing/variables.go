package sizing

import (
	"slices"
	"strings"
)

// foreign reads the variables of slurm-gitlab-executor (hpc, section 2.2).
func (s *sizer) foreign(vars map[string]string) error {
	const prefix = "CI_SLURM_"
	names := map[string]string{
		"PARTITION": "partition", "NODES": "nodes", "NNODES": "nodes", "MEM": "memory", "MEM_PER_NODE": "memory", "MEMORY": "memory", "MEM_PER_CPU": "memory per cpu",
		"MEM_PER_GPU": "memory per gpu", "CPUS": "cpus", "CPUS_PER_NODE": "cpus", "CPUS_PER_TASK": "cpus per task", "NTASKS": "tasks",
		"NTASKS_PER_NODE": "tasks per node", "GPUS": "all gpus", "GPUS_PER_NODE": "node gpus", "GPUS_PER_TASK": "gpus per task", "GRES": "gres", "TIMELIMIT": "walltime",
		"TIME": "walltime", "ACCOUNT": "account", "QOS": "qos", "EXCLUSIVE": "exclusive", "CONSTRAINT": "constraint", "RESERVATION": "reservation",
	}
	a, d := newAsked(), dialectOf("slurm")
	for _, name := range sorted(vars, prefix) {
		value, what := strings.TrimSpace(vars[name]), names[strings.TrimPrefix(name, prefix)]
		var err error
		switch {
		case value == "":
		case what == "":
			s.note("%s has no effect here", clip(name))
		case what == "gres":
			err = gres(a, value, name, d)
		default:
			err = a.put(what, value, name, d)
		}
		if err != nil {
			return err
		}
	}
	return s.grant(a)
}

// own reads our own variables. A number alone is MiB as memory, and minutes as time.
func (s *sizer) own(vars map[string]string) error {
	const prefix = "TRANTER_BATCH_"
	names := map[string]string{
		"CPUS": "cpus", "MEMORY": "memory", "GPUS": "gpus", "GPU_TYPE": "gpu type", "NODES": "nodes", "TIME": "walltime", "PARTITION": "partition",
		"ACCOUNT": "account", "QOS": "qos", "CONSTRAINT": "constraint", "RESERVATION": "reservation", "EXCLUSIVE": "exclusive",
	}
	a, d := newAsked(), dialectOf("slurm")
	for _, name := range sorted(vars, prefix) {
		value, what := strings.TrimSpace(vars[name]), names[strings.TrimPrefix(name, prefix)]
		switch {
		case value == "":
		case name == prefix+"OPTIONS":
			words, err := Words(value)
			if err != nil {
				return &Error{name, err.Error()}
			}
			a.more, a.from["options"] = words, name
		case what == "":
			return &Error{clip(name), "there is no such setting; there are " + strings.Join(settings(names), ", ")}
		default:
			if err := a.put(what, value, name, d); err != nil {
				return err
			}
		}
	}
	return s.grant(a)
}

func settings(names map[string]string) []string {
	all := []string{"OPTIONS"}
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// sorted returns the names of variables that begin so, in order: what comes about must not depend on how a map is walked.
func sorted(vars map[string]string, prefix string) []string {
	var names []string
	for name := range vars {
		if strings.HasPrefix(name, prefix) && name != prefix {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
