package sizing

import (
	"slices"
	"strings"
	"time"
)

// dialect is how the submit command of a scheduler is told what a job needs.
type dialect struct {
	flags      map[string]string // what is asked for, by flag; "-" for one without a meaning here, "!" for one with none and no value
	memory     int64             // what a number alone counts as memory
	alone, two time.Duration     // as for Time
}

func dialectOf(scheduler string) dialect {
	switch scheduler {
	case "pbs":
		return dialect{memory: 1, alone: time.Second, two: time.Minute, flags: map[string]string{
			"-q": "partition", "-A": "account", "-P": "account", "-N": "-", "-l": "resources", "-W": "forbidden", "-V": "forbidden",
		}}
	case "lsf":
		return dialect{memory: 1 << 20, alone: time.Minute, two: time.Hour, flags: map[string]string{
			"-q": "partition", "-P": "account", "-G": "account", "-n": "tasks", "-W": "walltime", "-M": "memory", "-J": "-", "-x": "exclusive", "-U": "reservation",
		}}
	case "flux":
		return dialect{memory: 1 << 20, alone: time.Minute, two: time.Minute, flags: map[string]string{
			"-q": "partition", "--queue": "partition", "-B": "account", "--bank": "account", "-N": "nodes", "--nodes": "nodes", "-n": "tasks", "--ntasks": "tasks",
			"-c": "cpus per task", "--cores-per-task": "cpus per task", "-g": "gpus per task", "--gpus-per-task": "gpus per task", "-t": "walltime",
			"--time-limit": "walltime", "-x": "exclusive", "--exclusive": "exclusive", "--job-name": "-",
		}}
	default:
		return dialect{memory: 1 << 20, alone: time.Minute, two: time.Minute, flags: map[string]string{
			"-p": "partition", "--partition": "partition", "-A": "account", "--account": "account", "-q": "qos", "--qos": "qos", "-C": "constraint",
			"--constraint": "constraint", "--reservation": "reservation", "-N": "nodes", "--nodes": "nodes", "-n": "tasks", "--ntasks": "tasks",
			"--ntasks-per-node": "tasks per node", "--tasks-per-node": "tasks per node", "-c": "cpus per task", "--cpus-per-task": "cpus per task", "--mem": "memory",
			"--mem-per-cpu": "memory per cpu", "--mem-per-gpu": "memory per gpu", "-G": "all gpus", "--gpus": "all gpus", "--gpus-per-node": "node gpus",
			"--gpus-per-task": "gpus per task", "--gres": "gres", "-t": "walltime", "--time": "walltime", "--exclusive": "exclusive", "-J": "-", "--job-name": "-",
			"--comment": "-", "--parsable": "!", "-Q": "!", "--quiet": "!", "--no-requeue": "!", "-l": "resources",
		}}
	}
}

// valueless tells whether a flag has no value.
func valueless(what string) bool { return what == "exclusive" || what == "!" }

// neverAllowed are flags, with and without dashes, that are the manager's alone: whose the job is, what it runs, where its output and
// input are, with which environment, when and how often it starts, whom it tells.
func neverAllowed(scheduler string) (long, short []string) {
	long = []string{
		"uid", "gid", "wrap", "output", "error", "input", "export", "export-file", "array", "dependency", "signal", "chdir", "begin", "get-user-env", "open-mode",
		"requeue", "hold", "kill-on-invalid-dep", "mail-user", "mail-type", "propagate", "test-only", "wait", "wait-all-nodes", "clusters", "cluster-constraint",
		"deadline", "delay-boot", "immediate", "nice", "priority", "prolog", "epilog", "task-prolog", "task-epilog", "bcast", "spread-job", "burst-buffer", "bb",
		"bbf", "container", "env", "env-file", "env-remove", "cwd", "flags", "setattr", "setopt", "unbuffered", "urgency", "dry-run", "version", "help", "usage",
		"extra", "wckey", "reboot", "power", "jobid", "no-kill", "overcommit", "ignore-pbs", "script", "add-file", "pty", "watch", "progress", "command", "job-name", "comment", "parsable", "quiet",
	}
	switch scheduler {
	case "pbs":
		short = strings.Split("a b c C e h I j J k m M N o p r S u v V W X z", " ")
	case "lsf":
		short = strings.Split("a b B c cwd D E Ep e eo env f g H h i I Ip is J K k L m N o oo outdir pack Q r rn s sp t ti u v w Zs", " ")
	case "flux":
		short = strings.Split("o O D h l u W", " ")
	default:
		short = strings.Split("a b d D e h H i I J k M o Q S U V W", " ")
	}
	return long, short
}

// banned tells whether an option is the manager's alone. Long options may be shortened, so every beginning of one counts.
func banned(scheduler, option string) bool {
	long, short := neverAllowed(scheduler)
	name, _, _ := strings.Cut(option, "=")
	if rest, ok := strings.CutPrefix(name, "--"); ok {
		rest = strings.ToLower(rest)
		for _, l := range long {
			if strings.HasPrefix(l, rest) {
				return true
			}
		}
		return false
	}
	rest, ok := strings.CutPrefix(name, "-")
	if !ok || rest == "" {
		return true // no option at all: it would be taken as the script
	}
	rest = unbundled(scheduler, rest)
	return slices.ContainsFunc(short, func(s string) bool { return strings.HasPrefix(rest, s) })
}

// unbundled leaves out what stands in one word before the last of several short options: those that have no value.
func unbundled(scheduler, word string) string {
	without, ok := map[string]string{"pbs": "fnx", "lsf": "", "flux": ""}[scheduler]
	if !ok {
		without = "skKvO"
	}
	for len(word) > 1 && strings.ContainsRune(without, rune(word[0])) {
		word = word[1:]
	}
	return word
}

// measures tells whether an option says what a batch job has, for which there are limits of their own.
func measures(scheduler, option string) bool {
	name, _, _ := strings.Cut(option, "=")
	if rest, ok := strings.CutPrefix(name, "--"); ok {
		long := []string{
			"partition", "account", "qos", "constraint", "reservation", "nodes", "ntasks", "ntasks-per-node", "tasks-per-node", "cpus-per-task", "mem", "mem-per-cpu",
			"mem-per-gpu", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gres", "time", "time-min", "exclusive", "queue", "bank", "cores-per-task", "time-limit",
		}
		return slices.ContainsFunc(long, func(l string) bool { return strings.HasPrefix(l, strings.ToLower(rest)) })
	}
	short, ok := map[string]string{"pbs": "qAPl", "lsf": "qPGnWMxU", "flux": "qBNncgtx"}[scheduler]
	if !ok {
		short = "pAqCNncGt"
	}
	rest := unbundled(scheduler, strings.TrimPrefix(name, "-"))
	return rest != "" && strings.ContainsRune(short, rune(rest[0]))
}

// parameters reads SCHEDULER_PARAMETERS: the submit command's flags.
func (s *sizer) parameters(vars map[string]string) error {
	const name = "SCHEDULER_PARAMETERS"
	words, err := Words(vars[name])
	if err != nil {
		return &Error{name, err.Error()}
	}
	a := newAsked()
	if err := s.parse(a, words, name); err != nil {
		return err
	}
	return s.grant(a)
}

// parse reads the words of a command line: --flag=value, --flag value, -n 4, -n4.
func (s *sizer) parse(a *asked, words []string, source string) error {
	d := dialectOf(s.rules.Scheduler)
	for len(words) > 0 {
		flag, value, given := split(words[0], d)
		words = words[1:]
		what, problem := s.meaning(flag, d)
		if problem != "" {
			return &Error{source, problem}
		}
		takes := !given && !valueless(what) && len(words) > 0
		if takes && (what != "" || !strings.HasPrefix(words[0], "-")) {
			value, given, words = words[0], true, words[1:]
		}
		if what != "" && !given && !valueless(what) {
			return &Error{source, flag + " has no value"}
		}
		if err := s.flag(a, argument{flag, what, value, given}, source); err != nil {
			return err
		}
	}
	return nil
}

// argument is a flag with its value.
type argument struct {
	flag, what, value string
	given             bool
}

// meaning says what a flag asks for; empty: it is one that the site may allow as it is.
func (s *sizer) meaning(flag string, d dialect) (what, problem string) {
	what = d.flags[flag]
	switch {
	case !strings.HasPrefix(flag, "-") || flag == "-" || flag == "--":
		return "", "\"" + clip(flag) + "\" is no flag"
	case what == "forbidden" || what == "" && banned(s.rules.Scheduler, flag):
		return "", clip(flag) + " is never allowed: the batch job's owner, environment, files and lifetime are not the job's to choose"
	}
	return what, ""
}

// split takes a word of a command line apart.
func split(word string, d dialect) (flag, value string, given bool) {
	if strings.HasPrefix(word, "--") {
		flag, value, given = strings.Cut(word, "=")
		return flag, value, given
	}
	if len(word) > 2 && word[0] == '-' && d.flags[word] == "" && d.flags[word[:2]] != "" && !valueless(d.flags[word[:2]]) {
		return word[:2], strings.TrimPrefix(word[2:], "="), true
	}
	return word, "", false
}

// flag takes in one flag.
func (s *sizer) flag(a *asked, arg argument, source string) error {
	source += " (" + clip(arg.flag) + ")"
	what, value := arg.what, arg.value
	d := dialectOf(s.rules.Scheduler)
	switch what {
	case "-", "!":
		s.note("%s has no effect: it is chosen for the job", source)
		return nil
	case "resources":
		return s.resources(a, value, source)
	case "gres":
		return gres(a, value, source, d)
	case "":
		option := arg.flag
		if arg.given {
			option += "=" + value
		}
		a.from[option] = source
		a.more = append(a.more, option)
		return nil
	case "nodes":
		if from, to, ok := strings.Cut(value, "-"); ok && from == to {
			value = from
		}
	}
	return a.put(what, value, source, d)
}

// gres reads what Slurm calls generic resources, of which only GPUs are known: gpu, gpu:2, gpu:a100:2.
func gres(a *asked, value, source string, d dialect) error {
	name, rest, _ := strings.Cut(value, ":")
	if name != "gpu" {
		return &Error{source, "\"" + clip(value) + "\": only gpu, gpu:NUMBER and gpu:TYPE:NUMBER can be asked for"}
	}
	if rest == "" {
		rest = "1"
	}
	if strings.Trim(rest, "0123456789") != "" && !strings.Contains(rest, ":") {
		rest += ":1" // a type alone
	}
	return a.put("node gpus", rest, source, d)
}

// resources reads what PBS calls a resource list: walltime=1:00:00,nodes=2:ppn=4 or select=2:ncpus=4:mem=8gb.
func (s *sizer) resources(a *asked, list, source string) error {
	d := dialectOf("pbs")
	for item := range strings.SplitSeq(list, ",") {
		for part := range strings.SplitSeq(item, ":") {
			if name, value, ok := strings.Cut(part, "="); ok && name == "walltime" {
				value = item[len("walltime="):]
				if err := a.put("walltime", value, source, d); err != nil {
					return err
				}
				break
			} else if err := chunk(a, name, value, source, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunk reads one part of a resource list.
func chunk(a *asked, name, value, source string, d dialect) error {
	what := map[string]string{
		"nodes": "nodes", "select": "nodes", "nodect": "nodes", "ppn": "cpus", "ncpus": "cpus", "mem": "memory", "pmem": "memory per cpu", "vmem": "memory", "gpus": "gpus",
		"ngpus": "gpus", "gpu_type": "gpu type", "accelerator_type": "gpu type",
	}[name]
	if what == "" {
		return &Error{source, "\"" + clip(name) + "\" can't be asked for"}
	}
	return a.put(what, value, source, d)
}
