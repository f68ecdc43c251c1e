package pipeline

import (
	"slices"
	"strings"
)

// nearest returns a hint with the known word that a misspelt one is closest to, or "".
func nearest(word string, known []string) string {
	if today := map[string]string{"type": "stage", "cobertura": "coverage_report"}[word]; today != "" && slices.Contains(known, today) {
		return " (" + word + ": is called " + today + ": today)"
	}
	best, distance := "", min(1+len(word)/6, 3)
	for _, k := range known {
		if len(word) > 255 || len(k) > 255 || k == word {
			continue
		}
		if d := editDistance(strings.ToLower(word), strings.ToLower(k), distance); d <= distance && (best == "" || d < distance) {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// editDistance counts the changes that turn a into b, neighbours swapped counting as one; beyond limit it gives up.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
