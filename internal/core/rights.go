package core

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
)

// rights remembers which columns a role may read of what it writes. PostgreSQL wants that right of a statement
// that returns them. It is safe for concurrent use.
type rights struct {
	mu    sync.Mutex            // guards the fields below
	view  *space.View           // the catalog that the answers are of
	known map[right]rightAnswer // at most maxRights
}

type right struct {
	role     string
	relation uint32
	list     string // keying.Returning.List
}

type rightAnswer struct {
	allowed bool
	until   time.Time
}

const (
	maxRights = 1024
	rightsFor = backend.RefusedFor // it may be granted to a role, or taken away, by way of another one
)

func (r *rights) get(v *space.View, what right) (allowed, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, known := r.known[what]
	if r.view != v || !known || time.Now().After(answer.until) {
		return false, false
	}
	return answer.allowed, true
}

func (r *rights) set(v *space.View, what right, allowed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view != v || r.known == nil {
		r.view, r.known = v, make(map[right]rightAnswer)
	}
	if len(r.known) >= maxRights {
		planning.DropOne(r.known)
	}
	r.known[what] = rightAnswer{allowed, time.Now().Add(rightsFor)}
}

// maySelect reports that the role may read the columns of r. PostgreSQL is asked if it is not known, unless
// nothing may be asked.
func (c *Conn) maySelect(ctx context.Context, v *space.View, r *keying.Returning) bool {
	what := right{c.role(), r.Relation, r.List}
	if what.role == "" {
		return false
	}
	allowed, known := c.d.rights.get(v, what)
	if known || c.mustNotAsk() || c.inner.TxStatus() == 'E' {
		return allowed
	}
	question := make([]string, len(r.Columns))
	for i, column := range r.Columns {
		question[i] = "pg_catalog.has_column_privilege(" + backend.OID(r.Relation) + ", " + backend.Literal(column) + ", 'SELECT')"
	}
	answer, err := backend.AskIn(ctx, c.inner, "SELECT coalesce("+strings.Join(question, " AND ")+", false)::pg_catalog.text")
	if err == nil || errors.As(err, new(*pgconn.PgError)) {
		allowed = err == nil && backend.IsTrue(answer)
		c.d.rights.set(v, what, allowed)
	}
	return allowed
}

// learnsOf takes in how many rows q has changed, and asks what could not be asked before it, for when it is executed again.
func (c *Conn) learnsOf(ctx context.Context, q *call, result backend.Result, err error) {
	r := q.text.Plan.Returning()
	if r == nil || err != nil || q.returned != nil || !q.ours {
		return
	}
	if n, err := result.RowsAffected(); err == nil {
		q.text.Stats.Changed.Note(n)
	}
	if c.tx != nil && c.inner.TxStatus() == 'T' && q.session != unknownSession && q.view != space.NoCatalog {
		// The statement has succeeded, and the end of its context must not end the transaction for this.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backend.RollbackTimeout)
		defer cancel()
		c.maySelect(ctx, q.view, r)
	}
}

// mayNotReturn remembers that PostgreSQL may have refused what q was made to return.
func (c *Conn) mayNotReturn(q *call) {
	c.d.rights.set(q.view, right{c.role(), q.returned.what.Relation, q.returned.what.List}, false)
}
