package core

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// The outbox is a table in the database itself, so that a row in it is as durable
// as what it tells of. Relay reads it. There are two kinds of rows.
//
// An event stands in the transaction of the writer that it tells of (or beside it,
// with its id, where that cannot be), and is there if and only if that committed:
//
//	writer                            relay
//	BEGIN; UPDATE …
//	INSERT event; COMMIT
//	(dies, or cannot reach anybody)
//	                                  SELECT … FOR UPDATE SKIP LOCKED
//	                                  deliver; DELETE; COMMIT
//
// A row that a relay sees was committed before the relay's snapshot, and the
// writer's transaction with it: they are one. Snapshots do not go back, so whoever
// asks PostgreSQL from now on sees the change, and new stamps are enough.
//
// A request is for a strict writer that alone cannot reach the shared store. It
// has to mark before COMMIT, so the request is committed beside its transaction,
// which is still open, and a relay marks in its place, by the writer's own id:
//
//	writer                            relay                       reader
//	BEGIN; UPDATE …
//	INSERT request, beside
//	                                  Mark(writer, tags)
//	                                  UPDATE request: marked
//	                                                              bypass: dirty
//	sees marked; COMMIT
//	                                  the transaction is over:
//	                                  resolve; DELETE request
//	                                                              miss, fill
//
// The relay says "marked" only if its Mark said what the writer would have needed
// to hear: the catalog stamp that the writer planned with stands, and there is
// nothing to wait for. Stamps are random, so this also proves that the relay has
// the writer's store, in the writer's epoch. Otherwise, or when nobody answers in
// time, the writer goes the way of notice.go.
//
// Who dies where:
//
//   - the writer before its COMMIT: its transaction is aborted, which ends the
//     request like a commit does;
//   - the relay after Mark and before "marked": the writer goes the way of
//     notice.go, and the marks are resolved by another relay or by any process that
//     meets them, because they carry the transaction's id (I4, I11);
//   - the relay after it has delivered: the row is still there, and is delivered
//     again.
const outboxTable = `CREATE TABLE IF NOT EXISTS cachedpg.outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tags    pg_catalog.bytea NOT NULL,      -- 17 bytes each
    local   boolean NOT NULL DEFAULT false, -- the writer's own store may not have been told
    alone   boolean NOT NULL DEFAULT false, -- of a statement that runs outside of transactions
    xid     pg_catalog.xid8,                -- of what stands outside of it: the writer's transaction
    writer  pg_catalog.bytea,               -- of a request: the id to mark with
    catalog bigint,                         -- of a request: the stamp that the writer planned with
    marked  boolean,                        -- of a request: the answer
    problem pg_catalog.text                 -- why it was set aside
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX IF NOT EXISTS outbox_requests ON cachedpg.outbox (id) WHERE writer IS NOT NULL`

const (
	outboxChannel = "cachedpg_outbox"

	// A commit waits so long for a relay. It answers in milliseconds or not at all.
	relayPatience = 500 * time.Millisecond
	// After no answer the others do not wait for one.
	relayRest = 5 * time.Second
)

// readOnly is an SQL expression that is readOnlyAnswer in a transaction that takes
// no more writes.
const (
	readOnly       = "CASE WHEN pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on' THEN '" + readOnlyAnswer + "' ELSE '' END"
	readOnlyAnswer = " read-only"
)

// mayPost is an SQL expression: the session may write to the outbox.
// has_table_privilege by name would be an error without the schema.
const mayPost = "EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace" +
	" WHERE nspname OPERATOR(pg_catalog.=) 'cachedpg' AND relname OPERATOR(pg_catalog.=) 'outbox'" +
	" AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'INSERT'))::pg_catalog.text"

// OutboxStats is cachedpg.OutboxStats.
type OutboxStats struct {
	Posted    uint64
	Asked     uint64
	Marked    uint64
	Delivered uint64
	SetAside  uint64
	Waiting   int
	Lag       time.Duration
	Problem   string
}

// outboxState is what a connector knows of the outbox.
type outboxState struct {
	posted, asked, marked, delivered, setAside atomic.Uint64
	silent                                     atomic.Int64 // until then, in Unix nanoseconds, no relay is asked

	mu      sync.Mutex // guards the fields below
	waiting int
	lag     time.Duration
	problem string // "" when it has gone well since
	aside   string // the last row that was set aside
}

func (o *outboxState) stats() OutboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return OutboxStats{Posted: o.posted.Load(), Asked: o.asked.Load(), Marked: o.marked.Load(), Delivered: o.delivered.Load(),
		SetAside: o.setAside.Load(), Waiting: o.waiting, Lag: o.lag, Problem: cmp.Or(o.problem, o.aside)}
}

func (o *outboxState) note(problem string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.problem = problem
}

// encodeTags is an SQL expression of type bytea.
func encodeTags(tags []store.Tag) string {
	b := make([]byte, 0, len(tags)*store.TagBytes)
	for _, t := range tags {
		b = store.AppendTag(b, t)
	}
	return "pg_catalog.decode('" + hex.EncodeToString(b) + "', 'hex')"
}

// outboxEvent is what became of the event of a write, see post.
type outboxEvent struct {
	sent     bool // together with the statement
	readOnly bool // the transaction takes no more writes
}

// posts reports that the effect's commit writes an event. A writer that marks
// nothing beforehand has nothing but its memory to invalidate by afterwards: with
// "auto" it writes one while the store is known to be out of reach.
func (e *effect) posts() bool {
	if e.space == nil || e.space.Keeper == nil {
		return false
	}
	switch e.c.d.Config.Outbox {
	case config.OutboxAlways:
		return true
	case config.OutboxAuto:
		return e.marking() == markedAfterwards && e.space.Keeper.Store.SharedStats().Down
	}
	return false
}

// eventOf is the statement that writes an event into the transaction that is open.
// If that has written nothing else there is nothing to tell of.
func (e *effect) eventOf(tags []store.Tag) string {
	return fmt.Sprintf("INSERT INTO cachedpg.outbox (tags, local) SELECT %s, %t WHERE pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL",
		encodeTags(tags), e.marking() == markedAfterwards)
}

// eventWith is the command that writes the event in the round trip of the statement of
// q, or nothing where that will not do: the tags may not be known yet.
func (e *effect) eventWith(q *call) []string {
	if !isPlain(q) || e.also.asks || e.c.d.Config.Outbox != config.OutboxAlways || !e.posts() || len(e.tags) == 0 {
		return nil
	}
	e.event.sent = true
	return []string{e.eventOf(e.tags)}
}

// isPlain reports that a statement is of a kind that a read-only transaction refuses.
func isPlain(q *call) bool {
	switch plan := q.text.Plan; {
	case len(plan.Kinds) != 1:
		return false
	default:
		return slices.Contains([]parser.Kind{parser.Insert, parser.Update, parser.Delete, parser.Merge, parser.Truncate}, plan.Kinds[0])
	}
}

// post writes the event of a commit that is about to be sent. It comes after the
// marks, which tell whether the tags are complete.
func (e *effect) post(ctx context.Context) error {
	if e.write == nil || !e.posts() || e.c.inner.TxStatus() == 'E' {
		return nil
	}
	tags := e.tags
	if e.schema {
		tags = append(slices.Clip(tags), space.Everything...)
	}
	if e.kind == writeAlone {
		return e.postAlone(ctx, tags)
	}
	if err := e.transaction(ctx); err != nil || !e.hasWritten() {
		return err
	}
	if e.event.sent && !e.schema {
		e.c.d.outbox.posted.Add(1)
		return nil
	}
	c := e.c
	if e.kind == writeWrapped || e.also.asks || e.nameless { // else it was asked for together with the id
		answer, err := backend.AskIn(ctx, c.inner, "SELECT "+readOnly)
		if err != nil {
			return err
		}
		e.event.readOnly = answer == readOnlyAnswer
	}
	if e.event.readOnly && e.nameless {
		return e.postApart(ctx, tags, "NULL")
	}
	if e.event.readOnly {
		return e.postApart(ctx, tags, "'"+e.xid+"'")
	}
	if c.d.Config.Outbox == config.OutboxAuto {
		// Without the table there is no such way, and asking costs the
		// transaction nothing: an error would.
		if may, err := backend.AskIn(ctx, c.inner, "SELECT "+mayPost); err != nil || may != "true" {
			return err
		}
	}
	if _, err := c.inner.ExecContext(ctx, e.eventOf(tags), nil); err != nil {
		return outboxError(err)
	}
	c.d.outbox.posted.Add(1)
	return nil
}

// postAlone writes the event of a statement that runs outside of transactions.
// It stands there before the statement runs, and after the lock that says that
// one does (alone.go): a relay leaves it until a moment when nobody holds that.
//
//	writer                            relay
//	lock
//	INSERT event, beside
//	                                  locked: not yet
//	statement, which commits
//	unlock, or the backend ends
//	                                  not locked: deliver
func (e *effect) postAlone(ctx context.Context, tags []store.Tag) error {
	if e.marking() == markedAfterwards {
		if err := e.announce(ctx); err != nil {
			return err
		}
	}
	return e.postApart(ctx, tags, "NULL")
}

// postApart writes an event outside of the transaction that it tells of: a
// read-only one, which may have written before it was made so, or none.
func (e *effect) postApart(ctx context.Context, tags []store.Tag, xid string) error {
	_, err := e.space.Keeper.Guard.Write(ctx, fmt.Sprintf("INSERT INTO cachedpg.outbox (tags, local, alone, xid) VALUES (%s, %t, %t, %s) RETURNING ''",
		encodeTags(tags), e.marking() == markedAfterwards, e.kind == writeAlone || e.nameless, xid))
	switch {
	case err == nil:
		e.c.d.outbox.posted.Add(1)
		return nil
	case e.c.d.Config.Outbox == config.OutboxAuto:
		e.c.d.outbox.note(outboxError(err).Error())
		return nil
	}
	return outboxError(err)
}

// outboxError says what to do where the outbox cannot be written to.
func outboxError(err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case pgerr.UndefinedTable, pgerr.UndefinedSchema:
		return fmt.Errorf("cachedpg: cache_outbox: the table cachedpg.outbox is not there; run: cachedpg setup --dsn …: %w", err)
	case pgerr.InsufficientPrivilege:
		return fmt.Errorf("cachedpg: cache_outbox: the role may not use cachedpg.outbox; run: cachedpg setup --role ROLE --dsn …: %w", err)
	}
	return fmt.Errorf("cachedpg: cache_outbox: %w", err)
}

// explainOutbox replaces the error of a statement which went together with its
// event, if it was the event that failed. The statement may have failed in the
// same way by itself.
func (e *effect) explainOutbox(ctx context.Context, cause error) error {
	if !e.event.sent || !pgerr.Is(cause, pgerr.UndefinedTable, pgerr.UndefinedSchema, pgerr.InsufficientPrivilege) {
		return cause
	}
	if may, err := e.c.inner.Ask(ctx, "SELECT "+mayPost); err != nil || may == "true" {
		return cause
	}
	return outboxError(cause)
}

// markByRelay has a relay mark what the store could not be told of. It reports
// that this was done, as well as if the writer had done it.
func (e *effect) markByRelay(ctx context.Context, w store.WriterID, tags []store.Tag, planned store.Stamp) bool {
	d := e.c.d
	xid, ok := w.Transaction()
	if d.Config.Outbox == config.OutboxOff || !ok || planned == 0 || time.Now().UnixNano() < d.outbox.silent.Load() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, relayPatience)
	defer cancel()
	problem := e.request(ctx, w, xid, tags, planned)
	if problem == nil {
		d.outbox.marked.Add(1)
		d.outbox.note("")
		return true
	}
	if !errors.Is(problem, errRefused) { // which is about this commit alone
		d.outbox.silent.Store(time.Now().Add(relayRest).UnixNano())
	}
	d.outbox.note(problem.Error())
	return false
}

var (
	errRefused = errors.New("cachedpg: cache_outbox: the catalog or the store has changed since the statement was planned")
	errNoRelay = errors.New("cachedpg: cache_outbox: no relay is there that can reach the store; run: cachedpg relay --dsn …")
	errSilent  = errors.New("cachedpg: cache_outbox: no relay answered in time")
)

// request writes a request, unless no relay is there, and waits for the answer.
func (e *effect) request(ctx context.Context, w store.WriterID, xid uint64, tags []store.Tag, planned store.Stamp) error {
	g := &e.space.Keeper.Guard
	id, err := g.Write(ctx, fmt.Sprintf("WITH request AS (INSERT INTO cachedpg.outbox (tags, xid, writer, catalog)"+
		" SELECT %s, '%d', pg_catalog.decode('%x', 'hex'), %d WHERE %s RETURNING id::pg_catalog.text OPERATOR(pg_catalog.||) pg_catalog.pg_notify('%s', '')::pg_catalog.text AS id)"+
		" SELECT coalesce((SELECT id FROM request), '')", encodeTags(tags), xid, w[:], int64(planned), guard.Held(guard.LockRelay), outboxChannel))
	switch {
	case err != nil:
		return outboxError(err)
	case id == "":
		return errNoRelay
	}
	e.c.d.outbox.asked.Add(1)
	step.At(step.Asked)
	if _, err := strconv.ParseInt(id, 10, 64); err != nil {
		return fmt.Errorf("cachedpg: cache_outbox: PostgreSQL gives %q as a row's id", id)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		answer, err := g.Text(ctx, "SELECT coalesce((SELECT marked::pg_catalog.text FROM cachedpg.outbox WHERE id OPERATOR(pg_catalog.=) "+id+"), '')")
		switch {
		case answer == "true":
			return nil
		case answer == "false":
			return errRefused
		case err != nil && ctx.Err() == nil:
			return outboxError(err)
		}
		if pause.For(ctx, wait) != nil {
			return errSilent
		}
	}
}
