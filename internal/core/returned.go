package core

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// Which entries a write makes stale, its text often tells only in part: UPDATE orders SET status = $1 WHERE id = $2
// says nothing of the customer whose list of orders it changes. PostgreSQL knows, so the statement is made to
// return that (keying.Plan.Returning), unseen by the caller, who gets neither the columns nor rows that he did not ask for:
//
//	UPDATE …                        UPDATE … RETURNING orders.customer_id
//	                                7
//	stale: every list of orders     stale: the list of customer 7
//
// Where the tags are marked after the statement, which is in the caller's transaction and in one of the driver's
// own, the rows are known in time. A statement that commits in its one round trip is marked before it with all that it may
// change; once it is answered the tags of the rows are marked as well, and of the others the marks are
// taken away before any reader gets to know a new stamp (effect.narrow).
//
// A statement that is made to return something may fail where it would not have by itself: a column that another session has
// just renamed, a right to read it that was taken away. Then nothing has been done, and it is sent as the caller wrote it. In
// his transaction it is read within a savepoint for that (D94).

// maxReturned is how many rows are named one by one. Of more the plan's own tags are marked.
const maxReturned = 1000

// returned is what a statement is made to return, and has returned.
type returned struct {
	plan   *keying.Plan
	what   *keying.Returning
	values keying.Values
	sql    string // what PostgreSQL gets
	stats  *planning.Statement

	columns []store.Column // of what, once there is a row
	rows    int64
	tags    store.TagSet
	unknown bool // what a row was is not known, or not kept
}

// returns decides whether q is made to return something. It may ask whether that is allowed.
func (c *Conn) returns(ctx context.Context, q *call) {
	q.returned = nil
	r := q.text.Plan.Returning()
	if r == nil || !q.ours || q.formats || q.session.Unchecked || q.space == nil || q.view == space.NoCatalog || q.session == unknownSession || c.misread {
		return
	}
	switch {
	case (c.tx == nil) != (c.inner.TxStatus() == 'I'), c.d.statementPool.Load(), q.space.View.Load() != q.view:
	case q.text.Plan.Asks, q.text.Plan.Opaque, q.text.Plan.Catalog, q.text.MayCommit():
	case !q.text.Stats.Changed.Few(r.Few || r.Own):
	case q.space.Doors().Closed([]store.Tag{{Relation: r.Relation, Kind: store.TagTable}}): // nothing of it is cached
	default:
		sql := q.text.Returning(q.sql)
		if sql == "" || c.tx != nil && !q.guardable(c) || !c.maySelect(ctx, q.view, r) || !q.prepare.also(ctx, sql) {
			return
		}
		c.returning.sends(q)
		q.returned = &returned{plan: q.text.Plan, what: r, values: q.keyingValues(), sql: sql, stats: q.text.Stats}
	}
}

// sentReturning is what PostgreSQL gets.
func (q *call) sentReturning() backend.Query {
	sent := q.sent()
	if q.returned != nil {
		sent.SQL = q.returned.sql
	}
	return sent
}

// take takes in a row.
func (r *returned) take(fields []pgconn.FieldDescription, values [][]byte) {
	n := r.what.Width
	if r.rows++; r.unknown || r.rows > maxReturned || len(fields) < n || len(values) != len(fields) {
		r.unknown, r.tags = true, store.TagSet{}
		return
	}
	if r.columns == nil {
		for i, f := range fields[len(fields)-n:] {
			if i < r.what.Plain && f.TableOID != r.what.Relation { // of another one by the same name
				r.unknown = true
				return
			}
			r.columns = append(r.columns, store.Column{Name: f.Name, TableOID: f.TableOID, TableColumn: f.TableAttributeNumber,
				Type: f.DataTypeOID, TypeSize: f.DataTypeSize, TypeModifier: f.TypeModifier, Format: f.Format})
		}
	}
	r.plan.RowTags(&r.tags, r.values, r.columns, values[len(values)-n:])
}

// precise gives the tags of what was changed; ok is false if they are not known.
func (r *returned) precise() (tags store.TagSet, ok bool) {
	if !r.unknown {
		tags.Add(r.plan.TextTags(nil, r.values)...)
		tags.Add(r.tags.Tags()...)
	}
	return tags, !r.unknown
}

// guardable reports that in the caller's transaction q can be read within a savepoint.
func (q *call) guardable(c *Conn) bool {
	in, ok := c.inner.(*backend.Pgx)
	return ok && in.Carries() && (q.prepare != nil || q.mode != pgx.QueryExecModeSimpleProtocol && !(len(q.values) == 0 && strings.Contains(q.sql, "$")))
}

// guarded runs f, which sends q with what it is made to return, and reports that it should be sent as it was written.
func (c *Conn) guarded(ctx context.Context, q *call, f func() error) (again bool, err error) {
	if c.tx == nil {
		err = f()
		return c.refuses(q, err), err
	}
	in := c.inner.(*backend.Pgx)
	if c.inner.TxStatus() == 'T' {
		in.Guard()
	}
	err = f()
	if !in.Unguard() || !isRefusal(err) || in.UndoAside(ctx) != nil {
		return false, err
	}
	c.mayNotReturn(q)
	return true, err
}

// refuses reports that err may be of what q was made to return, outside of the caller's transaction. PostgreSQL
// has done nothing then.
func (c *Conn) refuses(q *call, err error) bool {
	if q.returned == nil || c.tx != nil || c.inner.Closed() || !isRefusal(err) {
		return false
	}
	c.mayNotReturn(q)
	return true
}

func isRefusal(err error) bool {
	return pgerr.Is(err, pgerr.UndefinedColumn, pgerr.UndefinedTable, pgerr.InsufficientPrivilege, pgerr.NotSupported, pgerr.AmbiguousColumn)
}

// notSent reports that err is pgx' own, of arguments that it does not take. It has other words for them where there are
// rows.
func (c *Conn) notSent(q *call, err error) bool {
	return err != nil && !errors.As(err, new(*pgconn.PgError)) && !c.inner.Closed() && q.returned.rows == 0 && !errors.Is(err, backend.ErrBadConn)
}

// run executes q, which has been begun.
func (c *Conn) run(ctx context.Context, q *call) (backend.Result, error) {
	if q.returned == nil {
		return c.inner.ExecContext(ctx, q.sql, q.args)
	}
	var result backend.Result
	again, err := c.guarded(ctx, q, func() (err error) {
		result, err = c.inner.ExecReturning(ctx, q.execution(), q.returned.take)
		return err
	})
	if again || c.notSent(q, err) {
		q.returned.unknown = true
		return c.inner.ExecContext(ctx, q.sql, q.args)
	}
	return result, err
}

// execution is sentReturning of a statement whose caller gets no rows: pgx does not prepare it if it has no values.
func (q *call) execution() backend.Query {
	sent := q.sentReturning()
	sent.Plain = len(q.values) == 0 && q.prepare == nil
	return sent
}

// taker is the function for the rows of q, nil if it is not made to return any.
func (q *call) taker() backend.RowFunc {
	if q.returned == nil {
		return nil
	}
	return q.returned.take
}

// apart gives the rows of q as the caller is to see them: without the columns that he has not asked for, and none if he
// has asked for nothing. Those that are not read when they are closed are read then.
func (q *call) apart(wire backend.Rows) backend.Rows {
	if q.returned == nil {
		return wire
	}
	return &apart{Rows: wire, to: q.returned}
}

type apart struct {
	backend.Rows
	to     *returned
	fields []pgconn.FieldDescription // with ours
}

func (r *apart) all() []pgconn.FieldDescription {
	if r.fields == nil {
		r.fields = r.Rows.FieldDescriptions()
	}
	return r.fields
}

func (r *apart) FieldDescriptions() []pgconn.FieldDescription {
	all := r.all()
	return all[:max(len(all)-r.to.what.Width, 0)]
}

func (r *apart) RawValues() [][]byte {
	values := r.Rows.RawValues()
	return values[:max(len(values)-r.to.what.Width, 0)]
}

func (r *apart) Next() bool {
	for r.Rows.Next() {
		if r.to.take(r.all(), r.Rows.RawValues()); r.to.what.Own {
			return true
		}
	}
	return false
}

func (r *apart) Close() {
	for r.Next() {
		continue
	}
	r.Rows.Close()
}
