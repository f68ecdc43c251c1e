package pipeline

import (
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// Facts are what the predefined variables of a pipeline are made of. What is empty gets no variable, unless GitLab always
// has it.
type Facts struct {
	Project ProjectFacts
	Commit  CommitFacts
	Server  ServerFacts
	User    UserFacts
	Source  string // CI_PIPELINE_SOURCE; empty: push
	// MergeRequest is looked at when Source is merge_request_event.
	MergeRequest MergeRequestFacts
}

// ProjectFacts describe the project. ID and NamespaceID default to 1.
type ProjectFacts struct {
	ID, NamespaceID int64
	Path            string // with its namespace: group/sub/project
	Title           string // empty: the last part of Path
	Description     string
	DefaultBranch   string // empty: main
	ConfigPath      string // empty: .gitlab-ci.yml
	Visibility      string // empty: private
}

// CommitFacts describe the commit and the ref.
type CommitFacts struct {
	SHA, BeforeSHA string // BeforeSHA empty: there is none, given as zeros
	Ref            string // branch or tag
	Tag            bool
	TagMessage     string
	Message        string
	Author         string // Name <mail>
	Time           time.Time
	Protected      bool
}

// ServerFacts describe the server.
type ServerFacts struct {
	URL     string // without a slash at the end
	Name    string // empty: GitLab
	Version string // three numbers; empty: 0.0.0
}

// UserFacts describe who started the pipeline.
type UserFacts struct {
	ID    int64  // 0: 1
	Login string // empty: local
	Name  string // empty: as Login
	Email string // empty: Login at localhost
}

const maxMessage = 100_000 // bytes of CI_COMMIT_MESSAGE

func predefined(key, value string) tranter.Variable {
	return tranter.Variable{Key: key, Value: value, Public: true}
}

// Predefined returns the variables that are known before there is a pipeline (gitlab-server 5.5, phase P) and those of
// the user. They are what Input.Variables wants.
func Predefined(f Facts) []tranter.Variable {
	source := f.Source
	if source == "" {
		source = "push"
	}
	list := []tranter.Variable{
		predefined("CI", "true"), predefined("GITLAB_CI", "true"), predefined("CI_PIPELINE_SOURCE", source),
	}
	list = append(list, f.Server.variables()...)
	list = append(list, f.Project.variables(f.Server.URL)...)
	list = append(list, f.Commit.variables()...)
	switch {
	case f.Commit.Tag:
		list = append(list, predefined("CI_COMMIT_TAG", f.Commit.Ref), predefined("CI_COMMIT_TAG_MESSAGE", f.Commit.TagMessage))
	case source == "merge_request_event": // its ref is no branch
		list = append(list, f.MergeRequest.variables(f.Project, f.Commit.Ref, f.Server.URL)...)
	default:
		list = append(list, predefined("CI_COMMIT_BRANCH", f.Commit.Ref))
	}
	return append(list, f.User.variables()...)
}

func (f ServerFacts) variables() []tranter.Variable {
	name, version := f.Name, f.Version
	if name == "" {
		name = "GitLab"
	}
	if version == "" {
		version = "0.0.0"
	}
	numbers := append(strings.SplitN(version, ".", 3), "0", "0")
	list := []tranter.Variable{
		predefined("CI_SERVER_NAME", name), predefined("CI_SERVER_VERSION", version), predefined("CI_SERVER_VERSION_MAJOR", numbers[0]),
		predefined("CI_SERVER_VERSION_MINOR", numbers[1]), predefined("CI_SERVER_VERSION_PATCH", numbers[2]),
		predefined("CI_SERVER_REVISION", "tranter"), predefined("GITLAB_FEATURES", ""),
	}
	u, err := url.Parse(f.URL)
	if err != nil || u.Host == "" {
		return list
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return append(
		list, predefined("CI_SERVER_URL", f.URL), predefined("CI_SERVER_FQDN", u.Host), predefined("CI_SERVER_HOST", u.Hostname()),
		predefined("CI_SERVER_PORT", port), predefined("CI_SERVER_PROTOCOL", u.Scheme), predefined("CI_SERVER_SHELL_SSH_HOST", u.Hostname()),
		predefined("CI_SERVER_SHELL_SSH_PORT", "22"), predefined("CI_TEMPLATE_REGISTRY_HOST", "registry.gitlab.com"),
		predefined("CI_API_V4_URL", f.URL+"/api/v4"), predefined("CI_API_GRAPHQL_URL", f.URL+"/api/graphql"),
	)
}

func orText(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func number(n int64) string { return strconv.FormatInt(max(n, 1), 10) }

func (f ProjectFacts) variables(server string) []tranter.Variable {
	name := path.Base(f.Path)
	namespace := strings.TrimSuffix(strings.TrimSuffix(f.Path, name), "/")
	root, _, _ := strings.Cut(namespace, "/")
	branch := orText(f.DefaultBranch, "main")
	list := []tranter.Variable{
		predefined("CI_PROJECT_ID", number(f.ID)), predefined("CI_PROJECT_NAME", name), predefined("CI_PROJECT_TITLE", orText(f.Title, name)),
		predefined("CI_PROJECT_DESCRIPTION", f.Description), predefined("CI_PROJECT_PATH", f.Path), predefined("CI_PROJECT_PATH_SLUG", Slug(f.Path)),
		predefined("CI_PROJECT_NAMESPACE", namespace), predefined("CI_PROJECT_NAMESPACE_ID", number(f.NamespaceID)),
		predefined("CI_PROJECT_NAMESPACE_SLUG", Slug(namespace)), predefined("CI_PROJECT_ROOT_NAMESPACE", root),
		predefined("CI_PROJECT_VISIBILITY", orText(f.Visibility, "private")), predefined("CI_PROJECT_TOPICS", ""),
		predefined("CI_PROJECT_REPOSITORY_LANGUAGES", ""), predefined("CI_PROJECT_CLASSIFICATION_LABEL", ""),
		predefined("CI_CONFIG_PATH", orText(f.ConfigPath, ".gitlab-ci.yml")),
		predefined("CI_DEFAULT_BRANCH", branch), predefined("CI_DEFAULT_BRANCH_SLUG", Slug(branch)),
	}
	if server != "" {
		list = append(list, predefined("CI_PROJECT_URL", server+"/"+f.Path))
	}
	return list
}

func (f CommitFacts) variables() []tranter.Variable {
	title, description, _ := strings.Cut(f.Message, "\n")
	before := orText(f.BeforeSHA, strings.Repeat("0", max(len(f.SHA), 40)))
	message, cut := f.Message, len(f.Message) > maxMessage
	if cut {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	list := []tranter.Variable{
		predefined("CI_COMMIT_SHA", f.SHA), predefined("CI_COMMIT_SHORT_SHA", f.SHA[:min(8, len(f.SHA))]),
		predefined("CI_COMMIT_BEFORE_SHA", before), predefined("CI_COMMIT_REF_NAME", f.Ref), predefined("CI_COMMIT_REF_SLUG", Slug(f.Ref)),
		predefined("CI_COMMIT_REF_PROTECTED", strconv.FormatBool(f.Protected)), predefined("CI_COMMIT_MESSAGE", message),
		predefined("CI_COMMIT_MESSAGE_IS_TRUNCATED", strconv.FormatBool(cut)), predefined("CI_COMMIT_TITLE", title),
		predefined("CI_COMMIT_DESCRIPTION", strings.TrimPrefix(description, "\n")), predefined("CI_COMMIT_AUTHOR", f.Author),
	}
	if !f.Time.IsZero() {
		list = append(list, predefined("CI_COMMIT_TIMESTAMP", f.Time.Format(time.RFC3339)))
	}
	return list
}

func (f UserFacts) variables() []tranter.Variable {
	login := orText(f.Login, "local")
	return []tranter.Variable{
		predefined("GITLAB_USER_ID", number(f.ID)), predefined("GITLAB_USER_LOGIN", login), predefined("GITLAB_USER_NAME", orText(f.Name, login)),
		predefined("GITLAB_USER_EMAIL", orText(f.Email, login+"@localhost")),
	}
}

// JobPredefined returns the variables that follow from a job's definition and are known to its rules (gitlab-server 5.5,
// phase J). Those of ids and times are the coordinator's.
func JobPredefined(j *Job) []tranter.Variable {
	list := []tranter.Variable{
		predefined("CI_JOB_NAME", j.Name), predefined("CI_JOB_NAME_SLUG", Slug(j.Name)), predefined("CI_JOB_GROUP_NAME", j.Group),
		predefined("CI_JOB_STAGE", j.Stage), predefined("CI_NODE_TOTAL", strconv.Itoa(max(1, j.Total))),
	}
	if j.Index > 0 {
		list = append(list, predefined("CI_NODE_INDEX", strconv.Itoa(j.Index)))
	}
	if j.When == Manual {
		list = append(list, predefined("CI_JOB_MANUAL", "true"))
	}
	return append(list, environmentPredefined(j.Environment)...)
}
