package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// value returns one that nobody else writes.
func (w *worker) value() string { return fmt.Sprintf("%s:%d", w.Name, w.written.Add(1)) }

// outcomeOf says what is known of a write that returned err. What PostgreSQL
// answers with an error it has not done; whatever else went wrong may have
// happened after it has.
func outcomeOf(err error) outcome {
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return ok
	case errors.As(err, &refused) && refused.Severity == "ERROR":
		return failed
	}
	return unknown
}

// respond notes the end of an operation and returns its outcome.
func (w *worker) respond(op int, rec record) outcome {
	w.log.respond(op, rec)
	return rec.Outcome
}

// write makes one write of some kind. Those that make everything stale, so that
// an entry which should not be there is gone before it is read, are rare.
func (w *worker) write(ctx context.Context, rng *rand.Rand) outcome {
	id := someRow(rng)
	switch n := rng.IntN(1000); {
	case n < 300:
		_, o := w.exec(ctx, "UPDATE item SET v = $1 WHERE id = $2", id, w.value())
		return o
	case n < 420:
		return w.swap(ctx, id)
	case n < 440:
		return w.updateGroup(ctx, rng.IntN(groups))
	case n < 580:
		const text = "INSERT INTO item VALUES ($2, $2 % 3, $1) ON CONFLICT (id) DO UPDATE SET v = excluded.v"
		_, o := w.exec(ctx, text, id, w.value())
		return o
	case n < 700:
		return w.deleteOrInsert(ctx, rng.IntN(mortal))
	case n < 997:
		return w.transaction(ctx, rng)
	case n < 999:
		return w.prepare(ctx, rng)
	}
	return w.reshape(ctx)
}

// exec runs a write of one row. n is the number of rows that it changed: none
// means that it found none.
func (w *worker) exec(ctx context.Context, text string, id int, v string) (n int64, o outcome) {
	op := w.log.invoke(record{What: text, Set: values{id: v}})
	args := []any{v, id}
	if v == "" {
		args = args[1:]
	}
	result, err := w.cached.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, w.respond(op, record{Outcome: outcomeOf(err)})
	}
	if n, err = result.RowsAffected(); err != nil {
		return 0, w.respond(op, record{Outcome: unknown})
	}
	rec := record{Outcome: ok}
	if n == 0 {
		rec.Missed = []int{id}
	}
	return n, w.respond(op, rec)
}

// deleteOrInsert deletes a row or, if it was not there, inserts it.
func (w *worker) deleteOrInsert(ctx context.Context, id int) outcome {
	n, o := w.exec(ctx, "DELETE FROM item WHERE id = $1", id, "")
	if o != ok || n > 0 {
		return o
	}
	_, o = w.exec(ctx, "INSERT INTO item VALUES ($2, $2 % 3, $1)", id, w.value())
	return o
}

// swap writes a row by Query and tells what it replaced.
func (w *worker) swap(ctx context.Context, id int) outcome {
	const text = "WITH old AS (SELECT id, v FROM item WHERE id = $2 FOR UPDATE)" +
		" UPDATE item SET v = $1 FROM old WHERE item.id = old.id AND item.id = $2 RETURNING item.id, old.v"
	v := w.value()
	op := w.log.invoke(record{What: text, Set: values{id: v}})
	took, err := query{text, []any{v, id}, nil, pairs}.ask(ctx, w.cached)
	rec := record{Outcome: outcomeOf(err)}
	if len(took) > 0 {
		rec.Took = took
	} else {
		rec.Missed = []int{id}
	}
	return w.respond(op, rec)
}

// updateGroup writes several rows by one statement.
func (w *worker) updateGroup(ctx context.Context, g int) outcome {
	const text = "UPDATE item SET v = $1 WHERE grp = $2 RETURNING id, v"
	set, v := values{}, w.value()
	for _, id := range group(g) {
		set[id] = v
	}
	op := w.log.invoke(record{What: text, Set: set})
	wrote, err := query{text, []any{v, g}, nil, pairs}.ask(ctx, w.cached)
	rec := record{Outcome: outcomeOf(err)}
	for id := range set {
		if wrote[id] == "" {
			rec.Missed = append(rec.Missed, id)
		}
	}
	return w.respond(op, rec)
}

// transaction writes several rows, reads before and after, and commits or not.
func (w *worker) transaction(ctx context.Context, rng *rand.Rand) outcome {
	tx, err := w.cached.BeginTx(ctx, nil)
	if err != nil {
		return failed
	}
	defer tx.Rollback()
	if rng.IntN(2) == 0 {
		if o := w.read(ctx, tx, "in a transaction: ", pick(rng)); o != ok {
			return o
		}
	}
	set, o := w.change(ctx, tx, rng)
	if o != ok || len(set) == 0 || rng.IntN(10) == 0 {
		return o // and so roll back
	}
	op := w.log.invoke(record{What: "COMMIT", Set: set})
	return w.respond(op, record{Outcome: outcomeOf(tx.Commit())})
}

// change writes some rows in a transaction and returns which.
func (w *worker) change(ctx context.Context, tx asker, rng *rand.Rand) (values, outcome) {
	set := values{}
	ids := []int{someRow(rng), someRow(rng), someRow(rng)}[:1+rng.IntN(3)]
	slices.Sort(ids) // so that there is seldom a deadlock
	for _, id := range slices.Compact(ids) {
		v := w.value()
		result, err := tx.ExecContext(ctx, "UPDATE item SET v = $1 WHERE id = $2", v, id)
		if err != nil {
			return nil, failed
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			continue
		}
		set[id] = v
		mine, err := query{"SELECT id, v FROM item WHERE id = $1", []any{id}, []int{id}, pairs}.ask(ctx, tx)
		if err != nil {
			return nil, failed
		}
		if mine[id] != v {
			w.bad("a transaction that had set row %d to %q read %q", id, v, mine[id])
		}
	}
	return set, ok
}

// prepare leaves a transaction to be ended by whoever finds it.
func (w *worker) prepare(ctx context.Context, rng *rand.Rand) outcome {
	conn, err := w.cached.Conn(ctx)
	if err != nil {
		return failed
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return failed
	}
	defer conn.ExecContext(ctx, "ROLLBACK") // a warning if it is prepared
	set, o := w.change(ctx, conn, rng)
	if o != ok || len(set) == 0 {
		return o
	}
	gid := w.value()
	op := w.log.invoke(record{What: "PREPARE TRANSACTION", Set: set, GID: gid})
	_, err = conn.ExecContext(ctx, fmt.Sprintf("PREPARE TRANSACTION '%s'", gid))
	return w.respond(op, record{Outcome: outcomeOf(err)})
}

// finish ends a transaction that was prepared a while ago, here or elsewhere.
func (w *worker) finish(ctx context.Context) outcome {
	var gid string
	err := w.plain.QueryRowContext(ctx, "SELECT gid FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - interval '200 ms'"+
		" ORDER BY prepared LIMIT 1").Scan(&gid)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ok
	case err != nil:
		return failed
	}
	verb := "COMMIT"
	if strings.HasSuffix(gid, "0") {
		verb = "ROLLBACK"
	}
	op := w.log.invoke(record{What: verb + " PREPARED", GID: gid, Ends: true})
	_, err = w.cached.ExecContext(ctx, fmt.Sprintf("%s PREPARED '%s'", verb, gid))
	return w.respond(op, record{Outcome: outcomeOf(err)})
}

// shapeName is the query for the name of the second column of shape.
const shapeName = "SELECT attname::text FROM pg_attribute WHERE attrelid = 'shape'::regclass AND attnum = 2"

// reshape gives a column a new name, which is a value of its own.
func (w *worker) reshape(ctx context.Context) outcome {
	tx, err := w.cached.BeginTx(ctx, nil)
	if err != nil {
		return failed
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "LOCK TABLE shape IN ACCESS EXCLUSIVE MODE"); err != nil {
		return failed
	}
	var old string
	if err := tx.QueryRowContext(ctx, shapeName).Scan(&old); err != nil {
		return failed
	}
	v := w.value()
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`ALTER TABLE shape RENAME COLUMN "%s" TO "%s"`, old, v)); err != nil {
		return failed
	}
	op := w.log.invoke(record{What: "ALTER TABLE shape RENAME COLUMN; COMMIT", Set: values{shape: v}})
	return w.respond(op, record{Outcome: outcomeOf(tx.Commit()), Took: values{shape: old}})
}
