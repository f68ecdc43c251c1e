package pipeline

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
)

// reportType is how a report travels: the format and the name that the runner uploads it with (gitlab-server 1.7).
type reportType struct {
	format, file string
}

func reportOf(key string) (reportType, bool) {
	switch key {
	case "junit":
		return reportType{"gzip", "junit.xml"}, true
	case "metrics":
		return reportType{"gzip", "metrics.txt"}, true
	case "dotenv":
		return reportType{"gzip", ".env"}, true
	case "cyclonedx":
		return reportType{"gzip", "gl-sbom.cdx.json"}, true
	case "annotations":
		return reportType{"gzip", "gl-annotations.json"}, true
	case "repository_xray":
		return reportType{"gzip", "gl-repository-xray.json"}, true
	case "lsif":
		return reportType{"zip", "lsif.json"}, true
	case "scip":
		return reportType{"zip", "index.scip"}, true
	}
	file, ok := rawReports()[key]
	return reportType{"raw", file}, ok
}

func rawReports() map[string]string {
	return map[string]string{
		"sast": "gl-sast-report.json", "secret_detection": "gl-secret-detection-report.json",
		"dependency_scanning": "gl-dependency-scanning-report.json", "container_scanning": "gl-container-scanning-report.json",
		"cluster_image_scanning": "gl-cluster-image-scanning-report.json", "dast": "gl-dast-report.json",
		"license_scanning": "gl-license-scanning-report.json", "accessibility": "gl-accessibility.json",
		"codequality": "gl-code-quality-report.json", "performance": "performance.json", "browser_performance": "browser-performance.json",
		"load_performance": "load-performance.json", "terraform": "tfplan.json", "requirements": "requirements.json",
		"requirements_v2": "requirements_v2.json", "coverage_fuzzing": "gl-coverage-fuzzing.json", "api_fuzzing": "gl-api-fuzzing-report.json",
		"sarif": "gl-sarif-report.json",
	}
}

func reportKeys() []string {
	keys := append(sortedKeys(rawReports()), "junit", "metrics", "dotenv", "cyclonedx", "annotations", "repository_xray", "lsif", "scip")
	slices.Sort(keys)
	return append(keys, "coverage_report")
}

// readResults reads what the job leaves behind.
func (d *definition) readResults() {
	published := d.readPages()
	s, ok := d.keyword("artifacts")
	switch {
	case ok:
		d.base.Artifacts = readArtifacts(s, published)
	case published != "":
		d.base.Artifacts = []tranter.Artifact{{Paths: []string{published}, Type: "archive", Format: "zip", When: "on_success"}}
	}
	if s, ok := d.keyword("cache"); ok {
		d.caches = readCaches(s)
	}
	if s, ok := d.keywords.sub("dependencies"); ok {
		d.base.HasDepends = true
		if s.v.is(list) {
			s.v = &value{kind: list, at: s.v.at, items: flatten(s.v, maxNesting)}
		}
		d.base.Dependencies = s.strings(false)
	}
	d.readRelease()
	d.readTokens()
	if s, ok := d.keywords.sub("inputs"); ok {
		d.base.Inputs = readJobInputs(s)
	}
}

func artifactKeys() []string {
	return []string{"name", "untracked", "paths", "reports", "when", "expire_in", "expose_as", "exclude", "public", "access"}
}

// readArtifacts returns the entries of the payload: the archive first, then one for each report. What a job publishes as
// pages is in the archive, listed or not.
func readArtifacts(f field, published string) []tranter.Artifact {
	if !f.isHash(artifactKeys()...) {
		return nil
	}
	a := tranter.Artifact{Name: f.text("name"), Type: "archive", Format: "zip", When: f.choice("when", "on_success", "on_failure", "always")}
	a.Untracked, _ = f.flag("untracked")
	a.Paths = f.texts("paths", false)
	if published != "" && !slices.Contains(a.Paths, published) {
		a.Paths = append(a.Paths, published)
	}
	a.Exclude = f.texts("exclude", false)
	a.When = cmp.Or(a.When, "on_success")
	if s, ok := f.sub("expire_in"); ok {
		if !strings.EqualFold(s.v.text, "never") {
			f.duration("expire_in", 0)
		}
		a.ExpireIn = s.v.text
	}
	f.flag("public")
	f.choice("access", "none", "developer", "all", "maintainer")
	if f.text("expose_as") != "" && len(a.Paths) == 0 {
		f.errorf("paths can't be blank: expose_as needs them")
	}
	var out []tranter.Artifact
	if a.Untracked || len(a.Paths) > 0 {
		out = append(out, a)
	}
	if s, ok := f.sub("reports"); ok && s.isHash(reportKeys()...) {
		out = append(out, readReports(s, a.ExpireIn)...)
	}
	return out
}

func readReports(f field, expireIn string) []tranter.Artifact {
	var out []tranter.Artifact
	for _, p := range f.v.pairs {
		if p.val.isNull() {
			continue
		}
		a := tranter.Artifact{Type: p.key, When: "always", ExpireIn: expireIn}
		if p.key == "coverage_report" {
			s, _ := f.sub(p.key)
			if !s.isHash("coverage_format", "path") {
				continue
			}
			a.Type, a.Format, a.Paths = s.choice("coverage_format", "cobertura", "jacoco"), "gzip", s.texts("path", true)
			a.Name = map[string]string{"cobertura": "cobertura-coverage.xml", "jacoco": "jacoco-coverage.xml"}[a.Type]
			if !s.v.given("path") || !s.v.given("coverage_format") {
				s.errorf("coverage_format and path can't be blank")
			}
		} else {
			kind, known := reportOf(p.key)
			if !known {
				continue // reported by isHash
			}
			a.Format, a.Name = kind.format, kind.file
			a.Paths = f.texts(p.key, true)
		}
		out = append(out, a)
	}
	return out
}
