package archtest

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// The budgets. What really makes code hard to change is large types and packages that know each other; the length of
// functions comes last.
const (
	maxMethods          = 25
	maxFields           = 20
	maxInterfaceMethods = 5
	maxFileLines        = 500
	maxFunctionLines    = 60
	maxParameters       = 5
	maxResults          = 3
)

// exceptions names what may be over a budget, each with its reason. Key: path, a space, and the name (or "file").
var exceptions = map[string]string{
	"job.go Job":              "the wire format of a job's payload",
	"coordinator.go Features": "the wire format of a runner's features",
	"phase.go Phase":          "the wire format of what the agent is told",
	"phase.go SourcesStep":    "plain data with one field per setting of GIT_*",

	"internal/pipeline/graph.go Job": "plain data with one field per keyword of a job",

	"internal/provision/host.go Shell": "standard streams as those of Run, so that its callers need not know package remote's",
}

func over(t *testing.T, seen map[string]bool, key, format string, args ...any) {
	t.Helper()
	if exceptions[key] != "" {
		seen[key] = true
		return
	}
	t.Errorf("%s: "+format, append([]any{key}, args...)...)
}

func TestBudgets(t *testing.T) {
	fset, files := source(t)
	seen := map[string]bool{}
	methods := map[string]int{}
	for _, f := range files {
		if f.test {
			continue
		}
		if n := fset.File(f.ast.FileStart).LineCount(); n > maxFileLines {
			over(t, seen, f.path+" file", "%d lines, at most %d", n, maxFileLines)
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				checkFunction(t, seen, fset, f, d)
				if r := receiver(d); r != "" {
					methods[f.pkg()+" "+r]++
				}
			case *ast.GenDecl:
				checkTypes(t, seen, f, d)
			}
		}
	}
	for name, n := range methods {
		if n > maxMethods {
			over(t, seen, name, "%d methods, at most %d", n, maxMethods)
		}
	}
	for key := range exceptions {
		if !seen[key] {
			t.Errorf("the exception for %s is no longer needed: remove it", key)
		}
	}
}

func checkFunction(t *testing.T, seen map[string]bool, fset *token.FileSet, f file, d *ast.FuncDecl) {
	t.Helper()
	key := f.path + " " + d.Name.Name
	if n := fset.Position(d.End()).Line - fset.Position(d.Pos()).Line + 1; n > maxFunctionLines {
		over(t, seen, key, "%d lines, at most %d", n, maxFunctionLines)
	}
	if n := d.Type.Params.NumFields(); n > maxParameters {
		over(t, seen, key, "%d parameters, at most %d", n, maxParameters)
	}
	if d.Type.Results != nil && d.Type.Results.NumFields() > maxResults {
		over(t, seen, key, "%d results, at most %d", d.Type.Results.NumFields(), maxResults)
	}
}

func checkTypes(t *testing.T, seen map[string]bool, f file, d *ast.GenDecl) {
	t.Helper()
	for _, s := range d.Specs {
		spec, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		key := f.path + " " + spec.Name.Name
		switch typ := spec.Type.(type) {
		case *ast.StructType:
			if n := typ.Fields.NumFields(); n > maxFields && f.pkg() != "internal/config" {
				over(t, seen, key, "%d fields, at most %d", n, maxFields)
			}
		case *ast.InterfaceType:
			if n := typ.Methods.NumFields(); n > maxInterfaceMethods {
				over(t, seen, key, "%d methods, at most %d", n, maxInterfaceMethods)
			}
		}
	}
}

func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	_, files := source(t)
	comments := map[string][]string{}
	for _, f := range files {
		if strings.HasSuffix(f.ast.Name.Name, "_test") {
			continue
		}
		pkg := f.pkg()
		if _, ok := comments[pkg]; !ok {
			comments[pkg] = nil
		}
		if f.ast.Doc != nil && !f.test {
			comments[pkg] = append(comments[pkg], f.path)
		}
	}
	for pkg, in := range comments {
		if len(in) != 1 {
			t.Errorf("package %q has %d package comments (%s), want exactly one", pkg, len(in), strings.Join(in, ", "))
		}
	}
}

func TestNames(t *testing.T) {
	_, files := source(t)
	drawers := map[string]bool{"util": true, "utils": true, "common": true, "helpers": true, "helper": true, "misc": true, "shared": true}
	for _, f := range files {
		if drawers[f.ast.Name.Name] {
			t.Errorf("%s: a package called %s says nothing about what is in it", f.path, f.ast.Name.Name)
		}
	}
}
