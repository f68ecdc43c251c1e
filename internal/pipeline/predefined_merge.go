package pipeline

import (
	"strconv"

	"github.com/tranter-ci/tranter"
)

// MergeRequestFacts describe the merge request of a pipeline whose source is merge_request_event.
type MergeRequestFacts struct {
	IID                        int64 // 0: 1
	Title, Description         string
	SourceBranch, TargetBranch string // empty: the commit's ref, the default branch
	Labels                     string // separated by commas
	DiffBaseSHA                string
	Draft                      bool
}

// variables gives what a merge request pipeline has (gitlab-server 5.5). The source project is the project itself.
func (f MergeRequestFacts) variables(p ProjectFacts, ref, server string) []tranter.Variable {
	iid := number(f.IID)
	list := []tranter.Variable{
		predefined("CI_MERGE_REQUEST_ID", iid), predefined("CI_MERGE_REQUEST_IID", iid), predefined("CI_MERGE_REQUEST_EVENT_TYPE", "detached"),
		predefined("CI_MERGE_REQUEST_REF_PATH", "refs/merge-requests/"+iid+"/head"), predefined("CI_MERGE_REQUEST_TITLE", f.Title),
		predefined("CI_MERGE_REQUEST_DESCRIPTION", f.Description), predefined("CI_MERGE_REQUEST_DRAFT", strconv.FormatBool(f.Draft)),
		predefined("CI_MERGE_REQUEST_PROJECT_ID", number(p.ID)), predefined("CI_MERGE_REQUEST_PROJECT_PATH", p.Path),
		predefined("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", number(p.ID)), predefined("CI_MERGE_REQUEST_SOURCE_PROJECT_PATH", p.Path),
		predefined("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", orText(f.SourceBranch, ref)),
		predefined("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", orText(f.TargetBranch, orText(p.DefaultBranch, "main"))),
		predefined("CI_OPEN_MERGE_REQUESTS", p.Path+"!"+iid),
	}
	if server != "" {
		list = append(list, predefined("CI_MERGE_REQUEST_PROJECT_URL", server+"/"+p.Path), predefined("CI_MERGE_REQUEST_SOURCE_PROJECT_URL", server+"/"+p.Path))
	}
	for _, v := range []tranter.Variable{predefined("CI_MERGE_REQUEST_LABELS", f.Labels), predefined("CI_MERGE_REQUEST_DIFF_BASE_SHA", f.DiffBaseSHA)} {
		if v.Value != "" {
			list = append(list, v)
		}
	}
	return list
}
