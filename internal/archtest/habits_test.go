package archtest

import (
	"go/ast"
	"testing"
)

// calls yields the selector calls X.Name of a file, with X a plain name.
func calls(f file, yield func(x, name string, call *ast.CallExpr)) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				yield(x.Name, sel.Sel.Name, call)
			}
		}
		return true
	})
}

func imports(f file, path string) bool {
	for _, spec := range f.ast.Imports {
		if spec.Path.Value == `"`+path+`"` {
			return true
		}
	}
	return false
}

// Sleeping is waiting without knowing for what. In a synctest bubble the time is virtual, and it is fine.
func TestNothingSleeps(t *testing.T) {
	fset, files := source(t)
	for _, f := range files {
		if f.test && imports(f, "testing/synctest") {
			continue
		}
		calls(f, func(x, name string, call *ast.CallExpr) {
			if x == "time" && name == "Sleep" {
				t.Errorf("%s: time.Sleep", fset.Position(call.Pos()))
			}
		})
	}
}

func TestNoTestSkipsItself(t *testing.T) {
	fset, files := source(t)
	for _, f := range files {
		if !f.test {
			continue
		}
		calls(f, func(x, name string, call *ast.CallExpr) {
			if (x == "t" || x == "b") && (name == "Skip" || name == "Skipf" || name == "SkipNow") {
				t.Errorf("%s: a test that skips itself proves nothing", fset.Position(call.Pos()))
			}
		})
	}
}

func TestNoInit(t *testing.T) {
	_, files := source(t)
	for _, f := range files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: what the binary does is decided in cmd, not by an import", f.path)
			}
		}
	}
}
