// Package pipeline compiles a .gitlab-ci.yml into the jobs of one pipeline, as a GitLab server would: includes, inputs,
// anchors, !reference, extends, defaults, rules, matrices, needs.
//
// It is a pure function of its input: files, changes and blob ids come through functions of the Input. It does not run
// anything and knows neither runner nor coordinator. The coordinator and the commands "pipeline run", "pipeline list" and
// "pipeline lint" call it.
package pipeline
