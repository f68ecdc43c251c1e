package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/tranter-ci/tranter/internal/view"
)

// filter is the part of a question that selects rows.
type filter struct {
	from, order string
	parts       []string
	args        []any
	led         bool // one part says by which index to go
}

func (f *filter) text() string {
	if len(f.parts) == 0 {
		return "1"
	}
	return strings.Join(f.parts, " AND ")
}

func (f *filter) add(part string, args ...any) {
	f.parts = append(f.parts, part)
	f.args = append(f.args, args...)
}

// is selects by a column. The first column leads: its index holds what is wanted in the order of the answer, so that no more is
// read than is asked for. SQLite uses no index for a column with a plus.
func (f *filter) is(column, value string) {
	switch {
	case value == "":
	case f.led:
		f.add("+"+column+" = ?", value)
	default:
		f.add(column+" = ? AND "+column+" <> ''", value) // the second part opens indexes that leave out empty ones
		f.led = true
	}
}

// maxSearch bounds the text that is searched for, in characters.
const maxSearch = 100

// trigrams is a question of an index of three characters each for a text of at least three. Whoever asks looks at what is found: the
// index tells only that all of them are somewhere.
func trigrams(text string) string {
	runes := []rune(text)
	var b strings.Builder
	for i := 0; i+3 <= len(runes); i++ {
		if i > 0 {
			b.WriteString(" AND ")
		}
		b.WriteString(`"` + strings.ReplaceAll(string(runes[i:i+3]), `"`, `""`) + `"`)
	}
	return b.String()
}

// searched is a text as it is searched for.
func searched(text string) string {
	runes := []rune(strings.ToValidUTF8(strings.ToLower(strings.TrimSpace(strings.ReplaceAll(text, "\x00", ""))), ""))
	return string(runes[:min(len(runes), maxSearch)])
}

// jobFilter makes the filter of a question about jobs; nil: there is no answer.
func jobFilter(ctx context.Context, db *sql.DB, q view.JobQuery) (*filter, error) {
	f := &filter{from: "jobs j", order: "j.id"}
	if text := searched(q.Text); text != "" {
		if len([]rune(text)) >= 3 {
			f.from, f.order, f.led = "job_search s CROSS JOIN jobs j ON j.id = s.rowid", "s.rowid", true
			f.add("job_search MATCH ?", trigrams(text))
		}
		f.add("instr(j.search, ?) > 0", text)
	}
	if q.Before != "" {
		var id int64
		err := db.QueryRowContext(ctx, "SELECT id FROM jobs WHERE key = ?", q.Before).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, nil // it is forgotten, and all that are older
		} else if err != nil {
			return nil, err
		}
		f.add(f.order+" < ?", id)
	}
	if !q.From.IsZero() {
		f.add(f.order+" >= ?", firstID(q.From))
	}
	if !q.To.IsZero() {
		f.add(f.order+" < ?", firstID(q.To))
	}
	f.is("j.machine", q.Machine)
	f.is("j.batch", q.Batch)
	f.is("j.project", q.Project)
	f.is("j.reason", string(q.Reason))
	if q.Runner != "" {
		column, err := runnerColumn(ctx, db, q.Runner)
		if err != nil {
			return nil, err
		}
		f.is(column, q.Runner)
	}
	f.is("j.state", string(q.State))
	return f, nil
}

// runnerColumn tells whether a runner is called by its short token or by its name.
func runnerColumn(ctx context.Context, db *sql.DB, runner string) (string, error) {
	var token bool
	err := db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM jobs WHERE runner = ?)", runner).Scan(&token)
	if token {
		return "j.runner", err
	}
	return "j.runner_name", err
}
