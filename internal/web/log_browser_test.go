package web

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// TestTheLogViewer runs what follows in one browser.
func TestTheLogViewer(t *testing.T) {
	allocator, stop := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU)...)
	defer stop()
	browser, leave := chromedp.NewContext(allocator)
	defer leave()
	if err := chromedp.Do(browser, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	t.Run("reads a log as GitLab shows it", func(t *testing.T) { readsALog(browser, t) })
	t.Run("lets no log inject markup", func(t *testing.T) { letsNothingIn(browser, t) })
	t.Run("folds, searches, and links lines", func(t *testing.T) { foldsAndSearches(browser, t) })
	t.Run("scrolls 100,000 lines smoothly", func(t *testing.T) { scrollsSmoothly(browser, t) })
}

// openLog opens the page of a log in a tab and waits until it is read as a whole.
func openLog(browser context.Context, t *testing.T, log []byte) context.Context {
	t.Helper()
	now := time.Now()
	const key = "90210-000000016062"
	server := httptest.NewServer(New(Options{Source: here{now: now}, Past: newPast(now, 3), Logs: logs{key: log}}).Handler())
	tab, leave := chromedp.NewContext(browser)
	t.Cleanup(func() {
		leave()
		server.CloseClientConnections() // live pages would keep it waiting
		server.Close()
	})
	if err := chromedp.Do(tab, chromedp.EmulateViewport(1200, 800), chromedp.Navigate(server.URL+"/jobs/"+key+"/log")); err != nil {
		t.Fatalf("open the page of a log: %v", err)
	}
	if got := in[bool](tab, t, `view.loaded.then(() => view.parser.lines.length > 0)`); !got {
		t.Fatal("the viewer has no lines")
	}
	return tab
}

// in runs JavaScript on the page, with the viewer as view and the parser's module as log.
func in[T any](tab context.Context, t *testing.T, script string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, 30*time.Second)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](`(async () => {
		const log = await import([...document.scripts].find((s) => s.src.endsWith('/log.js')).src);
		const view = document.querySelector('.log').view;
		const frame = () => new Promise(requestAnimationFrame);
		const parse = (...parts) => { const p = new log.LogParser(); for (const part of parts) p.push(typeof part === 'string' ? new TextEncoder().encode(part) : part); p.end(); return p; };
		return await (`+script+`);
	})()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("run %.200s: %v", script, err)
	}
	return out
}

func readsALog(browser context.Context, t *testing.T) {
	tab := openLog(browser, t, sampleLog(40))
	quote := func(parts ...any) string {
		var out []string
		for _, p := range parts {
			b, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(b))
		}
		return strings.Join(out, ",")
	}
	// What a line is: its number, its text, the section it is in, and that of which it is the heading.
	const describe = `.lines.map((l) => [l.number, log.plain(l.raw), l.section?.name ?? '', l.head?.name ?? ''].join('|')).join('\n')`
	stamp := "2026-11-03T09:30:00.037000Z "
	tests := []struct {
		name, text, want string
	}{
		{"lines end with either end", "a\nb\r\nc", "1|a||\n2|b||\n3|c||"},
		{"a carriage return begins the line anew", "10 %\r20 %\rdone\n", "1|done||"},
		{"also when the header of a line says so", stamp + "01O 10 %\r\n" + stamp + "01O+20 %\r\n" + stamp + "01O+done\n", "1|done||"},
		{"streams continue their own lines", stamp + "01O ab\n" + stamp + "01E err\n" + stamp + "01O+cd\n", "1|abcd||\n2|err||"},
		{
			"sections", "section_start:1:a\r\x1b[0KHead\nx\nsection_start:2:b[collapsed=true,hide_duration=true]\r\x1b[0KInner\ny\nsection_end:4:b\r\x1b[0Kz\nsection_end:9:a\r\x1b[0K\nend\n",
			"1|Head||a\n2|x|a|\n3|Inner|a|b\n4|y|b|\n5|z|a|\n6|end||",
		},
		{"a section whose end is missing ends with the one around it", "section_start:1:a\r\x1b[0KA\nsection_start:2:b\r\x1b[0KB\nsection_end:3:a\r\x1b[0K\nout\n", "1|A||a\n2|B|a|b\n3|out||"},
		{"the end of no section is nothing", "section_end:1:a\r\x1b[0K\nx\n", "1|x||"},
		{"escape sequences other than colours are nothing", "a\x1b[2Kb\x1b[1;1Hc\x1b]0;title\x07d\x1b(Be\x1b]8;;javascript:alert(1)\x1b\\f\x1b]8;;\x1b\\\n", "1|abcdef||"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := in[string](tab, t, "parse("+quote(test.text)+")"+describe); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			// The same when every byte comes by itself.
			if got := in[string](tab, t, "parse(...new TextEncoder().encode("+quote(test.text)+").reduce((all, b) => [...all, new Uint8Array([b])], []))"+describe); got != test.want {
				t.Errorf("byte by byte: got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
	t.Run("colours", func(t *testing.T) {
		text := "\x1b[31;1mred\x1b[22mthin\x1b[0m \x1b[38;5;208mo\x1b[48;2;1;2;3mbg\x1b[39m-\x1b[95mm"
		want := "red:c1:true,thin:c1:false, ::false,o:#ff8700:false,bg:#ff8700:false,-::false,m:c13:false"
		got := in[string](tab, t, "(() => { const l = parse("+quote(text)+").lines[0]; return log.segments(l.raw, l.style).map((s) => [s.text, s.style.fg, s.style.bold].join(':')).join(','); })()")
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("a colour lasts until it is taken back", func(t *testing.T) {
		if got := in[string](tab, t, "parse("+quote("\x1b[32mone\ntwo\x1b[0m\nthree\n")+").lines.map((l) => l.style.fg).join()"); got != ",c2," {
			t.Errorf("the lines begin with %q", got)
		}
	})
	t.Run("what is no UTF-8 is replaced", func(t *testing.T) {
		if got := in[string](tab, t, "parse(new Uint8Array([97, 255, 98, 10])).lines[0].raw"); got != "a\ufffdb" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a line without end is cut", func(t *testing.T) {
		if got := in[string](tab, t, "(() => { const l = parse('x'.repeat(1 << 20), '\\nend\\n').lines; return [Math.max(...l.map((l) => l.raw.length)), l.at(-1).number].join(); })()"); got != "16384,2" {
			t.Errorf("the longest piece and the number of the line after it are %s", got)
		}
	})
}

func letsNothingIn(browser context.Context, t *testing.T) {
	tab := openLog(browser, t, append(sampleLog(40), "\x1b]8;;javascript:window.hacked=1\x07x\x1b]8;;\x07 javascript:window.hacked=1 data:text/html,x http://a.b\"onclick=1\n"...))
	got := in[string](tab, t, `(async () => { await frame(); await frame(); const box = view.rowBox; return JSON.stringify({
		hacked: window.hacked ?? null, scripts: box.querySelectorAll('script, img, iframe, [onclick], [onerror]').length,
		links: [...box.querySelectorAll('.log-text a')].map((a) => a.protocol + a.rel), text: [...box.querySelectorAll('.log-text')].some((t) => t.textContent.includes('<script>window.hacked=1</script><img')),
	}); })()`)
	want := `{"hacked":null,"scripts":0,"links":["https:noopener noreferrer nofollow","http:noopener noreferrer nofollow"],"text":true}`
	var g, w struct {
		Hacked  any      `json:"hacked"`
		Scripts int      `json:"scripts"`
		Links   []string `json:"links"`
		Text    bool     `json:"text"`
	}
	if json.Unmarshal([]byte(got), &g) != nil || json.Unmarshal([]byte(want), &w) != nil {
		t.Fatal("no JSON")
	}
	if g.Hacked != nil || g.Scripts != 0 || !g.Text || len(g.Links) == 0 {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, l := range g.Links {
		if l != "https:noopener noreferrer nofollow" && l != "http:noopener noreferrer nofollow" {
			t.Errorf("a link is %s", l)
		}
	}
}

func foldsAndSearches(browser context.Context, t *testing.T) {
	tab := openLog(browser, t, sampleLog(400))
	if got := in[string](tab, t, `(async () => {
		await frame(); await frame();
		const rows = () => view.rowLine.length;
		const out = [];
		const before = rows();
		view.rowBox.querySelector('.log-fold[aria-expanded=false]').click();
		out.push(rows() - before); // a section that was collapsed
		view.pressed('fold');
		out.push(rows());
		await view.search('PART00399');
		out.push(view.hits.length, view.rowBox.querySelectorAll('mark').length, rows() > 400);
		location.hash = '#L20-22';
		await frame(); await frame();
		out.push([...view.rowBox.querySelectorAll('.log-selected .log-number')].map((n) => n.textContent).join('-'));
		view.pressed('times'); await frame();
		out.push(view.rowBox.querySelector('.log-time').textContent.length > 5);
		return out.join(' ');
	})()`); got != "2 5 1 1 true 20-21-22 true" {
		t.Errorf("got %s", got)
	}
	// The last of what is wrapped ends where the text ends.
	if got := in[string](tab, t, `(async () => {
		view.parser.append(view.parser.streams.values().next().value, 'w'.repeat(1000) + 'END', '');
		view.pressed('wrap'); view.pressed('end'); await frame(); await frame(); view.draw();
		return [...view.rowBox.querySelectorAll('.log-text')].map((t) => t.textContent).filter((t) => /^w*END$/.test(t)).length + ' ' + (view.list.scrollWidth <= view.list.clientWidth);
	})()`); got != "1 true" {
		t.Errorf("wrapped: %s", got)
	}
}

func scrollsSmoothly(browser context.Context, t *testing.T) {
	tab := openLog(browser, t, sampleLog(100_000))
	if _, err := chromedp.Call(tab, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}); err != nil {
		t.Fatal(err)
	}
	const frames = 60
	before := working(tab, t)
	got := in[map[string]float64](tab, t, `(async () => {
		let most = 0;
		for (let i = 0; i < `+strconv.Itoa(frames)+`; i++) {
			view.list.scrollTop = (i * 7919 % 60) / 60 * view.list.scrollHeight;
			await frame();
			most = Math.max(most, view.rowBox.childElementCount);
		}
		return { lines: view.parser.lines.length, rows: most };
	})()`)
	took := (working(tab, t) - before) / frames
	t.Logf("%v, %v of the processor for a frame", got, took)
	if got["lines"] < 100_000 || got["rows"] > 200 || got["rows"] < 20 {
		t.Errorf("%v lines with at most %v rows in the document", got["lines"], got["rows"])
	}
	if took > 50*time.Millisecond {
		t.Errorf("a frame takes %v of the processor: it has to be less than 50 ms", took)
	}
	if text := in[string](tab, t, `(async () => { view.pressed('end'); await frame(); await frame(); await frame(); return view.rowBox.textContent.includes('Job failed: exit status 1') + ' ' + (await fetch(view.address, { headers: { Range: 'bytes=-5' } })).status; })()`); text != "true 206" {
		t.Errorf("at the end: %s", text)
	}
}

// working returns how long the page's thread has worked: time of the processor, which does not depend on what else the machine does.
func working(tab context.Context, t *testing.T) time.Duration {
	t.Helper()
	got, err := chromedp.Call(tab, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got.Metrics {
		if m.Name == "TaskDuration" {
			return time.Duration(m.Value * float64(time.Second))
		}
	}
	t.Fatal("the browser does not tell how long it has worked")
	return 0
}
