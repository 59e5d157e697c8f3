package core

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend/backendtest"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// I2, I3: from before COMMIT until its answer PostgreSQL is asked. Whoever sees
// the new value early is followed by nobody who sees the old one.
func TestAReaderBetweenCOMMITAndItsAnswer(t *testing.T) {
	play(t, func(s *script) {
		writer, one, two := s.session(), s.session(), s.session()
		one.selects("old").gets("old")
		one.gets("old")
		tx := writer.transaction()
		two.gets("old")

		writer.Mock.ExpectCommit()
		writer.Committing.Set()
		writer.Committed.Set()
		done := commit(tx)
		synctest.Wait() // COMMIT is on its way
		one.selects("old").gets("old")
		two.selects("old").gets("old")
		writer.Committing.Let()
		synctest.Wait() // it is visible; nobody has been told
		one.selects("new").gets("new")
		two.selects("new").gets("new")
		s.bypassed(4)
		writer.Committed.Let()
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
		writer.updates().Executed.Set()
		done := make(chan harness.Answer, 1)
		go func() { done <- harness.Answer{Err: writer.update()} }()
		synctest.Wait()
		reader.selects("new").gets("new")
		writer.Executed.Let()
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
		writer.Mock.ExpectCommit()
		writer.LoseCommit = true
		if err := tx.Commit(); err != io.ErrUnexpectedEOF {
			s.Errorf("got %v, want the error of the connection", err)
		}
		for range 3 { // however often the resolver asks
			reader.selects("old").gets("old")
			s.d.space().Writes.Kick()
			synctest.Wait()
		}
		reader.selects("new").gets("new") // visible, and the transaction is not over yet
		s.bypassed(4)
		if n := s.d.space().Writes.Stats().Unresolved; n != 1 || s.d.stats.unknown.Load() != 1 {
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
		writer.Mock.ExpectExec(rename).WillReturnError(driver.ErrBadConn)
		writer.Executed.Set()
		done := make(chan harness.Answer, 1)
		go func() { done <- harness.Answer{Err: writer.update()} }()
		synctest.Wait()
		writer.Lost = true
		writer.Executed.Let()
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

// I3: the tag of two writers is dirty until the last of them is done.
func TestTwoWritersOfOneRow(t *testing.T) {
	play(t, func(s *script) {
		first, second, reader := s.session(), s.session(), s.session()
		reader.selects("old").gets("old")
		one, two := first.transaction(), second.transaction() // of different rows, in PostgreSQL's eyes
		first.Mock.ExpectCommit()
		second.Mock.ExpectCommit()
		first.Committing.Set()
		second.Committing.Set()
		firstDone, secondDone := commit(one), commit(two)
		synctest.Wait()
		first.Committing.Let()
		s.is(firstDone, "")
		reader.selects("first").gets("first")
		reader.selects("first").gets("first")
		second.Committing.Let()
		s.is(secondDone, "")
		reader.selects("second").gets("second")
		reader.gets("second")
		s.bypassed(2)
	})
}

// faulty is a store that fails when it is told to, and waits where the test
// holds it.
type faulty struct {
	space.LocalStore
	broken  atomic.Bool
	looking backendtest.Hold
}

var errStore = errors.New("the store is out of order")

func (f *faulty) Intend(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	if f.broken.Load() {
		return errStore
	}
	return f.LocalStore.Intend(ctx, w, tags)
}

func (f *faulty) Lookup(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	if f.broken.Load() {
		return nil, store.Miss, errStore
	}
	if err := f.looking.Pass(ctx); err != nil {
		return nil, store.Miss, err
	}
	return f.LocalStore.Lookup(ctx, key, tags, stamps)
}

// breakable puts a faulty store under the space that the first session has made.
func (s *script) breakable() *faulty {
	s.Helper()
	sp := s.d.space()
	f := &faulty{LocalStore: sp.Store.(space.LocalStore)}
	sp.Store = f
	if err := sp.Writes.Close(); err != nil {
		s.Fatal(err)
	}
	sp.Writes = invalidation.New(f, invalidation.Options{Local: true})
	return f
}

// I2: a write whose marks cannot be set does not commit.
func TestAWriteThatCannotBeMarkedIsRolledBack(t *testing.T) {
	play(t, func(s *script) {
		writer, reader := s.session(), s.session()
		broken := s.breakable()
		reader.selects("old").gets("old")
		tx := writer.transaction()
		writer.Mock.ExpectRollback()
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
		writer.Mock.ExpectExec(rename).WillReturnError(refused)
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
		other.Mock.ExpectBegin()
		other.Mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		tx, err := other.Conn.Begin(s.Context(), driver.TxOptions{})
		if err != nil {
			s.Fatal(err)
		}
		if _, err := other.Conn.Exec(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		s.d.space().DropView() // somebody else's DDL
		s.Holdup.Set()
		got := reader.selects("before").aside(s.Context()) // loads the catalog first
		synctest.Wait()
		s.Catalog.Store(usersTable(26385)) // another table of the name
		other.Mock.ExpectCommit()
		s.is(commit(tx), "")
		s.Holdup.Let()
		s.is(got, "before") // planned with the catalog that was loaded after that one
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
		slow.looking.Set()
		got := reader.aside(s.Context()) // has planned for table 16385
		synctest.Wait()
		s.Catalog.Store(usersTable(26385))
		other.Mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		if _, err := other.Conn.Exec(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		reader.selects("before")
		slow.looking.Let()
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
		writer.updates().Executed.Set() // planned for table 16385, and on its way
		done := make(chan harness.Answer, 1)
		go func() { done <- harness.Answer{Err: writer.update()} }()
		synctest.Wait()
		s.Catalog.Store(usersTable(26385)) // what it writes, by way of a new view, say
		other.Mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		if _, err := other.Conn.Exec(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		reader.selects("old").gets("old")
		reader.selects("old").gets("old") // not cached
		writer.Executed.Let()
		s.is(done, "")
		synctest.Wait()
		reader.selects("new").gets("new")
		reader.gets("new")
	})
}

// A transaction planned its write with the catalog of before a DDL, so it may
// have written elsewhere than its tags say. What it reads since may be its own
// change: nothing of it is stored.
func TestATransactionThatPlannedBeforeADDLPublishesNothing(t *testing.T) {
	play(t, func(s *script) {
		writer, reader, other := s.session(), s.session(), s.session()
		tx := writer.transaction()         // planned for table 16385
		s.Catalog.Store(usersTable(26385)) // what it wrote, by way of a new view, say
		other.Mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		if _, err := other.Conn.Exec(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		writer.selects("draft").gets("draft")
		reader.selects("old").gets("old")
		writer.selects("draft").gets("draft") // and it reads nothing of others
		writer.Mock.ExpectRollback()
		if err := tx.Rollback(); err != nil {
			s.Fatal(err)
		}
		writer.gets("old")
	})
}
