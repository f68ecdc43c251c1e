// Package tranter holds the nouns and contracts of Tranter: jobs, phases, results, and the small interfaces between
// the engines that run jobs and the adapters at the edge.
//
// It is not a place for loops, I/O or libraries: it imports the standard library only, and every other package may
// import it.
//
// # Glossary
//
//   - coordinator: a GitLab server seen through its Runner API, or our local stand-in for one.
//   - runner: one [[runners]] section of config.toml, that is, one token.
//   - manager: one running "tranter run" process; it serves many runners.
//   - job: one CI job handed out by a coordinator, with its payload.
//   - plan: the phases that a job's payload and its runner's settings amount to.
//   - phase: the part of a plan that runs in one environment in one go, without help from outside.
//   - step: one typed action of a phase (get the sources, run the script, upload artifacts, ...).
//   - agent: the program inside the environment that works through a phase.
//   - journal: the append-only file to which the agent writes the phase's log.
//   - trace: a job's log on its way to the coordinator.
//   - session: one job's hold on an environment of an executor.
//   - result: how a job ended. A failing script is a result; an error is a fault of ours.
package tranter
