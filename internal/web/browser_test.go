package web_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
	"github.com/tranter-ci/tranter/internal/web/webtest"
)

// run runs JavaScript on a page, and waits for what it promises. until waits for a condition, which is looked at with each frame.
func run[T any](tab context.Context, t *testing.T, script string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, 30*time.Second)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](`(async () => {
		const until = async (holds, ms = 10000) => {
			const start = performance.now();
			while (!holds()) {
				if (performance.now() - start > ms) throw new Error("never: " + holds);
				await new Promise((done) => setTimeout(done, 10));
			}
			return performance.now() - start;
		};
		const $ = (selector) => document.querySelector(selector);
		`+script+`
	})()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("run %.300s: %v", script, err)
	}
	return out
}

// holds waits until something holds on a page, also on the next one.
func holds(tab context.Context, t *testing.T, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+what+")")); err == nil && is {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func visit(tab context.Context, t *testing.T, url string, width int64) {
	t.Helper()
	if err := chromedp.Do(tab, chromedp.EmulateViewport(width, 700), chromedp.Navigate(url)); err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
}

func TestInABrowser(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	server := httptest.NewServer(r.h)
	allocator, stop := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU)...)
	tab, leave := chromedp.NewContext(allocator)
	defer func() {
		leave()
		stop()
		server.CloseClientConnections()
		server.Close()
	}()
	visit(tab, t, server.URL+"/login?back=/runners", 1200)

	run[bool](tab, t, `$("#token").value = "`+actToken+`"; $("#main form").requestSubmit(); return true`)
	holds(tab, t, `location.pathname === "/runners" && document.querySelector("#live")?.dataset.state === "live"`)

	// An update changes what has changed, and nothing that one does.
	run[bool](tab, t, `
		$("#config-aUt0sCale").open = true;
		$("#search").value = "half a wor"; $("#search").focus();
		window.scrollTo(0, 60);
		window.mark = $("#aUt0sCale"); getSelection().selectAllChildren($("#sH3llHost h2"));
		$("#search").focus();
		return true`)
	r.Change(func(s *view.Snapshot) {
		s.Runners = slices.Clone(s.Runners)
		s.Runners[0].Problem = "GitLab answers 500"
	})
	start := time.Now()
	r.hub.Publish(tranter.Event{Kind: tranter.RunnerTrouble, Runner: "aUt0sCale"})
	run[float64](tab, t, `return await until(() => $("#aUt0sCale").textContent.includes("GitLab answers 500"))`)
	t.Logf("the update was on the page after %s", time.Since(start))
	stays := run[map[string]bool](tab, t, `return {
		open: $("#config-aUt0sCale").open, typed: $("#search").value === "half a wor", focus: document.activeElement === $("#search"),
		scroll: Math.abs(scrollY - 60) < 2, same: window.mark === $("#aUt0sCale"), selection: getSelection().toString().includes("build host") || document.activeElement === $("#search"),
	}`)
	for what, holds := range stays {
		if !holds {
			t.Errorf("the update took away: %s", what)
		}
	}

	// An action asks in a dialog, and says what was done.
	asked := run[string](tab, t, `$("#aUt0sCale form[data-confirm] button").click(); await until(() => $("#confirm").open); return $("#confirm p").textContent`)
	if want := "Pause the runner autoscaled docker? It takes no more jobs until it is resumed; those that it has go on."; asked != want || len(r.Did()) > 0 {
		t.Errorf("it asked %q and did %v", asked, r.Did())
	}
	run[bool](tab, t, `$("#confirm button[value=no]").click(); await until(() => !$("#confirm").open); return true`)
	if len(r.Did()) > 0 {
		t.Errorf("after a no it did %v", r.Did())
	}
	run[bool](tab, t, `$("#aUt0sCale form[data-confirm] button").click(); await until(() => $("#confirm").open); $("#confirm button[value=yes]").click(); return true`)
	holds(tab, t, `document.querySelector(".flash")?.textContent.includes("autoscaled docker is paused")`)
	if did := r.Did(); !slices.Equal(did, []string{"pause aUt0sCale true the web page (127.0.0.1)"}) {
		t.Errorf("it did %v", did)
	}

	theme := run[[]string](tab, t, `
		await until(() => $("#theme .word").textContent === "auto");
		const seen = [];
		for (let i = 0; i < 3; i++) { $("#theme").click(); seen.push(document.documentElement.dataset.theme ?? "auto", localStorage.getItem("tranter-theme")); }
		return seen`)
	if !slices.Equal(theme, []string{"light", "light", "dark", "dark", "auto", "auto"}) {
		t.Errorf("the themes were %v", theme)
	}

	// A filter applies while one types, and its address can be kept.
	visit(tab, t, server.URL+"/events", 1200)
	run[float64](tab, t, `
		await until(() => window.tranter);
		const field = $("#main input[name=q]"); field.focus(); field.value = "revoked"; field.dispatchEvent(new Event("input", { bubbles: true }));
		return await until(() => location.search === "?q=revoked" && !$("#main table").textContent.includes("was read anew"))`)
	if focus := run[bool](tab, t, `return document.activeElement.name === "q" && document.activeElement.value === "revoked"`); !focus {
		t.Error("the filter took the focus away")
	}

	// On a phone nothing is wider than the screen.
	for _, path := range pagePaths() {
		visit(tab, t, server.URL+path, 360)
		if width := run[float64](tab, t, `return document.documentElement.scrollWidth`); width > 360 {
			t.Errorf("%s is %v pixels wide on a screen of 360: %s", path, width, run[string](tab, t, `
				const wide = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > 361 && !e.closest(".scroll, .nav, pre"));
				return wide.slice(0, 5).map((e) => e.tagName + "." + e.className).join(" ")`))
		}
	}
}
