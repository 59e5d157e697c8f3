package core

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/backend/backendtest"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// Interleavings that a real PostgreSQL cannot be made to show on command. The
// connection under the driver is one of backendtest, so a hit is what asks nothing.

const (
	nameByID = "SELECT name FROM users WHERE id = $1"
	rename   = "UPDATE users SET name = $2 WHERE id = $1"
)

// script is a story about a scripted database.
type script struct {
	*testing.T
	*backendtest.Database
	d *DB
}

// play runs a story in a bubble, where synctest.Wait returns when everybody
// waits for somebody else.
func play(t *testing.T, story func(s *script)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{T: t, Database: backendtest.New(t)}
		s.Catalog.Store(usersTable(16385))
		var err error
		if s.d, err = newDB(config.Config{}); err != nil {
			t.Fatal(err)
		}
		s.d.eager = true
		s.d.mode = pgx.QueryExecModeCacheStatement
		s.d.connect = func(context.Context, *link) (backend.Conn, error) { return s.Dial(), nil }
		t.Cleanup(func() {
			s.Over.Store(true)
			if sp := s.d.space(); sp != nil {
				sp.Writes.Kick()
			}
			if err := s.d.Close(); err != nil {
				t.Error(err)
			}
			s.End()
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

// player is a connection of the driver, and what is under it.
type player struct {
	*Conn
	*backendtest.Session
	s *script
}

// What a story is told with.

func (s *script) session() player {
	s.Helper()
	c, err := s.d.Connect(s.Context(), true)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Close() })
	return player{c, c.inner.(*backendtest.Session), s}
}

// selects: PostgreSQL is asked for user 1 once more, and answers.
func (c player) selects(name string) player {
	rows := sqlmock.NewRows([]string{"name"})
	if name != "" {
		rows.AddRow(name)
	}
	c.Mock.ExpectQuery(nameByID).WithArgs(int64(1)).WillReturnRows(rows)
	return c
}

// fails: PostgreSQL is asked for user 1 once more, and refuses.
func (c player) fails(err error) player {
	c.Mock.ExpectQuery(nameByID).WithArgs(int64(1)).WillReturnError(err)
	return c
}

func (c player) updates() player {
	c.Mock.ExpectExec(rename).WillReturnResult(sqlmock.NewResult(0, 1))
	return c
}

func user1() []driver.NamedValue { return []driver.NamedValue{{Ordinal: 1, Value: int64(1)}} }

// ask reads the name of user 1.
func (c player) ask(ctx context.Context) (string, error) {
	rows, err := c.Conn.Query(ctx, nameByID, user1())
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
	_, err := c.Conn.Exec(c.s.Context(), rename, append(user1(), driver.NamedValue{Ordinal: 2, Value: "x"}))
	return err
}

// transaction begins one that updates user 1.
func (c player) transaction() driver.Tx {
	c.s.Helper()
	c.Mock.ExpectBegin()
	c.updates()
	tx, err := c.Conn.Begin(c.s.Context(), driver.TxOptions{})
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
	s.Over.Store(true)
	for range 2 {
		s.d.space().Writes.Kick()
		synctest.Wait()
	}
}

func (s *script) bypassed(want uint64) {
	s.Helper()
	if got := s.d.stats.bypasses[keying.DirtyTag].Load(); got != want {
		s.Errorf("%d reads met a write in progress, want %d", got, want)
	}
}
