// Command sbom writes what a Go program is built from, as CycloneDX 1.5 JSON: what the program itself says about that, so
// that nothing is listed that is not in it. Two runs over one program give the same bytes.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sort"
	"strings"
	"time"
)

type bom struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Time      string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref  string   `json:"ref"`
	Uses []string `json:"dependsOn"`
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: sbom PROGRAM VERSION SECONDS, the time of the build since 1970; the list goes to standard output")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(program, version, seconds string, w io.Writer) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("read what %s is built from: %w", program, err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var at int64
	if _, err := fmt.Sscan(seconds, &at); err != nil {
		return fmt.Errorf("the time of the build: %w", err)
	}
	sum := sha256.Sum256(data)
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(list(info, version, sum, time.Unix(at, 0).UTC()))
}

func list(info *debug.BuildInfo, version string, sum [32]byte, at time.Time) bom {
	main := component{
		Type: "application", Ref: "pkg:golang/" + info.Main.Path + "@" + version, Name: info.Main.Path, Version: version,
		PURL: "pkg:golang/" + info.Main.Path + "@" + version, Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED", "-trimpath", "-tags", "vcs.revision", "vcs.modified":
			main.Properties = append(main.Properties, property{"go:" + s.Key, s.Value})
		}
	}
	uses := dependency{Ref: main.Ref, Uses: []string{}}
	std := strings.TrimPrefix(info.GoVersion, "go")
	components := []component{{Type: "library", Ref: "pkg:golang/std@" + std, Name: "std", Version: std, PURL: "pkg:golang/std@" + std}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		ref := "pkg:golang/" + m.Path + "@" + m.Version
		c := component{Type: "library", Ref: ref, Name: m.Path, Version: m.Version, PURL: ref}
		if m.Sum != "" { // Go's own hash of the module's files, which is none of CycloneDX's kinds
			c.Properties = []property{{"go:sum", m.Sum}}
			if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil {
				c.Properties = append(c.Properties, property{"go:sum:hex", hex.EncodeToString(raw)})
			}
		}
		components = append(components, c)
	}
	sort.Slice(components, func(i, j int) bool { return components[i].Ref < components[j].Ref })
	for _, c := range components {
		uses.Uses = append(uses.Uses, c.Ref)
	}
	return bom{
		Format: "CycloneDX", Spec: "1.5", Serial: serial(sum), Version: 1,
		Metadata: metadata{Time: at.Format(time.RFC3339), Component: main}, Components: components, Dependencies: []dependency{uses},
	}
}

// serial is a UUID that the program's own hash gives (RFC 9562, version 8).
func serial(sum [32]byte) string {
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
