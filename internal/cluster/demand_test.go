package cluster

import (
	"slices"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

func TestNobodyCanSayThatAJobIsAnotherUsers(t *testing.T) {
	login := func(value string) tranter.Variable { return tranter.Variable{Key: "GITLAB_USER_LOGIN", Value: value} }
	id := func(value string) tranter.Variable { return tranter.Variable{Key: "GITLAB_USER_ID", Value: value} }
	for name, c := range map[string]struct {
		vars []tranter.Variable
		id   int64  // in job_info
		says string // of the error; empty: there is none
	}{
		"GitLab's alone":              {vars: []tranter.Variable{id("7"), login("bob")}, id: 7},
		"GitLab's, twice":             {vars: []tranter.Variable{login("bob"), id("7"), login("bob")}},
		"in the pipeline's file":      {vars: []tranter.Variable{login("alice"), id("7"), login("bob")}, id: 7, says: "GITLAB_USER_LOGIN"},
		"in the project or a trigger": {vars: []tranter.Variable{id("7"), login("bob"), login("alice")}, id: 7, says: "GITLAB_USER_LOGIN"},
		"the number":                  {vars: []tranter.Variable{id("1"), id("7"), login("bob")}, says: "GITLAB_USER_ID"},
		"no number of GitLab's":       {vars: []tranter.Variable{id("1"), login("bob")}, id: 7, says: "GITLAB_USER_ID"},
		"emptied":                     {vars: []tranter.Variable{login("bob"), login("")}, says: "GITLAB_USER_LOGIN"},
		"a reference":                 {vars: []tranter.Variable{login("$WHO"), login("bob")}, says: "GITLAB_USER_LOGIN"},
	} {
		u, err := jobUser(&tranter.Job{Info: tranter.JobInfo{UserID: c.id}, Variables: c.vars})
		switch {
		case c.says == "" && (err != nil || u.Name != "bob"):
			t.Errorf("%s: %+v, %v", name, u, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %+v, %v; want an error about %s", name, u, err, c.says)
		case c.says == "GITLAB_USER_LOGIN" && (u.Name == "alice" || u.Name == "bob"):
			t.Errorf("%s: its domain is that of %s", name, u.Name)
		}
	}
}

func TestTheTagsOfAJobThatWasNotSeenWaitingAreTheServersWord(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{`["gpu", "large"]`: {"gpu", "large"}, `[]`: {}, "": nil, "gpu, large": nil} {
		got := jobTags(&tranter.Job{Variables: []tranter.Variable{{Key: "CI_JOB_TAGS", Value: text}}})
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, expected %q", text, got, want)
		}
	}
}
