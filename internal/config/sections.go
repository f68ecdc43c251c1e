package config

// Sections returns the [[runners]] sections of a file as they are written, and what is wrong with the file's syntax.
func Sections(s Source) ([]Section, []Problem) {
	doc, faults := parseTOML(s.Data)
	d := newDecoder(s, faults)
	var out []Section
	for _, n := range sectionNodes(doc.root) {
		out = append(out, sectionOf(n))
	}
	return out, d.problems
}
