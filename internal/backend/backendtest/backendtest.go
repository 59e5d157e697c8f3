// Package backendtest is a connection to PostgreSQL that follows a script: for interleavings that a real
// PostgreSQL cannot be made to show on command. It answers what the test has written down, in that order, and
// anything else that it is asked fails the test. It waits where the test holds it.
package backendtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
)

// Database is a database whose sessions follow a script. It is safe for concurrent use, but for ID and Limit.
type Database struct {
	ID      backend.Identity
	Over    atomic.Bool // what who asks is told of lost sessions
	Catalog atomic.Pointer[catalog.Snapshot]
	Holdup  Hold          // of the next load of the catalog
	Limit   time.Duration // that the next sessions give a statement

	t   testing.TB
	pid atomic.Uint32

	mu       sync.Mutex // guards the fields below
	sessions []*Session
}

// New returns a database that no other has the identity of, without a catalog. The test is to call End.
func New(t testing.TB) *Database {
	return &Database{t: t, ID: backend.Identity{System: "scripted " + rand.Text(), Timeline: "1", Database: "1"}}
}

// End closes the sessions. What was in their scripts and did not come fails the test.
func (db *Database) End() {
	for _, in := range db.sessions {
		if err := in.Mock.ExpectationsWereMet(); err != nil {
			db.t.Errorf("session %d: %v", in.pid, err)
		}
		in.Mock.ExpectClose()
		in.Conn.Close()
	}
}

// Dial makes a session.
func (db *Database) Dial() *Session {
	db.t.Helper()
	dsn := rand.Text()
	opened, mock, err := sqlmock.NewWithDSN(dsn, sqlmock.QueryMatcherOption(sqlmock.QueryMatcherEqual))
	if err != nil {
		db.t.Fatal(err)
	}
	defer opened.Close()
	conn, err := opened.Driver().Open(dsn)
	if err != nil {
		db.t.Fatal(err)
	}
	in := &Session{Conn: conn, db: db, Mock: mock, pid: db.pid.Add(1), status: 'I', limit: db.Limit}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.sessions = append(db.sessions, in)
	return in
}

// Hold is a place where a session waits for the test. The zero value lets everybody pass.
type Hold struct {
	mu      sync.Mutex // guards the fields below
	arrived chan struct{}
	release chan struct{}
}

// Set makes the next one who passes wait.
func (h *Hold) Set() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrived, h.release = make(chan struct{}), make(chan struct{})
}

// Pass waits if the hold is set. It gives up with ctx.
func (h *Hold) Pass(ctx context.Context) error {
	h.mu.Lock()
	arrived, release := h.arrived, h.release
	h.arrived = nil
	h.mu.Unlock()
	if arrived == nil {
		return nil
	}
	close(arrived)
	select {
	case <-release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Let lets go who waits, or comes.
func (h *Hold) Let() { close(h.release) }

// Session is a connection to a Database. Its fields are for whoever has the connection in hand, but for the holds.
type Session struct {
	driver.Conn
	Mock sqlmock.Sqlmock // holds the script, and says what was not in it

	// Where the session waits: after a SELECT has taken its snapshot; after a
	// statement has executed; before a COMMIT, and after it became visible.
	Selected, Executed, Committing, Committed Hold
	LoseCommit                                bool // the next COMMIT has its effect, and the connection is gone
	Lost                                      bool // it is
	Panics                                    bool // Read does
	Reanalysed                                int  // DISCARD PLANS of the driver

	db     *Database
	pid    uint32
	status byte
	limit  time.Duration
}

var _ backend.Conn = (*Session)(nil)

func (in *Session) Read(ctx context.Context, q backend.Query) (backend.Rows, error) {
	rows, err := in.Conn.(driver.QueryerContext).QueryContext(ctx, q.SQL, q.Args)
	if err := in.Selected.Pass(ctx); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if in.Panics {
		panic("scripted")
	}
	return &scriptedWire{rows: rows}, nil
}

func (in *Session) Judge(ctx context.Context, sql string) error {
	stmt, err := in.PrepareContext(ctx, sql)
	if err != nil {
		return err
	}
	return stmt.Close()
}

func (in *Session) QueryContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := in.Conn.(driver.QueryerContext).QueryContext(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	return rows, in.Selected.Pass(ctx)
}

func (in *Session) ExecContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
	if sql == "DISCARD PLANS" {
		in.Reanalysed++
		return driver.ResultNoRows, nil // the driver's own
	}
	r, err := in.Conn.(driver.ExecerContext).ExecContext(ctx, sql, args)
	if err := in.Executed.Pass(ctx); err != nil {
		return nil, err
	}
	return r, err
}

func (in *Session) ExecInTx(context.Context, backend.Query, backend.RowFunc, []string) (driver.Result, string, error) {
	return nil, "", errors.New("not in the script: a transaction of the driver's own")
}

func (in *Session) ExecReturning(ctx context.Context, q backend.Query, row backend.RowFunc) (driver.Result, error) {
	rows, err := in.Read(ctx, q)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		row(rows.FieldDescriptions(), rows.RawValues())
		n++
	}
	if err := in.Executed.Pass(ctx); err != nil {
		return nil, err
	}
	return driver.RowsAffected(n), rows.Err()
}

func (in *Session) Commit(context.Context) error {
	return errors.New("not in the script: a COMMIT of the driver's own")
}

func (in *Session) PrepareContext(ctx context.Context, sql string) (driver.Stmt, error) {
	return in.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, sql)
}

func (in *Session) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	_, err := in.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err == nil {
		in.status = 'T'
	}
	return &scriptedTx{in}, err
}

type scriptedTx struct{ in *Session }

func (tx *scriptedTx) Commit() error {
	in := tx.in
	in.Committing.Pass(context.Background())
	err := in.Conn.(driver.Tx).Commit()
	in.Committed.Pass(context.Background())
	if in.LoseCommit {
		in.Lost = true
		return io.ErrUnexpectedEOF
	}
	in.status = 'I'
	return err
}

func (tx *scriptedTx) Rollback() error {
	tx.in.status = 'I'
	return tx.in.Conn.(driver.Tx).Rollback()
}

func (in *Session) Ping(context.Context) error { return nil }

func (in *Session) ResetSession(context.Context) error { return nil }

func (in *Session) Hooked() bool { return false }

func (in *Session) Reset(context.Context) (bool, error) { return false, nil }

func (in *Session) Close() error { return nil } // the script's end closes

func (in *Session) Closed() bool { return in.Lost }

func (in *Session) TxStatus() byte { return in.status }

func (in *Session) Mode() pgx.QueryExecMode { return pgx.QueryExecModeCacheStatement }

func (in *Session) TypeMap() *pgtype.Map { return pgtype.NewMap() }

func (in *Session) PID() uint32 { return in.pid }

func (in *Session) Learn(context.Context) (*backend.Session, uint32, error) {
	s := &backend.Session{ID: in.db.ID, Path: []string{"pg_catalog", "public"}, PathKey: "public", ReadCommitted: true, Reading: backend.Reading{StandardText: true}, Commits: backend.CommitSync, Limit: in.limit}
	for mode := range s.Digests {
		s.Digests[mode] = sha256.Sum256([]byte{byte(mode)})
	}
	return s, in.pid, nil
}

func (in *Session) LoadCatalog(ctx context.Context, _ *catalog.Snapshot) (*catalog.Snapshot, error) {
	snapshot := in.db.Catalog.Load()
	return snapshot, in.db.Holdup.Pass(ctx)
}

func (in *Session) Aside(ctx context.Context, question, lasting string) (answer, kept string, err error) {
	if question != "" {
		answer, err = in.Ask(ctx, question)
	}
	if lasting != "" && err == nil {
		kept, err = in.Ask(ctx, lasting)
	}
	return answer, kept, err
}

// Ask answers the driver's own questions.
func (in *Session) Ask(ctx context.Context, sql string) (string, error) {
	before, after, _ := strings.Cut(in.db.ID.Only("?"), "?")
	if question, ok := strings.CutPrefix(sql, before); ok {
		answer, err := in.Ask(ctx, strings.TrimSuffix(question, after))
		return "=" + answer, err
	}
	switch {
	case strings.HasPrefix(sql, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery()"): // see backend.Identity.Outcome
		_, question, _ := strings.Cut(sql, "pg_catalog.concat('=', ")
		answer, err := in.Ask(ctx, question)
		return "=" + answer, err
	case strings.Contains(sql, "virtualxid"), strings.Contains(sql, "pg_prepared_xacts"):
		return "", nil // nothing was under way when the cache began
	case strings.Contains(sql, "pg_current_wal_insert_lsn"):
		return "8 8 8192 16777216", nil
	case strings.Contains(sql, "pg_postmaster_start_time"):
		return "1|f|", nil // there are no other processes
	case strings.Contains(sql, "pg_backend_pid()::pg_catalog.text"):
		return fmt.Sprint(in.pid), nil
	case strings.Contains(sql, "pg_catalog.pg_advisory_lock_shared"):
		return "", nil
	case strings.Contains(sql, "pg_stat_activity WHERE pid"):
		return fmt.Sprint(in.db.Over.Load()), nil
	case strings.Contains(sql, "clock_timestamp"):
		return "2", nil
	case sql == "SHOW transaction_isolation":
		return "read committed", nil
	}
	return "", fmt.Errorf("not in the script: %s", sql)
}

// scriptedWire gives the mock's rows as text values.
type scriptedWire struct {
	rows   driver.Rows
	values []driver.Value
	err    error
}

func (w *scriptedWire) FieldDescriptions() []pgconn.FieldDescription {
	var fields []pgconn.FieldDescription
	for _, name := range w.rows.Columns() {
		fields = append(fields, pgconn.FieldDescription{Name: name, DataTypeOID: pgtype.TextOID})
	}
	return fields
}

func (w *scriptedWire) Next() bool {
	w.values = make([]driver.Value, len(w.rows.Columns()))
	err := w.rows.Next(w.values)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return err == nil
}

func (w *scriptedWire) RawValues() [][]byte {
	raw := make([][]byte, len(w.values))
	for i, v := range w.values {
		raw[i] = fmt.Append(nil, v)
	}
	return raw
}

func (w *scriptedWire) Err() error { return w.err }

func (w *scriptedWire) Close() { w.rows.Close() }
