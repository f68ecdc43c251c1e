package config

import (
	"fmt"
	"strings"
)

// suggest says what an unknown key in a section may have been meant to be.
func (d *decoder) suggest(t *table, key string) string {
	var names []string
	for _, f := range t.fields {
		names = append(names, f.name)
	}
	near := nearest(key, names)
	if near != "" {
		return fmt.Sprintf("Did you mean %s?", near)
	}
	if at := d.elsewhere(t, key); at != "" {
		return fmt.Sprintf("This key belongs to %s.", at)
	}
	return "Remove it, or correct its name."
}

// elsewhere returns the header of the section that has such a key: the one closest to t.
func (d *decoder) elsewhere(t *table, key string) string {
	best, common := "", -1
	whole := d.whole
	if whole == nil {
		whole = d.schema
	}
	whole.walk(func(f *field) {
		if !strings.EqualFold(f.name, key) {
			return
		}
		if c := commonPrefix(f.section, t.path); c > common {
			best, common = header(f.section), c
		}
	})
	return best
}

// header returns a section in brackets, as it stands in a file.
func header(section string) string {
	switch section {
	case "":
		return "the top of the file"
	case "runners":
		return "[[runners]]"
	}
	return "[" + section + "]"
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// nearest returns the name that is most like word, if one is so alike that it may have been meant.
func nearest(word string, names []string) string {
	best, least := "", max(1, min(3, len(word)/3))+1
	for _, name := range names {
		if name == "" {
			continue
		}
		if n := distance(fold(word), fold(name)); n < least {
			best, least = name, n
		}
	}
	return best
}

// fold removes what people mix up when they write keys: case, hyphens and underscores.
func fold(s string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s))
}

// distance counts the characters to insert, remove, replace or swap to get from a to b.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 100 || len(y) > 100 {
		return len(x) + len(y)
	}
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(x)][len(y)]
}
