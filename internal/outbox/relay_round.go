package outbox

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// over is an SQL expression: the writer of a request is over, and what it did can
// be seen. The snapshot that finds the row is asked, and snapshots do not go back.
// A prepared transaction, and one that waits for a replica, is not over for it.
const over = "pg_catalog.pg_visible_in_snapshot(xid, pg_catalog.pg_current_snapshot())"

// entry is a row as a relay gets it.
type entry struct {
	id      int64
	created time.Time
	tags    []store.Tag
	local   bool
	request bool
	writer  store.WriterID
	catalog store.Stamp
	problem string
}

// read takes rows, which are the caller's until its transaction ends.
func (r *relay) read(ctx context.Context, tx pgx.Tx, condition string) ([]entry, error) {
	rows, err := tx.Query(ctx, "SELECT id, created, tags, local, writer, coalesce(catalog, 0) FROM cachedpg.outbox WHERE problem IS NULL AND "+
		condition+" ORDER BY id LIMIT "+strconv.Itoa(r.Batch)+" FOR UPDATE SKIP LOCKED")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(from pgx.CollectableRow) (row entry, err error) {
		var tags, writer []byte
		var catalog int64
		err = from.Scan(&row.id, &row.created, &tags, &row.local, &writer, &catalog)
		row.catalog, row.request = store.Stamp(catalog), writer != nil
		if row.tags, row.problem = parseTags(tags); row.problem != "" {
			row.tags = r.place.Everything // it was meant to invalidate something
		}
		if row.request && len(writer) != len(row.writer) {
			row.problem = fmt.Sprintf("a writer of %d bytes", len(writer))
		}
		copy(row.writer[:], writer)
		return row, err
	})
}

// mark answers requests.
func (r *relay) mark(ctx context.Context) error {
	return pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		rows, err := r.read(ctx, tx, "writer IS NOT NULL AND marked IS NULL AND NOT "+over)
		if err != nil || len(rows) == 0 {
			return err
		}
		answers := map[bool][]int64{}
		for _, row := range rows {
			if row.problem != "" {
				continue // set aside once its writer is over
			}
			marked, err := r.place.Store.Mark(ctx, row.writer, row.tags, row.catalog)
			switch {
			case err != nil && ctx.Err() != nil:
				return ctx.Err()
			case err != nil: // the writer gives up, or another relay answers it
				r.outbox.note(err.Error())
			case marked.Wait > 0: // it is asked again
			default:
				answers[!marked.Schema] = append(answers[!marked.Schema], row.id)
			}
		}
		for answer, ids := range answers {
			if _, err := tx.Exec(ctx, "UPDATE cachedpg.outbox SET marked = $1 WHERE id OPERATOR(pg_catalog.=) ANY ($2)", answer, ids); err != nil {
				return err
			}
		}
		return nil
	})
}

// deliver delivers rows and deletes them. Without the store it takes only those
// that the store has no part in.
func (r *relay) deliver(ctx context.Context, reachable bool) (n int, err error) {
	condition := "(xid IS NULL OR " + over + ") AND (NOT alone OR NOT " + guard.Held(guard.LockAlone) + ")"
	if !reachable {
		condition += " AND writer IS NULL AND NOT local"
	}
	err = pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		rows, err := r.read(ctx, tx, condition)
		if n = len(rows); err != nil || n == 0 {
			return err
		}
		if err := backend.Patient(ctx, r.in); err != nil {
			return err
		}
		// What a crash of PostgreSQL undoes must not have been told: a cache would be
		// filled from it (I21).
		if ok, err := new(backend.FlushPoint).Forced(ctx, r.place.Log, r.place.Guard.Text); err != nil || !ok {
			n = 0 // later
			return err
		}
		if err := r.tellStore(ctx, rows); err != nil {
			return err
		}
		if err := r.tellSink(ctx, rows); err != nil {
			return err
		}
		step.At(step.Delivered)
		return r.settle(ctx, tx, rows)
	})
	return n, err
}

// tellStore tells the writers' own store what they may not have told it.
func (r *relay) tellStore(ctx context.Context, rows []entry) error {
	var tags []store.Tag
	var writers []store.WriterID
	for _, row := range rows {
		if row.request && row.writer != (store.WriterID{}) {
			writers = append(writers, row.writer)
		}
		if row.request || row.local || row.problem != "" {
			tags = append(tags, row.tags...)
		}
	}
	s := r.place.Store
	if err := s.Resolve(ctx, writers); err != nil {
		return fmt.Errorf("cachedpg: relay: resolving: %w", err)
	}
	if len(tags) == 0 {
		return nil
	}
	if err := s.Release(ctx, store.NewWriter(), tags); err != nil {
		return fmt.Errorf("cachedpg: relay: invalidating: %w", err)
	}
	return nil
}

// tellSink hands the events to the sink. A request is none: a writer to whose
// database events matter has written one as well.
func (r *relay) tellSink(ctx context.Context, rows []entry) error {
	if r.Sink == nil {
		return nil
	}
	var events []invalidation.Event
	for _, row := range rows {
		if !row.request {
			events = append(events, invalidation.Event{Source: r.place.ID.String(), ID: "outbox/" + strconv.FormatInt(row.id, 10),
				Time: row.created, Tags: row.tags})
		}
	}
	if len(events) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sinkTimeout)
	defer cancel()
	if err := r.Sink.Send(ctx, events); err != nil {
		return fmt.Errorf("cachedpg: relay: the sink: %w", err)
	}
	return nil
}

// settle deletes what was delivered. Rows that nobody could read stay for a person
// to look at.
func (r *relay) settle(ctx context.Context, tx pgx.Tx, rows []entry) error {
	var done []int64
	var aside []entry
	for _, row := range rows {
		if row.problem == "" {
			done = append(done, row.id)
			continue
		}
		aside = append(aside, row)
		if _, err := tx.Exec(ctx, "UPDATE cachedpg.outbox SET problem = $2 WHERE id OPERATOR(pg_catalog.=) $1", row.id, row.problem); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, "DELETE FROM cachedpg.outbox WHERE id OPERATOR(pg_catalog.=) ANY ($1)", done); err != nil {
		return err
	}
	r.outbox.delivered.Add(uint64(len(rows)))
	for _, row := range aside {
		r.outbox.setAside.Add(1)
		problem := fmt.Errorf("cachedpg: relay: row %d of cachedpg.outbox is set aside, and everything was invalidated: %s", row.id, row.problem)
		r.outbox.mu.Lock()
		r.outbox.aside = problem.Error()
		r.outbox.mu.Unlock()
		if r.Problem != nil {
			r.Problem(problem)
		}
	}
	return nil
}
