// Package coordinator is a local GitLab: it serves GitLab's side of the Runner API, repositories over HTTP and a small
// part of the management API from a state directory, and drives pipelines that package pipeline has compiled. What
// runs next is decided by Advance, a function of values; the rest stores, serves and tells.
//
// It is no GitLab: there are no users, no groups, no merge requests, and one administrator's token. It does not compile
// .gitlab-ci.yml and does not run jobs; a runner of any make does. It is called by cmd/tranter (coordinator, demo,
// pipeline run) and by coordinatortest.
package coordinator
