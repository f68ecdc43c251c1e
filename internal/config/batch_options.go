package config

import (
	"slices"
	"strings"
)

// optionRules is what a batch system's submit command must not be given besides what we give it.
type optionRules struct {
	long  map[string]string // by name without dashes; the value is why, or the key to use, with a leading = sign
	short map[byte]string
	flags string // short options without an argument, which may be followed by others in one word
	words bool   // options are words after one dash
}

// Why an option is refused.
const (
	whyOutput = "a batch job's output and input are where they are looked for"
	whyUser   = "as whom a batch job runs is decided by users"
	whyScript = "what a batch job runs is not for options to say"
	whyName   = "batch jobs are found again by their names"
	whyMany   = "one submission is one batch job"
	whyAgain  = "a batch job that begins again would run its jobs again"
	whyEnv    = "the environment would hold the manager's secrets; use environment"
	whyWhen   = "when a batch job begins is decided by the jobs that wait"
	whyAsk    = "the answer of the submit command would not be understood"
)

func batchOptionRules() map[string]optionRules {
	return map[string]optionRules{
		"slurm": {
			long: map[string]string{
				"output": whyOutput, "error": whyOutput, "input": whyOutput, "open-mode": whyOutput, "chdir": whyOutput, "uid": whyUser, "gid": whyUser,
				"wrap": whyScript, "job-name": whyName, "array": whyMany, "requeue": whyAgain, "no-requeue": whyAgain, "export": whyEnv, "export-file": whyEnv,
				"get-user-env": whyEnv, "dependency": whyWhen, "begin": whyWhen, "hold": whyWhen, "wait": whyAsk, "parsable": whyAsk, "test-only": whyAsk,
				"help": whyAsk, "usage": whyAsk, "version": whyAsk, "quiet": whyAsk, "clusters": whyAsk, "signal": whyScript, "jobid": whyMany,
				"time": "=walltime", "partition": "=partition", "account": "=account", "qos": "=qos", "constraint": "=constraint", "reservation": "=reservation",
				"nodes": "=nodes", "cpus-per-task": "=cpus", "mem": "=memory", "mem-per-cpu": "=memory", "mem-per-gpu": "=memory", "gpus": "=gpus", "gres": "=gpus", "exclusive": "=exclusive",
			},
			short: map[byte]string{
				'o': whyOutput, 'e': whyOutput, 'i': whyOutput, 'D': whyOutput, 'J': whyName, 'a': whyMany, 'd': whyWhen, 'b': whyWhen, 'H': whyWhen, 'W': whyAsk,
				'h': whyAsk, 'V': whyAsk, 'Q': whyAsk, 'M': whyAsk, 't': "=walltime", 'p': "=partition", 'A': "=account", 'q': "=qos", 'C': "=constraint", 'N': "=nodes", 'c': "=cpus", 'G': "=gpus",
			},
			flags: "skKvO",
		},
		"pbs": {
			long: map[string]string{"version": whyAsk},
			short: map[byte]string{
				'o': whyOutput, 'e': whyOutput, 'j': whyOutput, 'k': whyOutput, 'R': whyOutput, 'd': whyOutput, 'D': whyOutput, 'w': whyOutput, 'N': whyName, 'J': whyMany, 't': whyMany, 'u': whyUser,
				'r': whyAgain, 'V': whyEnv, 'v': whyEnv, 'a': whyWhen, 'h': whyWhen, 'I': whyAsk, 'X': whyAsk, 'z': whyAsk, 'C': whyScript, 'S': whyScript,
				'q': "=partition", 'A': "=account", 'P': "=account",
			},
			flags: "fnx",
		},
		"lsf": {
			words: true,
			long: map[string]string{
				"o": whyOutput, "oo": whyOutput, "e": whyOutput, "eo": whyOutput, "i": whyOutput, "is": whyOutput, "cwd": whyOutput, "outdir": whyOutput, "J": whyName, "Jd": whyName, "w": whyWhen, "b": whyWhen,
				"H": whyWhen, "r": whyAgain, "rn": whyAgain, "env": whyEnv, "L": whyScript, "E": whyScript, "Ep": whyScript, "Zs": whyScript, "K": whyAsk, "I": whyAsk, "Ip": whyAsk, "Is": whyAsk, "u": whyOutput, "user": whyUser,
				"pack": whyMany, "f": whyOutput, "W": "=walltime", "We": "=walltime", "q": "=partition", "P": "=account", "G": "=account", "U": "=reservation", "M": "=memory", "n": "=cpus", "gpu": "=gpus", "x": "=exclusive",
			},
		},
		"flux": {
			long: map[string]string{
				"output": whyOutput, "error": whyOutput, "input": whyOutput, "cwd": whyOutput, "job-name": whyName, "dependency": whyWhen, "begin-time": whyWhen, "urgency": whyWhen, "cc": whyMany, "bcc": whyMany,
				"env": whyEnv, "env-remove": whyEnv, "env-file": whyEnv, "wait": whyAsk, "watch": whyAsk, "dry-run": whyAsk, "quiet": whyAsk, "wrap": whyScript, "flags": whyAsk, "help": whyAsk,
				"time-limit": "=walltime", "queue": "=partition", "bank": "=account", "nodes": "=nodes", "cores-per-slot": "=cpus", "gpus-per-slot": "=gpus", "exclusive": "=exclusive", "requires": "=constraint",
			},
			short: map[byte]string{'t': "=walltime", 'q': "=partition", 'B': "=account", 'N': "=nodes", 'c': "=cpus", 'g': "=gpus", 'x': "=exclusive"},
			flags: "vl",
		},
	}
}

// BatchOptions checks arguments for the submit command of a batch system, wherever they come from. It returns what is wrong
// with the first one that is not to be given and which one that is; an empty problem means that all may be.
func BatchOptions(scheduler string, options []string) (at int, problem, hint string) {
	rules := batchOptionRules()[scheduler]
	value := false // the word may be the value of the one before it
	for i, o := range options {
		if len(o) < 2 || o[0] != '-' {
			if !value {
				return i, "is not an option", "An option begins with a dash; without one it would be taken for the script to run."
			}
			value = false
			continue
		}
		if o == "--" || strings.ContainsAny(o, "\n\r\x00") {
			return i, "is not an option", "Remove it."
		}
		if why := rules.refuse(o); why != "" {
			if key, ok := strings.CutPrefix(why, "="); ok {
				return i, "has a key of its own", "Use " + key + ", so that it is known what a batch job has."
			}
			return i, "this option must not be given", strings.ToUpper(why[:1]) + why[1:] + "."
		}
		value = !strings.Contains(o, "=")
	}
	return 0, "", ""
}

// refuse returns why an option is not to be given; empty: it may be.
func (r optionRules) refuse(option string) string {
	if r.words {
		return r.long[strings.TrimLeft(option, "-")]
	}
	if name, ok := strings.CutPrefix(option, "--"); ok {
		name, _, _ = strings.Cut(name, "=")
		if why := r.long[name]; why != "" {
			return why
		}
		return r.abbreviated(name)
	}
	for i := 1; i < len(option); i++ {
		if why := r.short[option[i]]; why != "" {
			return why
		}
		if !strings.Contains(r.flags, option[i:i+1]) {
			return "" // the rest is its argument
		}
	}
	return ""
}

// abbreviated finds an option by its beginning, as the commands do.
func (r optionRules) abbreviated(name string) string {
	var found []string
	for long := range r.long {
		if strings.HasPrefix(long, name) {
			found = append(found, long)
		}
	}
	if len(found) == 0 {
		return ""
	}
	return r.long[slices.Min(found)]
}
