package store

import (
	"bytes"
	"compress/zlib"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

const (
	idBits    = 20      // of a job's id for a number among those that ended in the same millisecond
	maxMillis = 1 << 42 // the year 2109
	maxRecord = 8 << 20 // bytes that are read of a record
)

// millis is a time as it is kept; one that has no place is the nearest that has. A zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return min(max(t.UnixMilli(), 0), maxMillis)
}

// timeOf is the reverse of millis.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// firstID is the least id that a job can have which ended at a time.
func firstID(t time.Time) int64 { return millis(t) << idBits }

// Keep keeps a job that has ended, or replaces what is kept of it.
func (h *History) Keep(ctx context.Context, job tranter.JobHistory) error {
	if job.Key == "" || job.Times.Ended.IsZero() {
		return fmt.Errorf("keep job %q: it has no key, or has not ended", job.Key)
	}
	err := h.write(ctx, func(tx *sql.Tx) error { return h.packer.keepJob(ctx, tx, &job) })
	return wrapIf("keep job "+job.Key, err)
}

func (p *packer) keepJob(ctx context.Context, tx *sql.Tx, job *tranter.JobHistory) error {
	if err := dropJob(ctx, tx, job.Key); err != nil {
		return err
	}
	var id int64
	first := firstID(job.Times.Ended)
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(id) + 1, ?1) FROM jobs WHERE id >= ?1 AND id < ?2", first, first+1<<idBits).Scan(&id); err != nil {
		return err
	}
	tags, bill, err := tagsAndBill(job)
	if err != nil {
		return err
	}
	j, t := &job.Job, &job.Times
	search := searchText(j)
	if _, err := tx.ExecContext(ctx, "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		id, job.Key, job.Runner, job.Name, job.Executor, j.ID, j.Name, j.Project, j.ProjectID, j.Ref, j.User, tags, j.Public,
		job.Place.Machine, job.Place.Set, job.Place.Batch, t.Queued.Milliseconds(), millis(t.Taken), millis(t.Placed), millis(t.Started), millis(t.Ended),
		string(job.Result.State), string(job.Result.Reason), job.Result.ExitCode, bill, search); err != nil {
		return err
	}
	if err := p.keepRecord(ctx, tx, id, *job); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO job_search (rowid, text) VALUES (?, ?)", id, search); err != nil {
		return err
	}
	return keepWait(ctx, tx, job)
}

// keepRecord keeps the whole of a job. The samples of its use are apart: they are long, and no list needs them.
func (p *packer) keepRecord(ctx context.Context, tx *sql.Tx, id int64, job tranter.JobHistory) error {
	samples := []byte{}
	if len(job.Usage.Samples) > 0 {
		data, err := json.Marshal(job.Usage.Samples)
		if err != nil {
			return err
		}
		samples = p.pack(data)
	}
	job.Usage.Samples = nil
	data, err := json.Marshal(job)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO records VALUES (?, ?, ?)", id, p.pack(data), samples)
	return err
}

// keepWait keeps how long a job has waited for its place.
func keepWait(ctx context.Context, tx *sql.Tx, job *tranter.JobHistory) error {
	t := &job.Times
	if t.Placed.IsZero() || job.Key == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO waits VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET placed = excluded.placed, wait = excluded.wait",
		job.Key, millis(t.Placed), max(0, t.Wait(t.Placed).Milliseconds()), job.Runner)
	return err
}

func tagsAndBill(job *tranter.JobHistory) (tags, bill string, err error) {
	if len(job.Job.Tags) > 0 {
		data, err := json.Marshal(job.Job.Tags)
		if err != nil {
			return "", "", err
		}
		tags = string(data)
	}
	if job.Bill != nil {
		data, err := json.Marshal(job.Bill)
		if err != nil {
			return "", "", err
		}
		bill = string(data)
	}
	return tags, bill, nil
}

// dropJob forgets what is kept of a job, but for its wait.
func dropJob(ctx context.Context, tx *sql.Tx, key string) error {
	var id int64
	err := tx.QueryRowContext(ctx, "SELECT id FROM jobs WHERE key = ?", key).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	for _, text := range []string{"DELETE FROM jobs WHERE id = ?", "DELETE FROM records WHERE id = ?", "DELETE FROM job_search WHERE rowid = ?"} {
		if err == nil {
			_, err = tx.ExecContext(ctx, text, id)
		}
	}
	return err
}

// searchText is in what a text is searched.
func searchText(j *tranter.JobLabel) string {
	return strings.ToLower(strings.Join([]string{j.Name, j.Project, j.Ref, strconv.FormatInt(j.ID, 10)}, "\n"))
}

// packer compresses records: the samples of a long job are long and much alike. What a writer needs is large, and serves again.
type packer struct{ writers sync.Pool }

func (p *packer) pack(data []byte) []byte {
	var out bytes.Buffer
	w, ok := p.writers.Get().(*zlib.Writer)
	if ok {
		w.Reset(&out)
	} else {
		w, _ = zlib.NewWriterLevel(&out, zlib.BestSpeed) // the level is a known one
	}
	_, _ = w.Write(data) // a buffer takes all
	_ = w.Close()
	p.writers.Put(w)
	return out.Bytes()
}

func unpack(data []byte) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxRecord))
}

// jobColumns are the columns of a job from which a JobHistory is made without its record.
const jobColumns = `j.key, j.runner, j.runner_name, j.executor, j.job, j.name, j.project, j.project_id, j.ref, j.user, j.tags, j.visibility,
 j.machine, j.set_name, j.batch, j.queued, j.taken, j.placed, j.started, j.ended, j.state, j.reason, j.exit_code, j.bill`

// jobRow is where jobColumns are read into, and what follows them: one serves for all rows of an answer, which may be thousands.
type jobRow struct {
	job                                   tranter.JobHistory
	tags, bill                            sql.RawBytes
	queued, taken, placed, started, ended int64
	into                                  []any
}

func newJobRow(more ...any) *jobRow {
	r := &jobRow{}
	j := &r.job.Job
	r.into = append([]any{
		&r.job.Key, &r.job.Runner, &r.job.Name, &r.job.Executor, &j.ID, &j.Name, &j.Project, &j.ProjectID, &j.Ref, &j.User, &r.tags, &j.Public,
		&r.job.Place.Machine, &r.job.Place.Set, &r.job.Place.Batch, &r.queued, &r.taken, &r.placed, &r.started, &r.ended,
		&r.job.Result.State, &r.job.Result.Reason, &r.job.Result.ExitCode, &r.bill,
	}, more...)
	return r
}

// scan reads a row. The job is good until the next one.
func (r *jobRow) scan(rows interface{ Scan(...any) error }) error {
	if err := rows.Scan(r.into...); err != nil {
		return err
	}
	r.job.Times = tranter.JobTimes{Queued: time.Duration(r.queued) * time.Millisecond, Taken: timeOf(r.taken), Placed: timeOf(r.placed), Started: timeOf(r.started), Ended: timeOf(r.ended)}
	r.job.Job.Tags, r.job.Bill = tagsOf(r.tags), nil
	if len(r.bill) > 0 {
		b := new(tranter.Bill)
		if json.Unmarshal(r.bill, b) == nil {
			r.job.Bill = b
		}
	}
	return nil
}

// tagsOf reads tags; what cannot be read has none.
func tagsOf(text []byte) (tags []string) {
	if inside, ok := bytes.CutPrefix(text, []byte(`["`)); ok && !bytes.ContainsAny(inside, `\[{`) {
		if inside, ok = bytes.CutSuffix(inside, []byte(`"]`)); ok { // as nearly all are: thousands are read for a report
			return strings.Split(string(inside), `","`)
		}
	}
	if len(text) > 0 {
		_ = json.Unmarshal(text, &tags)
	}
	return tags
}

// scanWhole reads jobColumns, the record and the samples. A job whose record is damaged is what its columns say, and says so.
func scanWhole(rows interface{ Scan(...any) error }) (tranter.JobHistory, error) {
	var record, samples sql.RawBytes
	row := newJobRow(&record, &samples)
	if err := row.scan(rows); err != nil {
		return row.job, err
	}
	job := row.job
	var whole tranter.JobHistory
	if damage := decode(record, &whole); damage != nil {
		job.Result.Message = "the record of this job in the history is damaged; its stages, its use and its message are lost: " + damage.Error()
		return job, nil //nolint:nilerr // the job itself tells of it
	}
	if len(samples) > 0 && decode(samples, &whole.Usage.Samples) != nil {
		whole.Usage.Samples = nil // a curve that cannot be drawn
	}
	whole.Key = job.Key
	return whole, nil
}

func decode(packed []byte, into any) error {
	data, err := unpack(packed)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// Jobs returns jobs that have ended, the latest first, without the samples of their use, which Job returns. A job whose record is
// damaged is among them, and says so in its message.
func (h *History) Jobs(ctx context.Context, q view.JobQuery) ([]tranter.JobHistory, error) {
	f, err := jobFilter(ctx, h.read, q)
	if err != nil || f == nil {
		return nil, wrapIf("read the jobs of the past", err)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 50
	}
	var out []tranter.JobHistory
	err = each(ctx, h.read, "SELECT "+jobColumns+", coalesce(r.record, x''), x'' FROM "+f.from+" LEFT JOIN records r ON r.id = j.id WHERE "+f.text()+" ORDER BY "+f.order+" DESC LIMIT ?", append(f.args, limit), func(rows *sql.Rows) error {
		job, err := scanWhole(rows)
		if err == nil {
			out = append(out, job)
		}
		return err
	})
	return out, wrapIf("read the jobs of the past", err)
}

// Job returns a job that has ended. The error wraps tranter.ErrNotFound if none is kept with that key.
func (h *History) Job(ctx context.Context, key string) (tranter.JobHistory, error) {
	job, found := tranter.JobHistory{}, false
	err := each(ctx, h.read, "SELECT "+jobColumns+", coalesce(r.record, x''), coalesce(r.samples, x'') FROM jobs j LEFT JOIN records r ON r.id = j.id WHERE j.key = ?", []any{key}, func(rows *sql.Rows) (err error) {
		found = true
		job, err = scanWhole(rows)
		return err
	})
	if err == nil && !found {
		err = tranter.ErrNotFound
	}
	return job, wrapIf("read job "+key+" of the past", err)
}

// longestJob is how long before the end of a time a job can have begun that ended after it, to be found by Billed.
const longestJob = 31 * 24 * time.Hour

// Billed returns the jobs that were there in a time, from one end to the other, without their stages, use and message: what costs are
// worked out from. A zero time is no bound.
func (h *History) Billed(ctx context.Context, from, to time.Time) ([]tranter.JobHistory, error) {
	where, args := "j.id >= ?", []any{firstID(from)}
	if !to.IsZero() {
		where += " AND j.id < ? AND j.taken < ?"
		args = append(args, firstID(to.Add(longestJob)), millis(to))
	}
	return billed(ctx, h.read, where, args...)
}

func billed(ctx context.Context, db *sql.DB, where string, args ...any) ([]tranter.JobHistory, error) {
	var out []tranter.JobHistory
	row := newJobRow()
	err := each(ctx, db, "SELECT "+jobColumns+" FROM jobs j WHERE "+where+" ORDER BY j.id", args, func(rows *sql.Rows) error {
		if err := row.scan(rows); err != nil {
			return err
		}
		out = append(out, row.job)
		return nil
	})
	return out, wrapIf("read the jobs of the past", err)
}

func wrapIf(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
