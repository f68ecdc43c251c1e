package image

import (
	"slices"
	"strconv"
	"strings"
)

// exposed returns the TCP ports among those that an image says it exposes, as 80 or 80/tcp, in order.
func exposed(ports map[string]struct{}) []int {
	var out []int
	for text := range ports {
		number, protocol, _ := strings.Cut(text, "/")
		if n, err := strconv.ParseUint(number, 10, 16); err == nil && n > 0 && (protocol == "" || protocol == "tcp") {
			out = append(out, int(n))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
