package pipeline_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// bigFile is a configuration of some 3,000 lines with 500 jobs, a matrix of 200, templates ten deep, and needs.
func bigFile() string {
	var b strings.Builder
	b.WriteString("stages: [build, test, deploy]\nvariables:\n")
	for i := range 50 {
		fmt.Fprintf(&b, "  GLOBAL_%d: \"value $GLOBAL_%d\"\n", i, i+1)
	}
	b.WriteString(".t0:\n  image: alpine\n  variables: {A: a}\n  script: [x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, ".t%d:\n  extends: .t%d\n  variables:\n    T%d: \"$A\"\n  cache:\n    key: t%d\n    paths: [out]\n", i, i-1, i, i)
	}
	b.WriteString("matrix:\n  stage: build\n  extends: .t8\n  parallel:\n    matrix:\n      - A: [" + numbers(10) + "]\n        B: [" + numbers(20) + "]\n")
	for i := range 500 {
		fmt.Fprintf(&b, "job %d:\n  stage: test\n  extends: .t%d\n  needs:\n    - job: matrix\n      parallel: {matrix: [{A: 1}]}\n  rules:\n    - if: '$CI_COMMIT_BRANCH == \"main\" || $GLOBAL_3 =~ /^value.*4$/'\n", i, i%9)
	}
	return b.String()
}

func numbers(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return strings.Join(list, ", ")
}

func BenchmarkCompile(b *testing.B) {
	yaml := bigFile()
	for b.Loop() {
		if p, problems := compile(b, yaml); p == nil {
			b.Fatal(problems)
		}
	}
}

// TestBigFile bounds the time for a big configuration, generously: what grows with the square of the file is found.
func TestBigFile(t *testing.T) {
	t.Parallel()
	start := time.Now()
	p, problems := compile(t, bigFile())
	if p == nil || len(p.Jobs) != 700 {
		t.Fatalf("problems: %.500s", problems)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}
