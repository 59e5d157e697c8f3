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

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
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
	id      identity
	pid     atomic.Uint32
	over    atomic.Bool // what the resolver is told of lost sessions
	catalog atomic.Pointer[catalog.Snapshot]
	holdup  hold // of the next load of the catalog

	mu       sync.Mutex // guards the fields below
	sessions []*scripted
}

// play runs a story in a bubble, where synctest.Wait returns when everybody
// waits for somebody else.
func play(t *testing.T, story func(s *script)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{T: t, id: identity{system: "scripted " + rand.Text(), timeline: "1", database: "1"}}
		s.catalog.Store(usersTable(16385))
		var err error
		if s.d, err = newConnector(Config{}); err != nil {
			t.Fatal(err)
		}
		s.d.eager = true
		s.d.mode = pgx.QueryExecModeCacheStatement
		s.d.connect = func(context.Context, *Conn) (inner, error) { return s.dial(), nil }
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
	in := &scripted{Conn: conn, s: s, mock: mock, pid: s.pid.Add(1), status: 'I'}
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

	// Where the session waits: after a SELECT has taken its snapshot; after a
	// statement has executed; before a COMMIT, and after it became visible.
	selected, executed, committing, committed hold
	loseCommit                                bool
	panics                                    bool
}

var _ inner = (*scripted)(nil)

func (in *scripted) read(ctx context.Context, sql string, args []driver.NamedValue) (wireRows, error) {
	rows, err := in.Conn.(driver.QueryerContext).QueryContext(ctx, sql, args)
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

func (in *scripted) QueryContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := in.Conn.(driver.QueryerContext).QueryContext(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	return rows, in.selected.pass(ctx)
}

func (in *scripted) ExecContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
	if sql == "DISCARD PLANS" {
		return driver.ResultNoRows, nil // the driver's own
	}
	r, err := in.Conn.(driver.ExecerContext).ExecContext(ctx, sql, args)
	if err := in.executed.pass(ctx); err != nil {
		return nil, err
	}
	return r, err
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

func (in *scripted) Ping(context.Context) error         { return nil }
func (in *scripted) ResetSession(context.Context) error { return nil }
func (in *scripted) Close() error                       { return nil } // the script's end closes
func (in *scripted) closed() bool                       { return in.lost }
func (in *scripted) txStatus() byte                     { return in.status }
func (in *scripted) mode() pgx.QueryExecMode            { return pgx.QueryExecModeCacheStatement }
func (in *scripted) typeMap() *pgtype.Map               { return pgtype.NewMap() }
func (in *scripted) backend() uint32                    { return in.pid }

func (in *scripted) learn(context.Context) (*session, uint32, error) {
	s := &session{id: in.s.id, now: "1", path: []string{"pg_catalog", "public"}, pathKey: "public", readCommitted: true, standardText: true}
	for mode := range s.digests {
		s.digests[mode] = sha256.Sum256([]byte{byte(mode)})
	}
	return s, in.pid, nil
}

func (in *scripted) loadCatalog(ctx context.Context) (*catalog.Snapshot, error) {
	snapshot := in.s.catalog.Load()
	return snapshot, in.s.holdup.pass(ctx)
}

// text answers the driver's own questions.
func (in *scripted) text(_ context.Context, sql string) (string, error) {
	switch {
	case strings.Contains(sql, "pg_stat_activity WHERE pid"):
		return fmt.Sprint(in.s.over.Load()), nil
	case strings.Contains(sql, "pg_stat_activity"):
		return "t", nil // nothing was under way when the cache began
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
func (w *scriptedWire) Close()     { w.rows.Close() }

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
func (c player) aside(ctx context.Context) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- answer{err: fmt.Errorf("panic: %v", p)}
			}
		}()
		value, err := c.ask(ctx)
		done <- answer{value, err}
	}()
	return done
}

// is waits for an answer that must come now: nobody else will move.
func (s *script) is(got <-chan answer, want string) {
	s.Helper()
	synctest.Wait()
	select {
	case a := <-got:
		if a.err != nil || a.value != want {
			s.Errorf("got %q, %v, want %q", a.value, a.err, want)
		}
	default:
		s.Errorf("no answer, want %q", want)
	}
}

// failed waits for an error that must come now.
func (s *script) failed(got <-chan answer) error {
	s.Helper()
	synctest.Wait()
	select {
	case a := <-got:
		if a.err == nil {
			s.Errorf("got %q, want an error", a.value)
		}
		return a.err
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
func commit(tx driver.Tx) <-chan answer {
	done := make(chan answer, 1)
	go func() { done <- answer{err: tx.Commit()} }()
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

// I2, I3: from before COMMIT until its answer PostgreSQL is asked. Whoever sees
// the new value early is followed by nobody who sees the old one.
func TestAReaderBetweenCOMMITAndItsAnswer(t *testing.T) {
	play(t, func(s *script) {
		writer, one, two := s.session(), s.session(), s.session()
		one.selects("old").gets("old")
		one.gets("old")
		tx := writer.transaction()
		two.gets("old")

		writer.mock.ExpectCommit()
		writer.committing.set()
		writer.committed.set()
		done := commit(tx)
		synctest.Wait() // COMMIT is on its way
		one.selects("old").gets("old")
		two.selects("old").gets("old")
		writer.committing.let()
		synctest.Wait() // it is visible; nobody has been told
		one.selects("new").gets("new")
		two.selects("new").gets("new")
		s.bypassed(4)
		writer.committed.let()
		s.is(done, "")
		two.selects("new").gets("new")
		one.gets("new")
		two.gets("new")
		s.bypassed(4)
	})
}

// The same without a transaction: the statement commits by itself.
func TestAReaderWhileAStatementCommits(t *testing.T) {
	play(t, func(s *script) {
		writer, reader := s.session(), s.session()
		reader.selects("old").gets("old")
		writer.updates().executed.set()
		done := make(chan answer, 1)
		go func() { done <- answer{err: writer.update()} }()
		synctest.Wait()
		reader.selects("new").gets("new")
		writer.executed.let()
		s.is(done, "")
		reader.selects("new").gets("new")
		reader.gets("new")
	})
}

// I4: COMMIT was sent and the connection is gone. It may become visible at any
// time, so nothing is cached before PostgreSQL says that it is over.
func TestTheAnswerToCOMMITIsLost(t *testing.T) {
	play(t, func(s *script) {
		writer, reader := s.session(), s.session()
		reader.selects("old").gets("old")
		tx := writer.transaction()
		writer.mock.ExpectCommit()
		writer.loseCommit = true
		if err := tx.Commit(); err != io.ErrUnexpectedEOF {
			s.Errorf("got %v, want the error of the connection", err)
		}
		for range 3 { // however often the resolver asks
			reader.selects("old").gets("old")
			s.d.space().writes.Kick()
			synctest.Wait()
		}
		reader.selects("new").gets("new") // visible, and the transaction is not over yet
		s.bypassed(4)
		if n := s.d.space().writes.Stats().Unresolved; n != 1 || s.d.stats.unknown.Load() != 1 {
			s.Errorf("%d unresolved, want 1", n)
		}
		s.resolve()
		reader.selects("new").gets("new")
		reader.gets("new")
	})
}

// The answer to a statement is lost with a driver.ErrBadConn, which promises
// that nothing was sent. pgx gives it also when the connection broke later.
func TestErrBadConnDoesNotProveThatNothingWasSent(t *testing.T) {
	play(t, func(s *script) {
		writer, reader := s.session(), s.session()
		reader.selects("old").gets("old")
		writer.mock.ExpectExec(rename).WillReturnError(driver.ErrBadConn)
		writer.executed.set()
		done := make(chan answer, 1)
		go func() { done <- answer{err: writer.update()} }()
		synctest.Wait()
		writer.lost = true
		writer.executed.let()
		if err := s.failed(done); err != driver.ErrBadConn {
			s.Errorf("got %v, want driver.ErrBadConn", err)
		}
		reader.selects("old").gets("old")
		reader.selects("new").gets("new")
		s.resolve()
		reader.selects("new").gets("new")
		reader.gets("new")
	})
}

// I1, I5: a SELECT took its snapshot before a write and ends after it.
func TestAFillThatBeganBeforeAWriteIsNeverUsed(t *testing.T) {
	for _, end := range []string{"commits", "rolls back", "commits and another one is begun"} {
		t.Run(end, func(t *testing.T) {
			play(t, func(s *script) {
				writer, slow, reader := s.session(), s.session(), s.session()
				slow.selects("old").selected.set()
				old := slow.aside(s.Context())
				synctest.Wait()
				tx := writer.transaction()
				if end == "rolls back" {
					writer.mock.ExpectRollback()
					if err := tx.Rollback(); err != nil {
						s.Fatal(err)
					}
					slow.selected.let()
					s.is(old, "old")
					reader.gets("old") // nothing has changed: a rollback marks nothing
					return
				}
				writer.mock.ExpectCommit()
				s.is(commit(tx), "")
				if end != "commits" {
					tx = writer.transaction()
				}
				slow.selected.let()
				s.is(old, "old")
				reader.selects("new").gets("new")
				reader.gets("new")
				slow.gets("new")
				if end != "commits" {
					writer.mock.ExpectCommit()
					s.is(commit(tx), "")
					reader.selects("newer").gets("newer")
				}
			})
		})
	}
}

// I3: a SELECT that ran between intent and release is nobody else's.
func TestAFillBetweenIntentAndReleaseIsNeverUsed(t *testing.T) {
	play(t, func(s *script) {
		writer, slow, reader := s.session(), s.session(), s.session()
		tx := writer.transaction()
		writer.mock.ExpectCommit()
		writer.committing.set()
		done := commit(tx)
		synctest.Wait()
		slow.selects("old").selected.set()
		old := slow.aside(s.Context())
		synctest.Wait()
		writer.committing.let()
		s.is(done, "")
		slow.selected.let()
		s.is(old, "old")
		reader.selects("new").gets("new")
		reader.gets("new")
	})
}

// I3: the tag of two writers is dirty until the last of them is done.
func TestTwoWritersOfOneRow(t *testing.T) {
	play(t, func(s *script) {
		first, second, reader := s.session(), s.session(), s.session()
		reader.selects("old").gets("old")
		one, two := first.transaction(), second.transaction() // of different rows, in PostgreSQL's eyes
		first.mock.ExpectCommit()
		second.mock.ExpectCommit()
		first.committing.set()
		second.committing.set()
		firstDone, secondDone := commit(one), commit(two)
		synctest.Wait()
		first.committing.let()
		s.is(firstDone, "")
		reader.selects("first").gets("first")
		reader.selects("first").gets("first")
		second.committing.let()
		s.is(secondDone, "")
		reader.selects("second").gets("second")
		reader.gets("second")
		s.bypassed(2)
	})
}

// I8: a read that must see a write does not join a SELECT that began before it.
func TestAFollowerDoesNotJoinAFlightFromBeforeAWrite(t *testing.T) {
	play(t, func(s *script) {
		writer, slow, reader := s.session(), s.session(), s.session()
		slow.selects("old").selected.set()
		old := slow.aside(s.Context())
		synctest.Wait()
		tx := writer.transaction()
		writer.mock.ExpectCommit()
		s.is(commit(tx), "")
		s.is(reader.selects("new").aside(s.Context()), "new")
		slow.selected.let()
		s.is(old, "old")
		slow.gets("new")
	})
}

// Misses of one thing share one SELECT.
func TestFollowersShareTheLeadersSelect(t *testing.T) {
	play(t, func(s *script) {
		leader, one, two := s.session(), s.session(), s.session()
		leader.selects("ann").selected.set()
		led := leader.aside(s.Context())
		synctest.Wait()
		first, second := one.aside(s.Context()), two.aside(s.Context())
		synctest.Wait()
		leader.selected.let()
		for _, got := range []<-chan answer{led, first, second} {
			s.is(got, "ann")
		}
		if n := s.d.stats.joined.Load(); n != 2 {
			s.Errorf("%d joined, want 2", n)
		}
	})
}

// A leader's end is its own affair.
func TestALeaderThatEndsWithoutAResultDoesNotHurtItsFollower(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(leader player, cancel func())
		want string
	}{
		{"cancelled", func(_ player, cancel func()) { cancel() }, "context canceled"},
		{"refused", func(leader player, _ func()) { leader.selected.let() }, "refused"},
		{"panicking", func(leader player, _ func()) { leader.panics = true; leader.selected.let() }, "panic: scripted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			play(t, func(s *script) {
				leader, follower := s.session(), s.session()
				if tc.name == "refused" {
					leader.fails(errors.New("refused"))
				} else {
					leader.selects("ann")
				}
				leader.selected.set()
				leading, cancel := context.WithCancel(s.Context())
				defer cancel()
				led := leader.aside(leading)
				synctest.Wait()
				got := follower.selects("ann").aside(s.Context())
				synctest.Wait()
				if follower.mock.ExpectationsWereMet() == nil {
					s.Error("the follower did not wait")
				}
				tc.play(leader, cancel)
				if err := s.failed(led); err == nil || err.Error() != tc.want {
					s.Errorf("the leader got %v, want %s", err, tc.want)
				}
				s.is(got, "ann")
				follower.gets("ann")
			})
		})
	}
}

// A follower has a context of its own.
func TestAFollowerHonoursItsOwnContext(t *testing.T) {
	play(t, func(s *script) {
		leader, follower := s.session(), s.session()
		leader.selects("ann").selected.set()
		led := leader.aside(s.Context())
		synctest.Wait()
		following, cancel := context.WithCancel(s.Context())
		got := follower.aside(following)
		synctest.Wait()
		cancel()
		if err := s.failed(got); err != context.Canceled {
			s.Errorf("the follower got %v, want context.Canceled", err)
		}
		leader.selected.let()
		s.is(led, "ann")
	})
}

// A transaction may hold the lock that the leader waits for; PostgreSQL cannot
// see a deadlock that runs through us.
func TestATransactionDoesNotWaitForALeader(t *testing.T) {
	play(t, func(s *script) {
		leader, other := s.session(), s.session()
		leader.selects("ann").selected.set()
		led := leader.aside(s.Context())
		synctest.Wait()
		other.mock.ExpectBegin()
		tx, err := other.Conn.BeginTx(s.Context(), driver.TxOptions{})
		if err != nil {
			s.Fatal(err)
		}
		s.is(other.selects("ann").aside(s.Context()), "ann")
		other.mock.ExpectCommit()
		s.is(commit(tx), "")
		leader.selected.let()
		s.is(led, "ann")
	})
}

// faulty is a store that fails when it is told to, and waits where the test
// holds it.
type faulty struct {
	entryStore
	broken  atomic.Bool
	looking hold
}

var errStore = errors.New("the store is out of order")

func (f *faulty) Intend(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	if f.broken.Load() {
		return errStore
	}
	return f.entryStore.Intend(ctx, w, tags)
}

func (f *faulty) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	if f.broken.Load() {
		return nil, store.Miss, errStore
	}
	if err := f.looking.pass(ctx); err != nil {
		return nil, store.Miss, err
	}
	return f.entryStore.Lookup(ctx, key, tags, stamps)
}

// breakable puts a faulty store under the space that the first session has made.
func (s *script) breakable() *faulty {
	s.Helper()
	sp := s.d.space()
	f := &faulty{entryStore: sp.store}
	sp.store = f
	if err := sp.writes.Close(); err != nil {
		s.Fatal(err)
	}
	sp.writes = invalidation.New(f, invalidation.Options{Local: true})
	return f
}

// I2: a write whose marks cannot be set does not commit.
func TestAWriteThatCannotBeMarkedIsRolledBack(t *testing.T) {
	play(t, func(s *script) {
		writer, reader := s.session(), s.session()
		broken := s.breakable()
		reader.selects("old").gets("old")
		tx := writer.transaction()
		writer.mock.ExpectRollback()
		broken.broken.Store(true)
		err := tx.Commit()
		if !errors.Is(err, errStore) || errors.Is(err, driver.ErrBadConn) {
			s.Errorf("COMMIT gave %v, want %v", err, errStore)
		}
		// Without a transaction the statement is not sent at all.
		if err := writer.update(); !errors.Is(err, errStore) {
			s.Errorf("UPDATE gave %v, want %v", err, errStore)
		}
		// A read asks PostgreSQL when the store cannot answer.
		reader.selects("old").gets("old")
		if n := s.d.stats.bypasses[keying.StoreError].Load(); n != 1 {
			s.Errorf("%d reads met a store error, want 1", n)
		}
		broken.broken.Store(false)
		reader.selects("old").gets("old") // it may have been marked: marks that may be there are released as new stamps
		reader.gets("old")
		writer.updates()
		if err := writer.update(); err != nil {
			s.Error(err)
		}
		reader.selects("new").gets("new")
	})
}

// PostgreSQL refuses a write: the outcome is known, and the cache goes on.
func TestAWriteThatPostgreSQLRefuses(t *testing.T) {
	play(t, func(s *script) {
		writer, reader := s.session(), s.session()
		reader.selects("old").gets("old")
		refused := &pgconn.PgError{Code: "23505"}
		writer.mock.ExpectExec(rename).WillReturnError(refused)
		if err := writer.update(); err != error(refused) {
			s.Errorf("got %v, want PostgreSQL's error", err)
		}
		reader.selects("old").gets("old")
		reader.gets("old")
	})
}

const ddl = "ALTER TABLE users OWNER TO somebody"

// I9: a catalog that was being loaded while a DDL committed is out of date
// before it arrives. An entry with its tags would not hear of later writes.
func TestACatalogFromBeforeADDLIsNotUsedAfterIt(t *testing.T) {
	play(t, func(s *script) {
		reader, other := s.session(), s.session()
		other.mock.ExpectBegin()
		other.mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		tx, err := other.Conn.BeginTx(s.Context(), driver.TxOptions{})
		if err != nil {
			s.Fatal(err)
		}
		if _, err := other.Conn.ExecContext(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		s.d.space().dropView() // somebody else's DDL
		s.holdup.set()
		got := reader.selects("before").aside(s.Context()) // loads the catalog first
		synctest.Wait()
		s.catalog.Store(usersTable(26385)) // another table of the name
		other.mock.ExpectCommit()
		s.is(commit(tx), "")
		s.holdup.let()
		s.is(got, "before") // by a bypass: no catalog is at hand
		reader.selects("before").gets("before")
		reader.gets("before")
		other.updates()
		if err := other.update(); err != nil {
			s.Fatal(err)
		}
		reader.selects("after").gets("after")
		reader.gets("after")
	})
}

// I9: the same where the reader has planned already.
func TestAReaderThatPlannedBeforeADDLPlansAgain(t *testing.T) {
	play(t, func(s *script) {
		reader, other := s.session(), s.session()
		slow := s.breakable()
		reader.selects("before").gets("before")
		reader.gets("before")
		slow.looking.set()
		got := reader.aside(s.Context()) // has planned for table 16385
		synctest.Wait()
		s.catalog.Store(usersTable(26385))
		other.mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		if _, err := other.Conn.ExecContext(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		reader.selects("before")
		slow.looking.let()
		s.is(got, "before")
		reader.gets("before")
		other.updates()
		if err := other.update(); err != nil {
			s.Fatal(err)
		}
		reader.selects("after").gets("after")
		reader.gets("after")
	})
}

// I10: a writer planned with the catalog of before a DDL. Until it is done its
// tags may be wrong, and nothing is cached.
func TestAWriterThatPlannedBeforeADDLIsWaitedFor(t *testing.T) {
	play(t, func(s *script) {
		writer, reader, other := s.session(), s.session(), s.session()
		reader.selects("old").gets("old")
		writer.updates().executed.set() // planned for table 16385, and on its way
		done := make(chan answer, 1)
		go func() { done <- answer{err: writer.update()} }()
		synctest.Wait()
		s.catalog.Store(usersTable(26385)) // what it writes, by way of a new view, say
		other.mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		if _, err := other.Conn.ExecContext(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		reader.selects("old").gets("old")
		reader.selects("old").gets("old") // not cached
		writer.executed.let()
		s.is(done, "")
		synctest.Wait()
		reader.selects("new").gets("new")
		reader.gets("new")
	})
}
