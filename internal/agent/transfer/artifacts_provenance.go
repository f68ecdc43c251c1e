package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// statement tells where an archive's files come from: an in-toto statement with a provenance of SLSA 1.0 (runner
// contract, section 8.3). It is the last file of the archive, so that it is about exactly the bytes that were packed.
type statement struct {
	about    *tranter.Provenance
	job      int64
	name     string // of the file in the archive
	began    time.Time
	finished time.Time
	subjects []subject
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

func newStatement(e *env.Env, about *tranter.Provenance, archiveName string) *statement {
	if about.Schema != "" && about.Schema != "v1" {
		e.Log.Warning("SLSA_PROVENANCE_SCHEMA_VERSION: unknown version %q, using v1", about.Schema)
	}
	s := &statement{about: about, job: e.Phase.JobID, name: archiveName + "-metadata.json"}
	s.began, s.finished = span(e)
	return s
}

// span returns when the job began and when its last script ended.
func span(e *env.Env) (began, finished time.Time) {
	if e.Steps == nil {
		return time.Time{}, time.Time{}
	}
	steps := e.Steps()
	if len(steps) == 0 {
		return time.Time{}, time.Time{}
	}
	began = time.UnixMilli(steps[0].Started)
	for _, s := range steps {
		if strings.HasPrefix(s.Name, "step_") || s.Name == "after_script" {
			finished = time.UnixMilli(s.Ended)
		}
	}
	return began, finished
}

// begin returns files and options with which the statement gets into the archive. A file of the project in its place is
// left out.
func (s *statement) begin(files archive.Files, o archive.Options) (archive.Files, archive.Options) {
	s.subjects = nil
	files.List = slices.DeleteFunc(slices.Clone(files.List), func(f archive.File) bool { return f.Path == s.name })
	o.Digest = func(path string, sum [sha256.Size]byte) {
		s.subjects = append(s.subjects, subject{path, map[string]string{"sha256": hex.EncodeToString(sum[:])}})
	}
	o.Last = func() (string, []byte, error) {
		text, err := s.text()
		return s.name, text, err
	}
	return files, o
}

type object map[string]any

func (s *statement) text() ([]byte, error) {
	a := s.about
	parameters := object{}
	for _, key := range a.Parameters {
		parameters[key] = ""
	}
	parameters["entryPoint"], parameters["source"] = a.JobName, a.RepoURL
	// What is called sha256 is no SHA-256 in a repository with SHA-1, but those who read statements of GitLab Runner
	// find the commit there. Its proper name stands beside it.
	digest := object{"sha256": a.SHA, "gitCommit": a.SHA}
	metadata := object{"invocationId": strconv.FormatInt(s.job, 10)}
	for key, t := range map[string]time.Time{"startedOn": s.began, "finishedOn": s.finished} {
		if !t.IsZero() {
			metadata[key] = t.UTC().Format(time.RFC3339)
		}
	}
	subjects := s.subjects
	if subjects == nil {
		subjects = []subject{}
	}
	text, err := json.MarshalIndent(object{
		"_type":         "https://in-toto.io/Statement/v0.1",
		"predicateType": "https://slsa.dev/provenance/v1",
		"subject":       subjects,
		"predicate": object{
			"buildDefinition": object{
				"buildType":          a.BuildType,
				"externalParameters": parameters,
				"internalParameters": object{
					"name": a.RunnerName, "executor": a.Executor, "architecture": a.Architecture, "job": strconv.FormatInt(s.job, 10),
				},
				"resolvedDependencies": []object{{"uri": a.RepoURL, "digest": digest}},
			},
			"runDetails": object{
				"builder":  object{"id": a.RepoURL + "/-/runners/" + a.RunnerID},
				"metadata": metadata,
			},
		},
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write the provenance: %w", err)
	}
	return append(text, '\n'), nil
}
