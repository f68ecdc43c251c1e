package job

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
)

// mostWord bounds what a payload says of a job for people.
const mostWord = 1 << 10

const mostTags = 50

// tagsOf reads what the server says of the runner's tags, as a list of JSON or with commas between them.
func tagsOf(s string) []string {
	var tags []string
	if len(s) > 64<<10 || json.Unmarshal([]byte(s), &tags) == nil && len(tags) == 0 {
		return nil
	}
	if tags == nil {
		tags = strings.Split(strings.Trim(s, "[]"), ",")
	}
	tags = tags[:min(len(tags), mostTags)]
	for i, tag := range tags {
		tag = strings.TrimSpace(tag)
		tags[i] = strings.ToValidUTF8(tag[:min(len(tag), 255)], "")
	}
	return slices.DeleteFunc(tags, func(tag string) bool { return tag == "" })
}

// labelOf says which job of whom it is. What a server says is bounded; nothing of it is secret.
func labelOf(j *tranter.Job) tranter.JobLabel {
	word := func(s string) string { return strings.ToValidUTF8(s[:min(len(s), mostWord)], "") }
	l := tranter.JobLabel{
		ID: j.ID, Name: word(j.Info.Name), Stage: word(j.Info.Stage), URL: word(j.URL()), Pipeline: j.Info.PipelineID,
		ProjectID: j.Info.ProjectID, Project: word(cmp.Or(j.Info.ProjectFullPath, j.Info.ProjectName)), Ref: word(j.Git.Ref), SHA: word(j.Git.SHA),
		Queue: tranter.JobQueue{ProjectJobs: word(j.Info.ProjectJobsRunning), Size: j.Info.QueueSize, Depth: j.Info.QueueDepth},
	}
	l.Queue = tranter.JobQueue{ProjectJobs: word(j.Info.ProjectJobsRunning), Size: max(0, j.Info.QueueSize), Depth: max(0, j.Info.QueueDepth)}
	for _, v := range j.Variables {
		switch v.Key {
		case "GITLAB_USER_LOGIN":
			l.User = word(v.Value)
		case "CI_PROJECT_VISIBILITY":
			l.Public = word(v.Value)
		case "CI_RUNNER_TAGS":
			l.Tags = tagsOf(v.Value)
		case "CI_PROJECT_PATH":
			if j.Info.ProjectFullPath == "" && v.Value != "" {
				l.Project = word(v.Value)
			}
		}
	}
	return l
}
