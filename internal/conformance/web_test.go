package conformance

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/view"
)

// What is promised of the pages. Times are far looser here, as tests have the machine not for themselves: what they are on a quiet
// one, "make tour" prints.
const (
	mostWeight = 150_000          // bytes of a page with all that it loads, packed
	paintLimit = 15 * time.Second // promised: 300 ms on loopback
	pushLimit  = 15 * time.Second // promised: 1 s after the event
)

// One browser looks at all pages of a manager that works, does on them what people do, and takes pictures of them. They are put in
// the directory TRANTER_SCREENSHOTS; with TRANTER_TOUR they are those of docs/.
func TestTheWebPageOfARealRun(t *testing.T) {
	t.Parallel()
	demo := newShowing(t)
	locked := newRig(t, fmt.Sprintf("[web]\naddress = \"127.0.0.1:0\"\ntoken = %q\nread_token = %q\n", "another-"+webToken, readToken), "")
	locked.start()
	s := newSight(t)
	b := s.browser
	part := func(name string, f func(t *testing.T)) {
		if !t.Run(name, func(t *testing.T) { b.of(t); f(t) }) && t.Context().Err() != nil {
			t.FailNow()
		}
		b.t = t
	}
	part("a job is on the page within a second", s.pushes)
	machines := s.placed(s.far...)
	part("pictures of the lists", func(t *testing.T) { s.picturesOfLists(t, machines[0]) })
	part("a log is followed", s.followsALog)
	part("every page", func(t *testing.T) { s.everyPage(t, machines[0]) })
	part("a job injects nothing", s.injectsNothing)
	part("the keyboard is enough", s.keyboard)
	part("actions", func(t *testing.T) { s.actions(t, machines[1]) })
	part("without JavaScript", s.withoutScripts)
	part("reading needs a token if one says so", func(t *testing.T) { s.locked(t, locked) })
	part("the pipeline of the demo", func(t *testing.T) { s.pipeline(t, demo) })
}

// pushes looks at how soon a job that was taken is on a page that is looked at.
func (s *sight) pushes(t *testing.T) {
	b := s.browser
	for i, path := range []string{"/jobs", "/"} {
		b.open(s.url+path, 1280, 800)
		b.holds(`document.querySelector("#live")?.dataset.state === "live"`)
		id := s.offer(s.job(14, "publish", "deploy", "docs/site", "main", "barbara", "sleep 4"))
		seen := look[float64](b, fmt.Sprintf(`await until(() => $("#main").textContent.includes("#%d")); return Date.now()`, id))
		var took time.Duration
		s.eventually("the event is kept", func() bool {
			for _, e := range read[struct{ Events []tranter.Event }](s, "/api/events?kind=job_taken&job="+s.kept(id).Key).Events {
				took = time.UnixMilli(int64(seen)).Sub(e.Time)
				return true
			}
			return false
		})
		t.Logf("%s showed a job %v after it was taken", path, took.Round(time.Millisecond))
		if took > pushLimit {
			t.Errorf("%s showed a job %v after it was taken", path, took)
		}
		if i == 0 && !look[bool](b, `return !!$("#main table")`) {
			t.Error("the list of jobs is no table")
		}
	}
	if all := b.complaints(); len(all) > 0 {
		t.Error(clean(all))
	}
}

// followsALog looks at the log of a job that prints.
func (s *sight) followsALog(t *testing.T) {
	b, key := s.browser, s.kept(s.slow).Key
	b.open(s.url+"/jobs/"+key, 1280, 900)
	got := look[map[string]any](b, `
		await until(() => $(".log").view?.parser.lines.length > 6);
		const view = $(".log").view, before = view.parser.lines.length;
		const came = await until(() => view.parser.lines.length > before + 2 && view.rowBox.textContent.includes("invoice_"));
		const colours = new Set([...view.rowBox.querySelectorAll("span[class^=ansi-c]")].map((e) => getComputedStyle(e).color));
		view.list.scrollTop = 0;
		await new Promise((done) => setTimeout(done, 100));
		$(".log-fold[aria-expanded=true]").click();
		await new Promise((done) => setTimeout(done, 100));
		return { came, colours: colours.size, folded: view.parser.sections.some((s) => s.folded) && view.rowLine.length < view.parser.lines.length, follows: $("[data-do=follow]").getAttribute("aria-pressed") };`)
	t.Logf("new lines came after %.0f ms", got["came"])
	if got["colours"].(float64) < 2 || got["folded"] != true {
		t.Errorf("colours and folds: %v", got)
	}
	b.media("dark")
	b.open(s.url+"/jobs/"+key+"/log", 1280, 700)
	look[bool](b, `await until(() => $(".log").view?.rowBox.textContent.includes("invoice_")); return true`)
	b.shoot(s.gallery, "log")
	b.media("light")
	if all := b.complaints(); len(all) > 0 {
		t.Error(clean(all))
	}
}

// paths are all pages of the manager.
func (s *sight) paths(machine string) []string {
	return []string{
		"/", "/jobs", "/jobs?state=failed", "/jobs/" + s.kept(s.slow).Key, "/jobs/" + s.kept(s.failed).Key, "/jobs/" + s.kept(s.failed).Key + "/log", "/machines", "/machines/" + machine, "/runners",
		"/events", "/charts", "/cost", "/pipelines", "/login", "/nothing-here",
	}
}

// everyPage looks at what holds for each page: no complaints of the browser, weight, the time to the first paint, what assistive
// technology needs, colours that stand out in both themes, and that nothing is wider than a phone.
func (s *sight) everyPage(t *testing.T, machine string) {
	b := s.browser
	call(b, network.SetCacheDisabled, network.SetCacheDisabledParams{CacheDisabled: true})
	defer call(b, network.SetCacheDisabled, network.SetCacheDisabledParams{})
	for _, path := range s.paths(machine) {
		weight, paint := s.load(path)
		t.Logf("%-34.34s painted after %v, %d bytes", path, paint, weight)
		if weight == 0 || weight >= mostWeight {
			t.Errorf("%s weighs %d bytes", path, weight)
		}
		if paint > paintLimit {
			t.Errorf("%s was painted after %v", path, paint)
		}
		for _, scheme := range []string{"light", "dark"} {
			b.media(scheme)
			for _, fault := range look[[]string](b, accessible) {
				t.Errorf("%s, %s: %s", path, scheme, fault)
			}
		}
		b.media("light")
		b.do("a phone", chromedp.EmulateViewport(360, 740))
		if wide := look[[]string](b, `
			await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
			if (document.documentElement.scrollWidth <= 360) return [];
			return [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > 361 && !e.closest(".scroll, .nav, pre")).slice(0, 4).map((e) => e.tagName + "." + e.className + " " + e.textContent.slice(0, 40))`); len(wide) > 0 {
			t.Errorf("%s is wider than a phone: %q", path, wide)
		}
		for _, c := range b.complaints() {
			if path != "/nothing-here" || !strings.Contains(c, "404") {
				t.Errorf("%s: %s", path, c)
			}
		}
	}
}

// load opens a page of which the browser has nothing yet, and returns its bytes, and when it was painted first.
func (s *sight) load(path string) (int, time.Duration) {
	b := s.browser
	b.open("about:blank", 1280, 800)
	b.complaints()
	b.weight()
	b.open(s.url+path, 1280, 800)
	paint := look[float64](b, `const paint = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime; await until(paint); return paint()`)
	b.settled()
	return b.weight(), time.Duration(paint) * time.Millisecond
}

// accessible returns what is wrong on a page for those who don't see it, or not well.
const accessible = `
	await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
	await Promise.allSettled(document.getAnimations().map((a) => a.finished));
	const faults = [], name = (e) => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + (e.className?.length ? "." + e.className : "") + " " + JSON.stringify(e.textContent.trim().slice(0, 40));
	const all = (selector) => [...document.querySelectorAll(selector)];
	const seen = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
	if (!document.documentElement.lang) faults.push("no language");
	if (!document.title.includes("Tranter")) faults.push("no title");
	if (all("h1").length !== 1) faults.push(all("h1").length + " headings of the first order");
	for (const mark of ["main", "header", "footer", "nav[aria-label]"]) if (!$(mark)) faults.push("there is no " + mark);
	for (const e of all("img:not([alt])")) faults.push("no alt: " + name(e));
	for (const e of all("svg[role=img]:not([aria-label], [aria-labelledby])")) faults.push("no label: " + name(e));
	for (const e of all("input:not([type=hidden]), select, textarea")) if (!e.labels?.length && !e.ariaLabel && !e.hasAttribute("aria-labelledby")) faults.push("no label: " + name(e));
	for (const e of all("a[href], button, summary")) if (!e.textContent.trim() && !e.ariaLabel && !e.title && !e.querySelector("img[alt]:not([alt=''])")) faults.push("no name: " + name(e));
	for (const e of all("[tabindex]")) if (e.tabIndex > 0) faults.push("an order of its own: " + name(e));
	for (const e of all("th:not([scope])")) faults.push("no scope: " + name(e));
	for (const e of all("[aria-labelledby], [aria-describedby]")) for (const id of ((e.getAttribute("aria-labelledby") ?? "") + " " + (e.getAttribute("aria-describedby") ?? "")).trim().split(/\s+/)) if (!document.getElementById(id)) faults.push("labelled by nothing, " + id + ": " + name(e));
	const ids = all("[id]").map((e) => e.id);
	for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) faults.push("twice: #" + id);
	let last = 0;
	for (const h of all("h1, h2, h3, h4").filter((h) => !h.closest("dialog"))) { const n = +h.tagName[1]; if (n > last + 1) faults.push("a step is left out before " + name(h)); last = n; }

	const parse = (text) => { const m = text.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0, 0]; return { rgb: m.slice(0, 3), a: m[3] ?? 1 }; };
	const light = ({ rgb }) => { const [r, g, b] = rgb.map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
	const over = (top, under) => ({ rgb: top.rgb.map((v, i) => v * top.a + under.rgb[i] * (1 - top.a)), a: 1 });
	const ground = (e) => { const c = e ? parse(getComputedStyle(e).backgroundColor) : { rgb: [255, 255, 255], a: 1 }; return c.a >= 1 ? c : over(c, ground(e.parentElement)); };
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), told = new Set();
	for (let n; (n = texts.nextNode());) {
		const e = n.parentElement;
		if (!n.data.trim() || !seen(e) || e.closest("svg, .hidden, noscript, .skip, [class*=ansi-], :disabled")) continue;
		const style = getComputedStyle(e), under = ground(e), text = over(parse(style.color), under);
		const [x, y] = [light(text), light(under)], ratio = (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
		const key = style.color + under.rgb;
		if (ratio < 4.5 && !told.has(key)) { told.add(key); faults.push("stands out by " + ratio.toFixed(2) + ": " + name(e)); }
	}
	const value = (token) => { const d = document.createElement("span"); d.style.color = getComputedStyle(document.documentElement).getPropertyValue(token); document.body.append(d); const c = parse(getComputedStyle(d).color); d.remove(); return c; };
	for (const under of ["--bg", "--surface", "--raised"]) for (const text of ["--text", "--muted", "--link"]) {
		const [x, y] = [light(value(text)), light(value(under))], ratio = (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
		if (!(ratio >= 4.5)) faults.push(text + " stands out from " + under + " by " + ratio.toFixed(2));
	}
	return faults;`

// injectsNothing looks for what a job wanted to be markup, wherever it is shown.
func (s *sight) injectsNothing(t *testing.T) {
	b := s.browser
	id := s.offer(s.job(13, hostileName, hostileName, "web/<b>shop</b>", hostileRef, hostileText,
		"printf '%s\\n' '"+hostileText+"'", `printf '\033]8;;javascript:alert(5)\033\\click\033]8;;\033\\ \033[2J\033[31mred\033[0m \033]0;title\007\n'`, "exit 1"))
	s.Wait(id)
	key := s.kept(id).Key
	s.eventually("its end is kept", func() bool { return read[tranter.JobHistory](s, "/api/jobs/"+key).Result.State == tranter.JobFailed })
	b.complaints()
	for path, wants := range map[string]string{
		"/": "", "/jobs": hostileName, "/jobs?q=onerror": hostileName, "/jobs/" + key: hostileRef, "/jobs/" + key + "/log": "onload=alert(3)", "/events?job=" + key: "img src=x", "/cost": "", // which may be as old as half a minute

	} {
		b.open(s.url+path, 1280, 800)
		if strings.HasPrefix(path, "/jobs/") {
			look[bool](b, `await until(() => $(".log").view?.rowBox.textContent.includes("onload=alert(3)")); return true`)
		}
		got := look[map[string]any](b, `return {
			ran: window.pwned ?? null, text: document.body.innerText, title: document.title,
			elements: [...document.querySelectorAll("script:not([src]), img:not([src^='/static/']), iframe, object, [onerror], [onload], [onclick], [style*=url], a[href^='javascript:' i], a[href^='data:' i], #main b")].map((e) => e.outerHTML.slice(0, 80)) }`)
		if got["ran"] != nil || len(got["elements"].([]any)) > 0 {
			t.Errorf("%s: ran %v, made %v", path, got["ran"], got["elements"])
		}
		if !strings.Contains(got["text"].(string), wants) {
			t.Errorf("%s does not say %q:\n%.3000s", path, wants, got["text"])
		}
	}
	if all := b.complaints(); len(all) > 0 {
		t.Error(clean(all))
	}
}

// signIn gives the token to the page.
func (s *sight) signIn(base, token, back string) {
	b := s.browser
	b.open(base+"/login?back="+url.QueryEscape(back), 1280, 800)
	look[bool](b, fmt.Sprintf(`$("#token").value = %q; $("#main form").requestSubmit(); return true`, token))
}

// keyboard signs in and goes through a page with the tab key alone.
func (s *sight) keyboard(t *testing.T) {
	b := s.browser
	b.open(s.url+"/login?back=/runners", 1280, 800)
	b.holds(`document.activeElement?.id === "token"`)
	b.do("type the token", chromedp.KeyEvent(webToken), chromedp.KeyEvent(kb.Enter))
	b.holds(`location.pathname === "/runners" && document.querySelector("form[action='/actions/pause']")`)
	b.do("tab", chromedp.KeyEvent(kb.Tab))
	if got := look[string](b, `return document.activeElement.className + " " + (document.activeElement.getBoundingClientRect().top >= 0)`); got != "skip true" {
		t.Errorf("the first stop is %q, not the link that skips to the content, in sight", got)
	}
	b.do("skip", chromedp.KeyEvent(kb.Enter))
	if got := look[string](b, `await until(() => location.hash === "#main"); return document.activeElement.id`); got != "main" {
		t.Errorf("skipping leads to %q", got)
	}
	b.open(s.url+"/runners", 1280, 800)
	var stops []string
	for range 40 {
		b.do("tab", chromedp.KeyEvent(kb.Tab))
		stop := look[string](b, `const e = document.activeElement, s = getComputedStyle(e); return (e === document.body ? "" : [e.tagName.toLowerCase(), e.id || e.textContent.trim().slice(0, 24), s.outlineStyle === "none" || parseFloat(s.outlineWidth) < 1 ? "UNSEEN" : ""].join(" ").trim())`)
		if stop == "" {
			break
		}
		stops = append(stops, stop)
	}
	all := strings.Join(stops, "\n")
	for _, want := range []string{"a Overview", "a Machines", "a Cost", "input search", "button theme", "button Sign out", "button Pause…", "summary Configuration as", "a Metrics"} {
		if !strings.Contains(all, want) {
			t.Errorf("the keyboard does not reach %q: %q", want, stops)
		}
	}
	if strings.Contains(all, "UNSEEN") {
		t.Errorf("a focus can't be seen: %q", stops)
	}
	if c := b.complaints(); len(c) > 0 {
		t.Error(clean(c))
	}
}

// confirm presses the button of an action, reads what is asked, and says yes.
func (b *browser) confirm(form string) string {
	b.t.Helper()
	asked := look[string](b, fmt.Sprintf(`await until(() => $(%q)); $(%q + " button").click(); await until(() => $("#confirm").open); return $("#confirm p").textContent`, form, form))
	look[bool](b, `$("#confirm button[value=yes]").click(); return true`)
	b.holds(`document.querySelector(".flash")`)
	return asked + " " + look[string](b, `return $(".flash").textContent`)
}

// actions does what people may do, and looks at what has come of it on the other side.
func (s *sight) actions(t *testing.T, machine string) {
	b, key := s.browser, s.kept(s.slow).Key
	for path, form := range map[string]url.Values{
		"/actions/drain": nil, "/actions/pause": {"runner": {"build-host"}, "confirm": {"yes"}}, "/actions/cancel-job": {"key": {key}, "confirm": {"yes"}},
		"/actions/drain-machine": {"name": {machine}}, "/actions/remove-machine": {"name": {machine}, "force": {"1"}},
	} {
		if code, text := s.ask(http.MethodPost, path, form, ""); code != http.StatusForbidden && code != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d %.200s", path, code, text)
		}
		if code, _ := s.ask(http.MethodGet, path+"?"+form.Encode(), nil, webToken); code != http.StatusMethodNotAllowed && code != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	if now := read[view.Snapshot](s, "/api/snapshot"); now.Manager.State != "running" || now.Runners[0].Paused+now.Runners[1].Paused != "" {
		t.Errorf("what was refused has been done: %+v %+v", now.Manager, now.Runners)
	}

	b.open(s.url+"/machines/"+machine, 1280, 800)
	if said := b.confirm("form[action='/actions/drain-machine']"); !strings.Contains(said, "Drain the machine "+machine+"?") || !strings.Contains(said, "gets no more jobs") {
		t.Errorf("draining a machine: %s", said)
	}
	s.eventually("the machine drains", func() bool {
		for _, m := range s.fleet() {
			if m.Name == machine {
				return m.State == "draining"
			}
		}
		return false
	})

	b.open(s.url+"/jobs/"+key, 1280, 800)
	if said := b.confirm("form[action='/actions/cancel-job']"); !strings.Contains(said, "is being canceled") {
		t.Errorf("canceling a job: %s", said)
	}
	if v := s.waitLong(s.slow, 30*time.Second); v.Status != coordinator.Failed {
		t.Errorf("GitLab says of the job that was canceled: %s %s", v.Status, v.Reason)
	}
	if log := s.Log(s.slow); !strings.Contains(log, "cleaned up") || !strings.Contains(log, "canceled by the web page") {
		t.Errorf("the log of the job that was canceled ends: %.600s", log[max(0, len(log)-600):])
	}
	b.holds(`document.querySelector("#main .status")?.textContent.includes("canceled")`)
	if c := b.complaints(); len(c) > 0 {
		t.Error(clean(c))
	}
}

// withoutScripts reads the pages and pauses a runner with JavaScript switched off, and lets the runner go on with it.
func (s *sight) withoutScripts(t *testing.T) {
	b := s.browser
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	text := func() string {
		out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for path, wants := range map[string]string{
		"/": "Waiting, and why", "/jobs": "unit", "/jobs/" + s.kept(s.failed).Key: "raw log", "/machines": "The timeline as a table", "/events": "Happened", "/cost": "Machine-hours", "/charts": "Charts",
	} {
		b.open(s.url+path, 1280, 800)
		if got := text(); !strings.Contains(got, wants) {
			t.Errorf("without JavaScript %s does not say %q:\n%.2000s", path, wants, got)
		}
	}
	form := "form[action='/actions/%s'] input[value='" + s.host.Short() + "']"
	submit := func(what string) {
		t.Helper()
		b.do(what, chromedp.Click(what))
	}
	b.open(s.url+"/runners", 1280, 800)
	submit("form:has(input[name=runner][value='" + s.host.Short() + "']) button")
	b.holds(`document.body.innerText.includes("Pause the runner build-host?")`)
	submit("#main form button.primary")
	b.holds(`location.pathname === "/runners" && document.body.innerText.includes("is paused")`)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})

	id := s.offer(s.job(12, "lint", "test", "web/shop", "main", "grace", "echo linted"))
	s.eventually("the manager knows of the pause", func() bool {
		for _, r := range read[view.Snapshot](s, "/api/snapshot").Runners {
			if r.Runner == s.host.Short() {
				return strings.Contains(r.Paused, "the web page")
			}
		}
		return false
	})
	s.pause(1500 * time.Millisecond)
	if v := s.Job(id); v.Status != coordinator.Pending {
		t.Errorf("a paused runner has taken a job: %s", v.Status)
	}
	b.open(s.url+"/runners", 1280, 800)
	look[bool](b, fmt.Sprintf(`$(%q).closest("form").querySelector("button").click(); await until(() => $("#confirm").open); $("#confirm button[value=yes]").click(); return true`, fmt.Sprintf(form, "resume")))
	b.holds(`document.body.innerText.includes("takes jobs again")`)
	if v := s.Wait(id); v.Status != coordinator.Success {
		t.Errorf("a job after the pause: %s", v.Status)
	}
}

// locked looks at a manager that shows nothing to who has no token.
func (s *sight) locked(t *testing.T, r *rig) {
	b, base := s.browser, r.address()
	own := s.url
	s.url = base
	defer func() { s.url = own }()
	for _, path := range []string{"/api/snapshot", "/api/events", "/cost.csv", "/live", "/metrics"} {
		if code, text := s.ask(http.MethodGet, path, nil, ""); code == http.StatusOK || strings.Contains(text, "conformance") {
			t.Errorf("%s without a token: %d %.200s", path, code, text)
		}
	}
	b.open(base+"/runners", 1280, 800)
	b.holds(`location.pathname === "/login" && !document.body.innerText.includes("conformance")`)
	s.signIn(base, "a wrong token", "/runners")
	b.holds(`document.querySelector("#problem")?.textContent.includes("wrong")`)
	s.signIn(base, readToken, "/runners")
	b.holds(`location.pathname === "/runners" && document.body.innerText.includes("conformance")`)
	if look[bool](b, `return !!$("form[action^='/actions/']")`) {
		t.Error("who may only read is offered actions")
	}
	if code, text := s.ask(http.MethodPost, "/actions/pause", url.Values{"runner": {"conformance"}}, readToken); code != http.StatusForbidden && code != http.StatusUnauthorized {
		t.Errorf("an action with the token for reading: %d %.200s", code, text)
	}
	if code, _ := s.ask(http.MethodGet, "/healthz", nil, ""); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
}
