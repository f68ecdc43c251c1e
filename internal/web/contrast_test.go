package web_test

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// luminance of a colour, by WCAG 2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	hex = strings.TrimPrefix(hex, "#")
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 6 {
		t.Fatalf("%q is no colour", hex)
	}
	part := func(shift int) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0)
}

// Text stands out by 4.5 to 1 at least, in each theme, and what marks the focus by 3 to 1 (WCAG 2, AA).
func TestColoursStandOut(t *testing.T) {
	css, err := os.ReadFile("static/app.css")
	if err != nil {
		t.Fatal(err)
	}
	themes := regexp.MustCompile(`(?s):root[^{]*\{([^}]*--bg:[^}]*)\}`).FindAllStringSubmatch(string(css), -1)
	if len(themes) != 3 {
		t.Fatalf("there are %d themes, want light, and dark twice", len(themes))
	}
	if squeeze := strings.NewReplacer(" ", "", "\n", ""); squeeze.Replace(themes[1][1]) != squeeze.Replace(themes[2][1]) {
		t.Error("the dark theme that is chosen is not that of the system")
	}
	for i, theme := range themes[:2] {
		colour := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z-]+):\s*(#[0-9a-f]{3,6});`).FindAllStringSubmatch(theme[1], -1) {
			colour[m[1]] = m[2]
		}
		pairs := map[string]float64{"on-accent/accent": 4.5, "focus/bg": 3, "focus/surface": 3}
		for _, over := range []string{"bg", "surface", "raised"} {
			for _, text := range []string{"text", "muted", "link"} {
				pairs[text+"/"+over] = 4.5
			}
		}
		for _, tone := range []string{"ok", "busy", "wait", "idle", "warn", "bad", "gone"} {
			pairs[tone+"/"+tone+"-bg"], pairs[tone+"/surface"] = 4.5, 4.5
		}
		for pair, least := range pairs {
			a, b, _ := strings.Cut(pair, "/")
			x, y := luminance(t, colour[a]), luminance(t, colour[b])
			if ratio := (max(x, y) + 0.05) / (min(x, y) + 0.05); ratio < least {
				t.Errorf("%s: %s stands out by %.2f, want %v", fmt.Sprint([]string{"light", "dark"}[i]), pair, ratio, least)
			}
		}
	}
}
