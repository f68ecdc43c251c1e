// Package config reads, explains and edits config.toml, the configuration file of GitLab Runner, which is ours too
// (contract 11): bytes in; settings and problems, each with its place in the file, out.
//
// It does not read files, look at the environment or apply settings: the caller hands in bytes and the functions that
// look things up, and decides which problems stop it. It changes no text that it was not asked to change.
//
// The struct tags of the settings are the one table of all keys. A tag may hold
//
//   - toml: the key as it is documented; matching ignores case
//   - about, example: what explain prints
//   - default: the value of a key that is not given; zero:"default" means that 0 asks for it too, zero:"below" that
//     negative values do as well
//   - unit:"s": an integer number of seconds, where other durations are strings or integer nanoseconds
//   - enum, min, check: values that are allowed
//   - case:"any": those of enum in capital and small letters
//   - old: other spellings that are read
//   - shown:"short": a secret whose beginning may be shown; shown:"given": a section that is shown only if it says something
//   - built:"no": known, and without effect so far; it holds for all keys below
//   - flag, short, env, prefix: the flag and environment variable of register and run-single (contract 12.3)
//
// Its callers are the commands, which map settings to what each package needs.
package config
