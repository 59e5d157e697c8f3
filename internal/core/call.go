package core

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
)

// call is one Query or Exec on its way.
type call struct {
	// What is asked for, and by whom.
	sql     string
	args    []backend.Arg     // with pgx's leading options
	values  []backend.Arg     // args without the options
	mode    pgx.QueryExecMode // 0 until plan, if the caller does not give it
	formats bool              // a QueryResultFormats option: the caller wants other bytes
	prepare *Stmt             // to be prepared before PostgreSQL is asked; nil for a plain text
	ours    bool              // the driver sends it, and not a caller with the pgx connection
	refills bool              // a writer runs it, see refill.go

	meaning
	progress
}

// meaning is what a text means to the session that will run it. Conn.plan finds it, and again where the
// session or the catalog turns out to be another one.
type meaning struct {
	space   *space.Space
	session *planning.Session
	view    *space.View
	text    *planning.Text
	loose   bool // of names it is not sure whether temporary objects have them
	single  bool // PostgreSQL has prepared it, so that it is one statement, see Conn.check
}

// progress is what has happened to a call so far.
type progress struct {
	returned  *returned     // what it is made to return, of a write; nil if that is nothing
	replanned bool          // the catalog was found out of date once
	refreshed bool          // the catalog was loaded again for a name
	byAge     bool          // only its age bounds a part of the result, see ttl.go
	rowsOnly  bool          // without rows the result must not be kept
	snapshot  time.Time     // when the transaction of a refill began; now() stands still in it
	asked     time.Duration // how long the lookup took, if that was measured
	stored    bool          // the result was
}

// sent is what PostgreSQL gets.
func (q *call) sent() backend.Query {
	return backend.Query{SQL: q.sql, Args: q.args, Values: q.values, Mode: q.mode}
}

func (q *call) keyingValues() keying.Values {
	return keying.Values{Args: q.values, Literals: q.text.Literals, Encoded: q.session.Encoded}
}
