package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/fleet"
)

// Pool is whose machines they are.
type Pool struct {
	Token string // short token of the runner
	Name  string // of the runner
	// Rate says what a machine costs, by its option set. It is asked when a machine is new, and what it said then stays. Nil: unknown.
	Rate func(set string) cost.Rate
}

// open is the end of what lasts: a number, so that indexes find it behind all that has ended.
const open = math.MaxInt64

// Machines keeps what is new of the machines of a pool: their lives, the states that they were in and why, and the leases of jobs. changed
// are those entries of the pool's book that have changed, gone the names of those that have left it, at is when. The same again adds
// nothing; what was not told between two entries is missing, and nothing else.
func (h *History) Machines(ctx context.Context, pool Pool, changed []fleet.Machine, gone []string, at time.Time) error {
	if len(changed)+len(gone) == 0 {
		return nil
	}
	err := h.write(ctx, func(tx *sql.Tx) error {
		for i := range changed {
			k := lifeKeeper{ctx, tx, millis(at)}
			if err := k.keep(pool, &changed[i]); err != nil {
				return fmt.Errorf("machine %s: %w", changed[i].Name, err)
			}
		}
		for _, name := range gone {
			if err := endLives(ctx, tx, "machine = ? AND pool = ? AND gone = ?", millis(at), name, pool.Token, int64(open)); err != nil {
				return fmt.Errorf("machine %s: %w", name, err)
			}
		}
		return nil
	})
	return wrapIf("keep the machines of pool "+pool.Token, err)
}

// lifeKeeper keeps how a machine stands.
type lifeKeeper struct {
	ctx context.Context //nolint:containedctx // it lives as long as the call
	tx  *sql.Tx
	at  int64
}

func (k lifeKeeper) exec(text string, args ...any) error {
	_, err := k.tx.ExecContext(k.ctx, text, args...)
	return err
}

func (k lifeKeeper) keep(pool Pool, m *fleet.Machine) error {
	life, err := k.life(pool, m)
	if err != nil || life == 0 {
		return err
	}
	if before, err := k.state(life, m); err != nil || before {
		return err
	}
	return k.leases(life, m)
}

// life returns the number of a machine's life, which begins if it is new; 0: it has ended. Another one of the same name has ended by then.
func (k lifeKeeper) life(pool Pool, m *fleet.Machine) (int64, error) {
	made := millis(m.Made)
	var id int64
	var gone int64
	err := k.tx.QueryRowContext(k.ctx, "SELECT id, gone FROM lives WHERE machine = ? AND pool = ? AND made = ?", m.Name, pool.Token, made).Scan(&id, &gone)
	switch {
	case err == nil && gone != open:
		return 0, nil
	case !errors.Is(err, sql.ErrNoRows):
		return id, err
	}
	if err := endLives(k.ctx, k.tx, "machine = ? AND pool = ? AND gone = ?", made, m.Name, pool.Token, int64(open)); err != nil {
		return 0, err
	}
	var rate cost.Rate
	if pool.Rate != nil {
		rate = pool.Rate(m.Set)
	}
	r, err := k.tx.ExecContext(k.ctx, "INSERT INTO lives (pool, runner, machine, set_name, per_hour, minimum, step, made, gone) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		pool.Token, pool.Name, m.Name, m.Set, rate.PerHour, rate.Minimum.Milliseconds(), rate.Step.Milliseconds(), made, int64(open))
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// state keeps the state of a machine. A new reason of the same state replaces the one before. It tells whether what is kept is later
// already.
func (k lifeKeeper) state(life int64, m *fleet.Machine) (before bool, err error) {
	since := millis(m.Since)
	var start int64
	var state, reason string
	err = k.tx.QueryRowContext(k.ctx, "SELECT start, state, reason FROM spans WHERE life = ? AND job = '' ORDER BY start DESC, stop DESC LIMIT 1", life).Scan(&start, &state, &reason)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil || start > since:
		return true, err
	case state == string(m.State) && start == since:
		if reason == m.Reason {
			return false, nil
		}
		return false, k.exec("UPDATE spans SET reason = ? WHERE life = ? AND job = '' AND start = ? AND state = ?", m.Reason, life, start, state)
	}
	if err := k.exec("UPDATE spans SET stop = ? WHERE life = ? AND job = '' AND stop = ?", since, life, int64(open)); err != nil {
		return false, err
	}
	return false, k.exec("INSERT INTO spans (life, job, start, state, reason, stop) VALUES (?, '', ?, ?, ?, ?) ON CONFLICT DO UPDATE SET reason = excluded.reason, stop = excluded.stop",
		life, since, string(m.State), m.Reason, int64(open))
}

// leases keeps which jobs hold a machine, and that others no longer do.
func (k lifeKeeper) leases(life int64, m *fleet.Machine) error {
	held, err := k.held(life)
	if err != nil {
		return err
	}
	for _, l := range m.Leases {
		lease := [2]any{l.Job, millis(l.Since)}
		if held[lease] {
			delete(held, lease)
			continue
		}
		if l.Job == "" {
			continue
		}
		// One that has ended is of an entry from before.
		if err := k.exec("INSERT INTO spans (life, job, start, state, reason, stop) VALUES (?, ?, ?, '', '', ?) ON CONFLICT DO NOTHING", life, l.Job, lease[1], int64(open)); err != nil {
			return err
		}
	}
	for lease := range held {
		end := millis(m.Used)
		if m.State == fleet.Removing {
			end = max(end, millis(m.Since))
		}
		end = max(min(end, k.at), lease[1].(int64))
		if err := k.exec("UPDATE spans SET stop = ? WHERE life = ? AND job = ? AND start = ? AND stop = ?", end, life, lease[0], lease[1], int64(open)); err != nil {
			return err
		}
	}
	return nil
}

// held are the leases that last.
func (k lifeKeeper) held(life int64) (map[[2]any]bool, error) {
	rows, err := k.tx.QueryContext(k.ctx, "SELECT job, start FROM spans WHERE life = ? AND job > '' AND stop = ?", life, int64(open))
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	held := map[[2]any]bool{}
	for rows.Next() {
		var job string
		var start int64
		if err := rows.Scan(&job, &start); err != nil {
			return nil, err
		}
		held[[2]any{job, start}] = true
	}
	return held, rows.Err()
}

// endLives ends lives, and what lasts in them, but nothing before it began.
func endLives(ctx context.Context, tx *sql.Tx, which string, at int64, args ...any) error {
	ids, err := numbers(ctx, tx, "SELECT id FROM lives WHERE "+which, args...)
	if err != nil {
		return err
	}
	for _, id := range ids {
		for _, text := range []string{
			"UPDATE spans SET stop = max(start, ?1) WHERE life = ?2 AND stop = ?3",
			"UPDATE lives SET gone = max(made, ?1, coalesce((SELECT max(stop) FROM spans WHERE life = ?2), 0)) WHERE id = ?2 AND ?3",
			"INSERT OR REPLACE INTO past_spans SELECT id, coalesce(" + packedStates + ", ''), coalesce(" + packedLeases + ", '') FROM lives l WHERE id = ?2 AND ?1 < ?3",
		} {
			if _, err := tx.ExecContext(ctx, text, at, id, int64(open)); err != nil {
				return err
			}
		}
	}
	return nil
}

func numbers(ctx context.Context, tx *sql.Tx, text string, args ...any) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

// Reconcile ends the lives of those machines of a pool that are not there any more, although nobody has told so: the process was
// killed in between, or nothing could be kept. When they went nobody knows; it was before the manager that knew of them ended, which is
// when the last sample was taken.
func (h *History) Reconcile(ctx context.Context, pool string, present []fleet.Machine, at time.Time) error {
	err := h.write(ctx, func(tx *sql.Tx) error {
		lost, err := openLives(ctx, tx, pool)
		if err != nil {
			return err
		}
		for i := range present {
			delete(lost, lifeName{present[i].Name, millis(present[i].Made)})
		}
		if len(lost) == 0 {
			return nil
		}
		end := millis(at)
		var last sql.NullInt64
		if err := tx.QueryRowContext(ctx, "SELECT max(at) FROM (SELECT (SELECT max(at) FROM samples WHERE series = s.id) AS at FROM series s)").Scan(&last); err != nil {
			return err
		}
		if last.Valid {
			end = min(end, last.Int64+time.Minute.Milliseconds())
		}
		for _, id := range lost {
			if err := endLives(ctx, tx, "id = ?", end, id); err != nil {
				return err
			}
		}
		return nil
	})
	return wrapIf("end the lives of lost machines of pool "+pool, err)
}

type lifeName struct {
	name string
	made int64
}

// openLives returns the numbers of the lives of a pool that last.
func openLives(ctx context.Context, tx *sql.Tx, pool string) (map[lifeName]int64, error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, machine, made FROM lives WHERE gone = ? AND pool = ?", int64(open), pool)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	out := map[lifeName]int64{}
	for rows.Next() {
		var id int64
		var n lifeName
		if err := rows.Scan(&id, &n.name, &n.made); err != nil {
			return nil, err
		}
		out[n] = id
	}
	return out, rows.Err()
}

// OpenPools returns the pools of which machines are there, so that those that are in no configuration any more can be reconciled too.
func (h *History) OpenPools(ctx context.Context) ([]string, error) {
	rows, err := h.read.QueryContext(ctx, "SELECT DISTINCT pool FROM lives WHERE gone = ? ORDER BY pool", int64(open))
	if err != nil {
		return nil, fmt.Errorf("read the pools of the past: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []string
	for rows.Next() {
		var pool string
		if err := rows.Scan(&pool); err != nil {
			return nil, fmt.Errorf("read the pools of the past: %w", err)
		}
		out = append(out, pool)
	}
	return out, wrapIf("read the pools of the past", rows.Err())
}
