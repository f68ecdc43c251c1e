// Package site reads the site file: one file that says which runners a site has at a GitLab server, what they ask for, and
// how their jobs come to the cluster (hpc, section 1). It is a layer above config.toml: templates and their instances become
// runners, and the runners' settings become a configuration of package config.
//
// The file of the bridge gitlab-meta-runner is one of them, unchanged. What it has not is added beside it: further scopes,
// values from files and the environment, includes, defaults, shards, batch jobs of our own.
//
// The package does no I/O: files and the environment come in as functions, and what is wrong comes out as problems with
// their places, all at once. Its callers are the commands "tranter site ...".
package site
