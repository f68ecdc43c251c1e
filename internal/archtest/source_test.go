package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/tranter-ci/tranter"

// file is one parsed Go file of the module.
type file struct {
	path string // relative to the module's root, with slashes
	test bool
	ast  *ast.File
}

// pkg returns the import path of the file's package, without the module's prefix; the root is "".
func (f file) pkg() string {
	dir := filepath.ToSlash(filepath.Dir(f.path))
	if dir == "." {
		return ""
	}
	return dir
}

// parsed are the files of the module; all tests look at the same ones.
var parsed = sync.OnceValues(func() (sources, error) { return parse("../..") })

type sources struct {
	fset  *token.FileSet
	files []file
}

// source returns all Go files of the module, tests included, generated ones left out.
func source(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	s, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.files) < 20 {
		t.Fatalf("found only %d files: the walk is broken", len(s.files))
	}
	return s.fset, s.files
}

func parse(root string) (sources, error) {
	s := sources{fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "tools" || name == "bin" || name == "dist") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		tree, err := parser.ParseFile(s.fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(tree) {
			s.files = append(s.files, file{path: filepath.ToSlash(rel), test: strings.HasSuffix(name, "_test.go"), ast: tree})
		}
		return nil
	})
	return s, err
}
