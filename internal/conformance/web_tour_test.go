package conformance

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// settled waits until a page shows all that it is going to show.
func (b *browser) settled() {
	b.t.Helper()
	look[bool](b, `
		await until(() => document.readyState === "complete" && [...document.querySelectorAll("[data-chart]")].every((c) => c.querySelector("canvas") || c.getBoundingClientRect().top > innerHeight));
		await document.fonts.ready;
		if ($("#main").dataset.topics && !document.hidden) await until(() => $("#live").dataset.state === "live");
		await new Promise((done) => setTimeout(done, 150));
		await Promise.allSettled(document.getAnimations().map((a) => a.finished));
		return true`)
}

// picturesOfLists takes the pictures that show what runs: two machines work, a third one is on its way for a job that waits.
func (s *sight) picturesOfLists(t *testing.T, machine string) {
	b := s.browser
	s.signIn(s.url, webToken, "/")
	b.holds(`location.pathname === "/"`)
	if s.gallery.wanted {
		s.eventually("what is shown has lasted a while", func() bool { return time.Since(s.kept(s.far[1]).Times.Taken) > 25*time.Second })
	}
	id := s.offer(with(s.job(12, "e2e: [webkit]", "test", "web/shop", "feature/search", "grace", "sleep 600"), "CI_RUNNER_TAGS", `["machine"]`), "machine")
	s.far = append(s.far, id)
	s.kept(id)
	for _, p := range []struct {
		name, path string
		height     int64
		scheme     string
	}{
		{"overview", "/", 1150, "light"},
		{"machines", "/machines?range=6h", 1280, "light"},
		{"machine", "/machines/" + machine, 800, "light"},
		{"jobs", "/jobs", 900, "light"},
		{"runners", "/runners", 800, "light"},
		{"events", "/events", 800, "light"},
		{"charts", "/charts?range=month", 1100, "dark"},
		{"cost", "/cost", 800, "light"},
	} {
		b.media(p.scheme)
		b.open(s.url+p.path, 1280, p.height)
		b.settled()
		if p.name == "runners" {
			look[bool](b, `for (const d of document.querySelectorAll("details[id^=config-]")) d.open = d.closest(".card").textContent.includes("docker+machine"); return true`)
		}
		b.shoot(s.gallery, p.name)
	}
	s.pictureOfAJob(t)
	b.media("dark")
	b.open(s.url+"/", 390, 844)
	b.settled()
	b.shoot(s.gallery, "phone")
	b.media("light")
	s.terminal()
	if c := b.complaints(); len(c) > 0 {
		t.Error(clean(c))
	}
	look[bool](b, `$("form[action='/logout']")?.submit(); return true`)
	b.holds(`document.querySelector(".signin")`)
}

// pictureOfAJob shows why a job has failed.
func (s *sight) pictureOfAJob(t *testing.T) {
	b := s.browser
	s.waitLong(s.failed, time.Minute)
	var job tranter.JobHistory
	s.eventually("the job has ended here, too", func() bool {
		job = read[tranter.JobHistory](s, "/api/jobs/"+s.kept(s.failed).Key)
		now := read[view.Snapshot](s, "/api/snapshot") // until it is reported, it is among those that are here
		return job.Result.State == tranter.JobFailed && !slices.ContainsFunc(now.Jobs, func(j view.Job) bool { return j.Key == job.Key })
	})
	if len(job.Usage.Samples) < 3 || job.Usage.CPUTime == 0 || len(job.Stages) < 3 {
		t.Errorf("what is known of a job: %+v", job)
	}
	b.open(s.url+"/jobs/"+job.Key, 1280, 1280)
	b.settled()
	look[bool](b, `await until(() => $(".log").view?.rowBox.textContent.includes("expected 200")); return true`)
	b.shoot(s.gallery, "job")
}

// pipeline looks at the graph of the demo's jobs.
func (s *sight) pipeline(t *testing.T, d *showing) {
	b := s.browser
	said := regexp.MustCompile(`The page stays at (http://127\.0\.0\.1:\d+)`)
	until(t, d.out, "the demo ends and its page stays", func() bool { return said.MatchString(d.out.String()) })
	base := said.FindStringSubmatch(d.out.String())[1]
	b.complaints()
	b.open(base+"/pipelines", 1280, 700)
	b.settled()
	b.shoot(s.gallery, "pipeline")
	got := look[map[string]float64](b, `return { nodes: document.querySelectorAll(".graph .g-node").length, edges: document.querySelectorAll(".graph path").length, links: document.querySelectorAll(".graph a[href^='/jobs/']").length }`)
	if got["nodes"] < 8 || got["edges"] < 6 || got["links"] < 6 {
		t.Errorf("the graph has %v", got)
	}
	for _, fault := range look[[]string](b, accessible) {
		t.Errorf("pipelines: %s", fault)
	}
	b.do("a phone", chromedp.EmulateViewport(360, 740))
	if wide := look[float64](b, `return document.documentElement.scrollWidth`); wide > 360 {
		t.Errorf("the graph makes the page %v wide on a phone", wide)
	}
	first := look[string](b, `return document.querySelector(".graph a[href^='/jobs/']").getAttribute("href")`)
	b.open(base+first, 1280, 800)
	look[bool](b, `await until(() => $(".log").view?.parser.lines.length > 3); return true`)
	if c := b.complaints(); len(c) > 0 {
		t.Error(strings.TrimSpace(fmt.Sprintln(clean(c))))
	}
}
