package pbs

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// dialect is one of the family.
type dialect string

const (
	openPBS dialect = "OpenPBS" // and PBS Professional
	torque  dialect = "Torque"
	wrapper dialect = "Slurm's qsub"
)

// plain is what may be in a value: the commands' lists know no quotes, and Slurm's qsub hands its arguments to a shell.
var (
	plain = lazy.Regexp(`^[A-Za-z0-9_./@%=-]+$`)
	path  = lazy.Regexp(`^/[A-Za-z0-9_./@%=-]*$`)
	// sized are properties of a node that would ask for more than was allowed.
	sized = lazy.Regexp(`(?i)(^|:)(n?cpus|mem|vmem|n?gpus|mpiprocs|ompthreads|ppn|procs|walltime)=`)
)

// arguments are those of qsub besides the name.
func (d dialect) arguments(spec tranter.BatchSpec) ([]string, error) {
	if err := d.possible(spec); err != nil {
		return nil, err
	}
	s := spec.Shape
	args := []string{"-r", "n", "-j", "oe", "-o", spec.Output, "-m", "n"}
	switch d {
	case wrapper:
		args = append(args, "-wd", spec.Dir)
	case torque:
		args = append(args, "-d", spec.Dir, "-S", interpreter(spec.Script), "-v", nameVariable+"="+spec.Name)
	default:
		args = append(args, "-S", interpreter(spec.Script), "-v", nameVariable+"="+spec.Name)
	}
	if queue := cmp.Or(s.Partition, d.reserved(s)); queue != "" {
		args = append(args, "-q", queue)
	}
	if s.Account != "" {
		args = append(args, "-A", s.Account)
	}
	for _, r := range d.resources(s) {
		args = append(args, "-l", r)
	}
	return append(args, s.Options...), nil
}

// possible says whether a job can be asked for in the dialect.
func (d dialect) possible(spec tranter.BatchSpec) error {
	s := spec.Shape
	if !jobName().MatchString(spec.Name) || len(spec.Name) > 230 {
		return errors.New("this is no name for a batch job")
	}
	if !path().MatchString(spec.Output) || !path().MatchString(spec.Dir) {
		return fmt.Errorf("output %q and working directory %q have to be absolute paths of letters, digits and few signs", spec.Output, spec.Dir)
	}
	for what, value := range map[string]string{"partition": s.Partition, "account": s.Account, "qos": s.QOS, "reservation": s.Reservation, "GPU type": s.GPUType} {
		if value != "" && !plain().MatchString(value) {
			return fmt.Errorf("%s %q has signs that PBS does not take", what, value)
		}
	}
	if !harmless(s.Constraint) {
		return fmt.Errorf("the constraint %q is not one of NAME, NAME=VALUE, with colons between them", s.Constraint)
	}
	if d == wrapper {
		if i := slices.IndexFunc(s.Options, shellSigns); i >= 0 {
			return fmt.Errorf("the option %q has signs that Slurm's qsub would hand to a shell", s.Options[i])
		}
	}
	return d.known(s)
}

// harmless says whether a constraint is one, and asks for nothing else.
func harmless(constraint string) bool {
	return constraint == "" || plain().MatchString(strings.ReplaceAll(constraint, ":", "_")) && !sized().MatchString(constraint)
}

func shellSigns(option string) bool {
	return !plain().MatchString(strings.ReplaceAll(option, ",", "_"))
}

// known refuses what the dialect has no words for.
func (d dialect) known(s tranter.Shape) error {
	switch {
	case s.QOS != "" && d != torque:
		return fmt.Errorf("%s knows no qos", d)
	case s.Reservation != "" && d == wrapper, s.Exclusive && d == wrapper, s.GPUType != "" && d == wrapper:
		return fmt.Errorf("%s knows no reservations, exclusive nodes and types of GPUs", d)
	case s.Reservation != "" && s.Partition != "" && d == openPBS:
		return errors.New("a reservation is a queue of its own: partition and reservation can't both be given")
	}
	return nil
}

// reserved is the queue of a reservation.
func (d dialect) reserved(s tranter.Shape) string {
	if d == openPBS {
		return s.Reservation
	}
	return ""
}

// resources are the arguments of -l.
func (d dialect) resources(s tranter.Shape) []string {
	var all []string
	switch d {
	case openPBS:
		all = openPBSResources(s)
	case torque:
		all = torqueResources(s)
	case wrapper:
		all = named("mem", megabytes(s.Memory), "proc", s.Constraint)
		if wanted := nodes(tranter.Shape{Nodes: s.Nodes, CPUs: s.CPUs, GPUs: s.GPUs}); wanted != "" {
			all = append([]string{wanted}, all...)
		}
	}
	if s.Walltime > 0 {
		all = append(all, "walltime="+clock(s.Walltime))
	}
	if d == wrapper && len(all) > 0 { // it takes one -l only
		return []string{strings.Join(all, ",")}
	}
	return all
}

func torqueResources(s tranter.Shape) []string {
	var all []string
	if wanted := nodes(s); wanted != "" {
		all = append(all, wanted)
	}
	memory := s.Memory * int64(max(1, s.Nodes)) // of the whole job
	all = append(all, named("mem", megabytes(memory), "qos", s.QOS, "advres", s.Reservation)...)
	if s.Exclusive {
		all = append(all, "naccesspolicy=singlejob")
	}
	return all
}

func openPBSResources(s tranter.Shape) []string {
	chunk := append([]string{strconv.Itoa(max(1, s.Nodes))}, named("ncpus", number(s.CPUs), "mem", megabytes(s.Memory), "ngpus", number(s.GPUs), "gpu_type", s.GPUType)...)
	if s.Constraint != "" {
		chunk = append(chunk, s.Constraint)
	}
	all := []string{"select=" + strings.Join(chunk, ":")}
	switch {
	case s.Exclusive:
		all = append(all, "place=scatter:excl")
	case s.Nodes > 1:
		all = append(all, "place=scatter")
	}
	return all
}

// nodes is Torque's word for what is wanted of nodes; "" if that is nothing.
func nodes(s tranter.Shape) string {
	if s.Nodes == 0 && s.CPUs == 0 && s.GPUs == 0 && s.Constraint == "" {
		return ""
	}
	text := "nodes=" + strconv.Itoa(max(1, s.Nodes))
	if s.CPUs > 0 {
		text += ":ppn=" + strconv.Itoa(s.CPUs)
	}
	if s.GPUs > 0 {
		text += ":gpus=" + strconv.Itoa(s.GPUs)
	}
	if s.GPUType != "" {
		text += ":" + s.GPUType
	}
	if s.Constraint != "" {
		text += ":" + s.Constraint
	}
	return text
}

// named makes NAME=VALUE of pairs, of those that have a value.
func named(pairs ...string) (all []string) {
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			all = append(all, pair[0]+"="+pair[1])
		}
	}
	return all
}

func number(n int) string {
	if n <= 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func megabytes(n int64) string {
	const mega = 1 << 20
	if n <= 0 {
		return ""
	}
	return strconv.FormatInt((n-1)/mega+1, 10) + "mb"
}

// clock is a length of time as HH:MM:SS, rounded up to minutes, as all who count in them would do.
func clock(d time.Duration) string {
	minutes := int64((d-1)/time.Minute) + 1
	return fmt.Sprintf("%02d:%02d:00", minutes/60, minutes%60)
}

// interpreter is the program that a script names in its first line: not all of the family look at that line.
func interpreter(script string) string {
	line, _, _ := strings.Cut(script, "\n")
	fields := strings.Fields(strings.TrimPrefix(line, "#!"))
	if !strings.HasPrefix(line, "#!") || len(fields) == 0 || !path().MatchString(fields[0]) {
		return "/bin/sh"
	}
	return fields[0]
}

// script is what qsub gets. PBS starts jobs in the user's home: a script of a shell goes to its directory itself.
func (d dialect) script(spec tranter.BatchSpec) string {
	if d != openPBS || !slices.Contains([]string{"sh", "bash", "dash", "ksh", "zsh"}, filepath.Base(interpreter(spec.Script))) {
		return spec.Script
	}
	first, rest, _ := strings.Cut(spec.Script, "\n")
	return first + "\ncd " + spec.Dir + " || exit 1\n" + rest // its signs mean nothing to a shell: see possible
}
