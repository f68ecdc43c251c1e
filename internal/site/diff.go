package site

import (
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
)

const (
	contextLines = 2
	// mostCells bounds the table of a comparison; texts that are longer are shown as replaced.
	mostCells = 16 << 20
)

// Difference compares two configurations by lines, and returns the lines that differ with a few around them: "-" before those
// of the old one, "+" before those of the new one. Secrets are stars. Equal texts have no difference.
func (s Site) Difference(old, now string) []string {
	a, b := strings.Split(strings.TrimSuffix(old, "\n"), "\n"), strings.Split(strings.TrimSuffix(now, "\n"), "\n")
	if slices.Equal(a, b) {
		return nil
	}
	var all []string
	var changed []int
	for _, step := range script(a, b) {
		if step.mark != ' ' {
			changed = append(changed, len(all))
		}
		all = append(all, string(step.mark)+" "+s.Masked(starred(step.line)))
	}
	var out []string
	last := -1
	for i, line := range all {
		if !slices.ContainsFunc(changed, func(c int) bool { return c >= i-contextLines && c <= i+contextLines }) {
			continue
		}
		if last >= 0 && i > last+1 {
			out = append(out, "  ...")
		}
		out, last = append(out, line), i
	}
	return out
}

// starred replaces what is secret on a line of a configuration, as far as its key tells.
func starred(line string) string {
	key, value, ok := strings.Cut(line, "=")
	if name := strings.TrimSpace(key); ok && config.SecretName(name) && strings.Contains(value, `"`) && !strings.HasSuffix(name, "_file") {
		return key + `= "` + tranter.Secret("x").String() + `"`
	}
	return line
}

// edit is one line of a comparison.
type edit struct {
	mark byte // ' ', '-' or '+'
	line string
}

// script returns the lines of a and b in one row, as few of them as possible as differences.
func script(a, b []string) []edit {
	from := 0
	for from < len(a) && from < len(b) && a[from] == b[from] {
		from++
	}
	head := marked(' ', a[:from])
	a, b = a[from:], b[from:]
	if len(a)*len(b) > mostCells {
		return append(append(head, marked('-', a)...), marked('+', b)...)
	}
	common := inCommon(a, b)
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i] == b[j]:
			head = append(head, edit{' ', a[i]})
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			head = append(head, edit{'-', a[i]})
			i++
		default:
			head = append(head, edit{'+', b[j]})
			j++
		}
	}
	return append(append(head, marked('-', a[i:])...), marked('+', b[j:])...)
}

// inCommon returns how many lines a and b have in common from each pair of lines on.
func inCommon(a, b []string) [][]int {
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i, x := range slices.Backward(a) {
		for j, y := range slices.Backward(b) {
			if x == y {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	return common
}

func marked(mark byte, lines []string) []edit {
	out := make([]edit, len(lines))
	for i, line := range lines {
		out[i] = edit{mark, line}
	}
	return out
}
