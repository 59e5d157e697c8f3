package cachedpg

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
	"testing/synctest"
	"time"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// Interleavings that a real PostgreSQL cannot be made to show on command. The
// connection under the driver answers what the test has written down, in that
// order, and anything else it is asked fails the test: a hit is what asks nothing.
// It waits where the test holds it.

const (
	nameByID = "SELECT name FROM users WHERE id = $1"
	rename   = "UPDATE users SET name = $2 WHERE id = $1"
)

// script is a database whose sessions follow a script.
type script struct {
	*testing.T
	d       *connector
	id      backend.Identity
	pid     atomic.Uint32
	over    atomic.Bool // what the resolver is told of lost sessions
	catalog atomic.Pointer[catalog.Snapshot]
	holdup  hold          // of the next load of the catalog
	limit   time.Duration // that the next sessions give a statement

	mu       sync.Mutex // guards the fields below
	sessions []*scripted
}

// play runs a story in a bubble, where synctest.Wait returns when everybody
// waits for somebody else.
func play(t *testing.T, story func(s *script)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{T: t, id: backend.Identity{System: "scripted " + rand.Text(), Timeline: "1", Database: "1"}}
		s.catalog.Store(usersTable(16385))
		var err error
		if s.d, err = newConnector(Config{}); err != nil {
			t.Fatal(err)
		}
		s.d.eager = true
		s.d.mode = pgx.QueryExecModeCacheStatement
		s.d.connect = func(context.Context, *link) (backend.Conn, error) { return s.dial(), nil }
		t.Cleanup(func() {
			s.over.Store(true)
			if sp := s.d.space(); sp != nil {
				sp.writes.Kick()
			}
			if err := s.d.Close(); err != nil {
				t.Error(err)
			}
			for _, in := range s.sessions {
				if err := in.mock.ExpectationsWereMet(); err != nil {
					t.Errorf("session %d: %v", in.pid, err)
				}
				in.mock.ExpectClose()
				in.Conn.Close()
			}
		})
		story(s)
	})
}

// usersTable is a catalog with the table users(id, name), under some OID.
func usersTable(oid uint32) *catalog.Snapshot {
	return catalog.NewSnapshot(catalog.Contents{
		Relations: []*catalog.Relation{{
			OID: oid, Schema: "public", Name: "users", Kind: 'r',
			Columns: []catalog.Column{
				{Name: "id", Number: 1, Type: pgtype.Int4OID, Deterministic: true},
				{Name: "name", Number: 2, Type: pgtype.TextOID, Deterministic: true},
			},
			Keys: []catalog.Key{{Index: oid + 1, Columns: []int{0}, Primary: true}},
		}},
		Operators: []catalog.Operator{{Schema: "pg_catalog", Name: "=", Left: pgtype.Int4OID, Right: pgtype.Int4OID, Volatility: 'i', Builtin: true}},
		Types: []catalog.Type{
			{OID: pgtype.Int4OID, Schema: "pg_catalog", Name: "int4", Kind: 'b', Builtin: true},
			{OID: pgtype.TextOID, Schema: "pg_catalog", Name: "text", Kind: 'b', Builtin: true},
		},
	})
}

// dial makes a session.
func (s *script) dial() *scripted {
	dsn := rand.Text()
	db, mock, err := sqlmock.NewWithDSN(dsn, sqlmock.QueryMatcherOption(sqlmock.QueryMatcherEqual))
	if err != nil {
		s.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Driver().Open(dsn)
	if err != nil {
		s.Fatal(err)
	}
	in := &scripted{Conn: conn, s: s, mock: mock, pid: s.pid.Add(1), status: 'I', limit: s.limit}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions = append(s.sessions, in)
	return in
}

// player is a connection of the driver, and what is under it.
type player struct {
	*Conn
	*scripted
}

// hold is a place where a session waits for the test.
type hold struct {
	mu      sync.Mutex // guards the fields below
	arrived chan struct{}
	release chan struct{}
}

// set makes the next one who passes wait.
func (h *hold) set() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrived, h.release = make(chan struct{}), make(chan struct{})
}

// pass waits if the hold is set. It gives up with ctx.
func (h *hold) pass(ctx context.Context) error {
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

func (h *hold) let() { close(h.release) }

// scripted is a session: go-sqlmock holds the script and says what was not in it.
type scripted struct {
	driver.Conn
	s    *script
	mock sqlmock.Sqlmock
	pid  uint32

	status byte
	lost   bool
	limit  time.Duration

	// Where the session waits: after a SELECT has taken its snapshot; after a
	// statement has executed; before a COMMIT, and after it became visible.
	selected, executed, committing, committed hold
	loseCommit                                bool
	panics                                    bool
	reanalysed                                int // DISCARD PLANS of the driver
}

var _ backend.Conn = (*scripted)(nil)

func (in *scripted) Read(ctx context.Context, q backend.Query) (backend.Rows, error) {
	rows, err := in.Conn.(driver.QueryerContext).QueryContext(ctx, q.SQL, q.Args)
	if err := in.selected.pass(ctx); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if in.panics {
		panic("scripted")
	}
	return &scriptedWire{rows: rows}, nil
}

func (in *scripted) Judge(ctx context.Context, sql string) error {
	stmt, err := in.PrepareContext(ctx, sql)
	if err != nil {
		return err
	}
	return stmt.Close()
}

func (in *scripted) QueryContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := in.Conn.(driver.QueryerContext).QueryContext(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	return rows, in.selected.pass(ctx)
}

func (in *scripted) ExecContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
	if sql == "DISCARD PLANS" {
		in.reanalysed++
		return driver.ResultNoRows, nil // the driver's own
	}
	r, err := in.Conn.(driver.ExecerContext).ExecContext(ctx, sql, args)
	if err := in.executed.pass(ctx); err != nil {
		return nil, err
	}
	return r, err
}

func (in *scripted) ExecInTx(context.Context, string, []driver.NamedValue, []driver.NamedValue, []string) (driver.Result, string, error) {
	return nil, "", errors.New("not in the script: a transaction of the driver's own")
}

func (in *scripted) Commit(context.Context) error {
	return errors.New("not in the script: a COMMIT of the driver's own")
}

func (in *scripted) PrepareContext(ctx context.Context, sql string) (driver.Stmt, error) {
	return in.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, sql)
}

func (in *scripted) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	_, err := in.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err == nil {
		in.status = 'T'
	}
	return &scriptedTx{in}, err
}

type scriptedTx struct{ in *scripted }

func (tx *scriptedTx) Commit() error {
	in := tx.in
	in.committing.pass(context.Background())
	err := in.Conn.(driver.Tx).Commit()
	in.committed.pass(context.Background())
	if in.loseCommit {
		in.lost = true
		return io.ErrUnexpectedEOF
	}
	in.status = 'I'
	return err
}

func (tx *scriptedTx) Rollback() error {
	tx.in.status = 'I'
	return tx.in.Conn.(driver.Tx).Rollback()
}

func (in *scripted) Ping(context.Context) error { return nil }

func (in *scripted) ResetSession(context.Context) error { return nil }

func (in *scripted) Hooked() bool { return false }

func (in *scripted) Reset(context.Context) (bool, error) { return false, nil }

func (in *scripted) Close() error { return nil } // the script's end closes

func (in *scripted) Closed() bool { return in.lost }

func (in *scripted) TxStatus() byte { return in.status }

func (in *scripted) Mode() pgx.QueryExecMode { return pgx.QueryExecModeCacheStatement }

func (in *scripted) TypeMap() *pgtype.Map { return pgtype.NewMap() }

func (in *scripted) PID() uint32 { return in.pid }

func (in *scripted) Learn(context.Context) (*backend.Session, uint32, error) {
	s := &backend.Session{ID: in.s.id, Path: []string{"pg_catalog", "public"}, PathKey: "public", ReadCommitted: true, Reading: backend.Reading{StandardText: true}, Commits: backend.CommitSync, Limit: in.limit}
	for mode := range s.Digests {
		s.Digests[mode] = sha256.Sum256([]byte{byte(mode)})
	}
	return s, in.pid, nil
}

func (in *scripted) LoadCatalog(ctx context.Context, _ *catalog.Snapshot) (*catalog.Snapshot, error) {
	snapshot := in.s.catalog.Load()
	return snapshot, in.s.holdup.pass(ctx)
}

func (in *scripted) Aside(ctx context.Context, question, lasting string) (answer, kept string, err error) {
	if question != "" {
		answer, err = in.Ask(ctx, question)
	}
	if lasting != "" && err == nil {
		kept, err = in.Ask(ctx, lasting)
	}
	return answer, kept, err
}

// Ask answers the driver's own questions.
func (in *scripted) Ask(ctx context.Context, sql string) (string, error) {
	before, after, _ := strings.Cut(in.s.id.Only("?"), "?")
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
		return fmt.Sprint(in.s.over.Load()), nil
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

// What a story is told with.

func (s *script) session() player {
	s.Helper()
	c, err := s.d.Connect(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Close() })
	return player{c.(*Conn), c.(*Conn).inner.(*scripted)}
}

// selects: PostgreSQL is asked for user 1 once more, and answers.
func (c player) selects(name string) player {
	rows := sqlmock.NewRows([]string{"name"})
	if name != "" {
		rows.AddRow(name)
	}
	c.mock.ExpectQuery(nameByID).WithArgs(int64(1)).WillReturnRows(rows)
	return c
}

// fails: PostgreSQL is asked for user 1 once more, and refuses.
func (c player) fails(err error) player {
	c.mock.ExpectQuery(nameByID).WithArgs(int64(1)).WillReturnError(err)
	return c
}

func (c player) updates() player {
	c.mock.ExpectExec(rename).WillReturnResult(sqlmock.NewResult(0, 1))
	return c
}

func user1() []driver.NamedValue { return []driver.NamedValue{{Ordinal: 1, Value: int64(1)}} }

// ask reads the name of user 1.
func (c player) ask(ctx context.Context) (string, error) {
	rows, err := c.Conn.QueryContext(ctx, nameByID, user1())
	if err != nil {
		return "", err
	}
	defer rows.Close()
	values := make([]driver.Value, 1)
	if err := rows.Next(values); err == io.EOF {
		return "", nil
	} else if err != nil {
		return "", err
	}
	return fmt.Sprint(values[0]), nil
}

// gets asks; script says whether PostgreSQL is asked too.
func (c player) gets(want string) {
	c.s.Helper()
	if got, err := c.ask(c.s.Context()); err != nil || got != want {
		c.s.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// aside asks in another goroutine.
func (c player) aside(ctx context.Context) <-chan harness.Answer {
	done := make(chan harness.Answer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- harness.Answer{Err: fmt.Errorf("panic: %v", p)}
			}
		}()
		value, err := c.ask(ctx)
		done <- harness.Answer{Value: value, Err: err}
	}()
	return done
}

// is waits for an answer that must come now: nobody else will move.
func (s *script) is(got <-chan harness.Answer, want string) {
	s.Helper()
	synctest.Wait()
	select {
	case a := <-got:
		if a.Err != nil || a.Value != want {
			s.Errorf("got %q, %v, want %q", a.Value, a.Err, want)
		}
	default:
		s.Errorf("no answer, want %q", want)
	}
}

// failed waits for an error that must come now.
func (s *script) failed(got <-chan harness.Answer) error {
	s.Helper()
	synctest.Wait()
	select {
	case a := <-got:
		if a.Err == nil {
			s.Errorf("got %q, want an error", a.Value)
		}
		return a.Err
	default:
		s.Error("no answer, want an error")
		return nil
	}
}

func (c player) update() error {
	_, err := c.Conn.ExecContext(c.s.Context(), rename, append(user1(), driver.NamedValue{Ordinal: 2, Value: "x"}))
	return err
}

// transaction begins one that updates user 1.
func (c player) transaction() driver.Tx {
	c.s.Helper()
	c.mock.ExpectBegin()
	c.updates()
	tx, err := c.Conn.BeginTx(c.s.Context(), driver.TxOptions{})
	if err != nil {
		c.s.Fatal(err)
	}
	if err := c.update(); err != nil {
		c.s.Fatal(err)
	}
	return tx
}

// commit commits in another goroutine.
func commit(tx driver.Tx) <-chan harness.Answer {
	done := make(chan harness.Answer, 1)
	go func() { done <- harness.Answer{Err: tx.Commit()} }()
	return done
}

// resolve has the resolver told that lost sessions are over. It asks twice: for
// the time, and for sessions from before.
func (s *script) resolve() {
	s.over.Store(true)
	for range 2 {
		s.d.space().writes.Kick()
		synctest.Wait()
	}
}

func (s *script) bypassed(want uint64) {
	s.Helper()
	if got := s.d.stats.bypasses[keying.DirtyTag].Load(); got != want {
		s.Errorf("%d reads met a write in progress, want %d", got, want)
	}
}
