package conformance

import (
	"bytes"
	"cmp"
	"context"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a tab of a real browser, with what it has complained of.
type browser struct {
	t   *testing.T
	ctx context.Context // of the tab

	mu       sync.Mutex
	faults   []string // errors on its console, and breaches of the content security policy
	dialogs  []string
	received float64 // bytes, as they came
}

// newBrowser starts Chromium, which ends with the test.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(time.Minute), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("font-render-hinting", "none"))...)
	tab, leave := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		leave()
		stop()
	})
	b := &browser{t: t, ctx: tab}
	if err := chromedp.Do(tab, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	if err := chromedp.Listen(tab, b.hear); err != nil {
		t.Fatal(err)
	}
	return b
}

// hear is told of each event of the tab.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, "exception: "+e.ExceptionDetails.Text+" "+describe(e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert || e.Type == runtime.ConsoleAPICalledTypeWarning {
			b.faults = append(b.faults, "console: "+string(e.Type)+" "+describe(e.Args...))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Source == log.EntrySourceSecurity || e.Entry.Source == log.EntrySourceViolation {
			b.faults = append(b.faults, string(e.Entry.Source)+": "+e.Entry.Text+" "+e.Entry.URL)
		}
	case *page.EventJavascriptDialogOpening:
		b.dialogs = append(b.dialogs, e.Message)
	case *network.EventLoadingFinished:
		b.received += e.EncodedDataLength
	}
}

// complaints returns what was complained of since it was asked last.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := append(b.faults, b.dialogs...)
	b.faults, b.dialogs = nil, nil
	return out
}

// weight returns the bytes that came since it was asked last.
func (b *browser) weight() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := int(b.received)
	b.received = 0
	return n
}

// of is the browser for a part of the test.
func (b *browser) of(t *testing.T) *browser {
	b.t = t
	return b
}

func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// call sends a command of the browser's protocol.
func call[P, R any](b *browser, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	out, err := chromedp.Call(b.ctx, cmd, params)
	if err != nil {
		b.t.Fatalf("%s: %v", cmd.Method, err)
	}
	return out
}

// open visits a page in a window of a size.
func (b *browser) open(url string, width, height int64) {
	b.t.Helper()
	b.do("open "+url, chromedp.EmulateViewport(width, height), chromedp.Navigate(url))
}

// media sets what the reader's system prefers.
func (b *browser) media(scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// look evaluates JavaScript on a page, in which $ finds an element, and until waits for a condition and returns after how many ms it held.
func look[T any](b *browser, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 40*time.Second)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](`(async () => {
		const until = async (holds, ms = 30000) => {
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
		b.t.Fatalf("look: %.400s: %v", script, err)
	}
	return out
}

// holds waits until something holds on the page, also if that is the next one.
func (b *browser) holds(what string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+what+")")); err == nil && is {
			return
		}
		select {
		case <-ctx.Done():
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText.slice(0, 2000)"))
			b.t.Fatalf("never: %s, on %s", what, text)
		case <-tick.C:
		}
	}
}

// gallery is where pictures of pages are put.
type gallery struct {
	dir    string
	wanted bool // they are for docs/: the scene is set for them, which takes longer
}

func newGallery(t *testing.T) gallery {
	t.Helper()
	g := gallery{dir: os.Getenv("TRANTER_SCREENSHOTS"), wanted: os.Getenv("TRANTER_TOUR") != ""}
	if g.dir == "" {
		g.dir = t.TempDir()
	}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g gallery) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// mostPicture is how many bytes a picture of the tour may have: it is in the repository.
const mostPicture = 200_000

// shoot takes a picture of what the window shows.
func (b *browser) shoot(g gallery, name string) {
	b.t.Helper()
	shot := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{})
	if !g.wanted {
		g.write(b.t, name+".png", shot.Data)
		return
	}
	img, err := png.Decode(bytes.NewReader(shot.Data))
	if err != nil {
		b.t.Fatalf("the picture %s: %v", name, err)
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, fewColours(img)); err != nil {
		b.t.Fatal(err)
	}
	if out.Len() > mostPicture {
		b.t.Errorf("the picture %s has %d bytes", name, out.Len())
	}
	g.write(b.t, name+".png", out.Bytes())
}

// fewColours draws an image with 256 colours, and each other one as the nearest of these: pages have few colours, and many shades of
// them at the edges of letters.
func fewColours(img image.Image) image.Image {
	bounds := img.Bounds()
	count := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA {
		c, _ := color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)
		return c
	}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	var all []color.RGBA
	for c := range count {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b color.RGBA) int {
		return cmp.Or(count[b]-count[a], int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B))
	})
	palette := paletteOf(all)
	nearest := map[color.RGBA]uint8{}
	out := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := at(x, y)
			i, known := nearest[c]
			if !known {
				i = uint8(palette.Index(c)) //nolint:gosec // there are 256 at most
				nearest[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	return out
}

// clean is a list of complaints for people.
func clean(all []string) string { return strings.Join(all, "\n") }

// paletteOf chooses 256 colours: those that are there most, and then always the one that is farthest from all that are chosen.
func paletteOf(all []color.RGBA) color.Palette {
	const most, frequent = 256, 128
	var palette color.Palette
	far := make([]int, len(all)) // from the nearest that is chosen
	for i := range far {
		far[i] = math.MaxInt
	}
	choose := func(c color.RGBA) {
		palette = append(palette, c)
		for i, other := range all {
			r, g, b := int(c.R)-int(other.R), int(c.G)-int(other.G), int(c.B)-int(other.B)
			far[i] = min(far[i], r*r+g*g+b*b)
		}
	}
	for len(palette) < min(most, len(all)) {
		next := len(palette)
		if next >= frequent {
			for i := range far {
				if far[i] > far[next] {
					next = i
				}
			}
		}
		choose(all[next])
	}
	return palette
}

func describe(all ...*runtime.RemoteObject) string {
	var words []string
	for _, o := range all {
		if o != nil {
			words = append(words, o.Description, string(o.Value), preview(o))
		}
	}
	return strings.Join(words, " ")
}

func preview(o *runtime.RemoteObject) string {
	var words []string
	if o.Preview != nil {
		for _, p := range o.Preview.Properties {
			words = append(words, p.Name+"="+p.Value)
		}
	}
	return strings.Join(words, " ")
}
