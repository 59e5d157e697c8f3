package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Load reads the schema of conn's database, as any role that may connect. It
// supports PostgreSQL 14 and later.
//
// Load takes one round trip of the simple protocol, or two, which are one transaction,
// leaves nothing behind in the session, and bypasses conn's tracer; it works
// through a pooler in any mode. It reads no user data and takes no lock
// for longer than it runs. All facts are of one moment, except the definitions
// of views (see Relation.Sources), which are omitted when their tables are
// locked (see Snapshot.Incomplete).
//
// Outside a transaction Load is one: read-only, REPEATABLE READ. Inside one
// it sees, and the snapshot contains, what the transaction itself has changed
// and not committed; it counts as a query of that transaction, which fixes the
// isolation level and, above READ COMMITTED, the moment that it sees. A failed
// transaction is an error.
//
// Load reads what is committed when it begins. Whoever wants to notice changes
// must fix the point from which he watches before he calls Load. When ctx ends
// while Load runs, conn is closed, as pgx does with any query.
func Load(ctx context.Context, conn *pgx.Conn) (*Snapshot, error) {
	c, err := load(ctx, conn.PgConn())
	if err != nil {
		return nil, fmt.Errorf("cachedpg: load catalog: %w", err)
	}
	return NewSnapshot(c), nil
}

const (
	// The commands of one message are one transaction without BEGIN, which a pooler in
	// statement mode answers by closing the connection.
	alone    = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;\n"
	rollback = "ROLLBACK"

	// Rolling back to a savepoint undoes SET LOCAL, which releasing it would not.
	savepoint       = "SAVEPOINT cachedpg_catalog;\n"
	leaveSavepoint  = "ROLLBACK TO SAVEPOINT cachedpg_catalog; RELEASE SAVEPOINT cachedpg_catalog"
	statusIdle      = 'I'
	statusInFailure = 'E'

	abandonTimeout = 5 * time.Second
)

func load(ctx context.Context, conn *pgconn.PgConn) (Contents, error) {
	switch conn.TxStatus() {
	case statusIdle:
		return loadAlone(ctx, conn)
	case statusInFailure:
		return Contents{}, errors.New("the transaction has failed")
	}
	l := newLoader()
	if err := run(ctx, conn, savepoint+settings+everything, l.row); err != nil {
		return Contents{}, errors.Join(err, abandon(ctx, conn, leaveSavepoint))
	}
	err := run(ctx, conn, views+leaveSavepoint, l.row)
	switch {
	case err == nil:
	case isRefusal(ctx, conn, err):
		l.views, l.bodies, l.incomplete = nil, nil, true
		if err := abandon(ctx, conn, leaveSavepoint); err != nil {
			return Contents{}, err
		}
	default:
		return Contents{}, errors.Join(err, abandon(ctx, conn, leaveSavepoint))
	}
	return l.contents()
}

// loadAlone is load outside a transaction.
func loadAlone(ctx context.Context, conn *pgconn.PgConn) (Contents, error) {
	l := newLoader()
	enter := settle + unhurried(conn)
	enter += momentQuestion + memberQuestion(notRecent) + everything
	err := run(ctx, conn, enter+views, l.row)
	if len(l.units) > 0 && isRefusal(ctx, conn, err) {
		l = newLoader()
		l.incomplete = true
		err = run(ctx, conn, enter, l.row)
	}
	if err != nil {
		return Contents{}, errors.Join(err, abandon(ctx, conn, rollback))
	}
	return l.contents()
}

// isRefusal reports that PostgreSQL has answered and the connection can be used: of
// views that a table is locked, or that one is being dropped.
func isRefusal(ctx context.Context, conn *pgconn.PgConn, err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && ctx.Err() == nil && !conn.IsClosed()
}

// unhurried lifts the time that the session has for a transaction, if the server
// has such a limit. It would end the connection. In a transaction of the
// caller's the limit is his own.
func unhurried(conn *pgconn.PgConn) string {
	var major int
	if _, err := fmt.Sscanf(conn.ParameterStatus("server_version"), "%d", &major); err != nil || major < 17 {
		return ""
	}
	return "SET LOCAL transaction_timeout = 0;\n"
}

// run sends commands in one message and gives every row to each, which must
// not keep the bytes.
func run(ctx context.Context, conn *pgconn.PgConn, commands string, each func([][]byte)) error {
	results := conn.Exec(ctx, commands)
	for results.NextResult() {
		rows := results.ResultReader()
		for rows.NextRow() {
			each(rows.Values())
		}
	}
	return results.Close()
}

// abandon leaves the transaction after an error, even if ctx has ended: pgx may
// be configured to cancel a query without closing the connection.
func abandon(ctx context.Context, conn *pgconn.PgConn, undo string) error {
	if conn.IsClosed() || conn.TxStatus() == statusIdle {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	return conn.Exec(ctx, undo).Close()
}
