package cost

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"
)

// WriteCSV writes a report for spreadsheets. The columns stay as they are; new ones come behind.
func WriteCSV(out io.Writer, r Report) error {
	w := csv.NewWriter(out)
	_ = w.Write([]string{ // Flush keeps the error
		"kind", "name", "jobs", "time_seconds", "machine_hours", "cpu_hours", "gpu_hours", "minutes", "cost", "wasted", "currency", "by", "from", "to",
	})
	line := func(kind string, l Line) {
		number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
		rounded := func(f float64) string { return strconv.FormatFloat(f, 'f', 6, 64) }
		_ = w.Write([]string{
			kind, cell(l.Name), strconv.Itoa(l.Jobs), number(l.Time.Round(time.Millisecond).Seconds()), rounded(l.MachineHours), rounded(l.CPUTime.Hours()),
			rounded(l.GPUTime.Hours()), rounded(l.Minutes), rounded(l.Cost), rounded(l.Waste), cell(r.Currency), string(r.By), r.From.Format(time.RFC3339), r.To.Format(time.RFC3339),
		})
	}
	for _, l := range r.Lines {
		line("line", l)
	}
	line("idle", r.Idle)
	line("total", r.Total)
	w.Flush()
	return w.Error()
}

// cell is a text of others in a table: one that a spreadsheet would work out is quoted, so that it stays a text.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r\n", rune(text[0])) {
		return "'" + text
	}
	return text
}
