package behind

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

func TestAQueuedWriteIsAcknowledgedBeforePostgreSQLHasIt(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Warm(readHit, 1).Is("0")
		release := heldQueue(f)
		if n, err := f.Exec(countHit, 1).RowsAffected(); n != 0 || !errors.Is(err, behind.ErrRowsAffected) {
			f.Errorf("RowsAffected: %d, %v", n, err)
		}
		if got := inPostgres(f, readHit, 1); got != "0" {
			f.Errorf("PostgreSQL has %s already", got)
		}
		if s := cachedpg.StatsOf(f.DB).Queue; s.Queued != 1 || s.Length != 1 || !strings.Contains(s.Risk, "appendonly") {
			f.Errorf("%+v", s)
		}
		done := make(chan string, 1)
		go func() { done <- f.Read(f.DB, readHit, []any{1}).String() }()
		select {
		case got := <-done:
			f.Fatalf("a read gives %s while the write that it depends on waits", got)
		case <-time.After(50 * time.Millisecond):
		}
		release()
		if got := <-done; got != "1" {
			f.Errorf("the read gives %s, want 1", got)
		}
		f.Drained()
		f.Again(readHit, 1).Is("1")
		if s := cachedpg.StatsOf(f.DB).Queue; s.Applied != 1 || s.Length != 0 || s.Drains == 0 {
			f.Errorf("%+v", s)
		}
	})
}

// What an entry of a row that is not queued was read from is as it was.
func TestOtherRowsAreHitWhileAWriteWaits(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Warm(readHit, 2)
		f.Warm("SELECT n FROM others WHERE id = 1")
		release := heldQueue(f)
		f.Exec(countHit, 1)
		f.Hit(readHit, 2)
		f.Hit("SELECT n FROM others WHERE id = 1")
		f.Exec("UPDATE others SET n = 5 WHERE id = 1")
		f.Fresh("SELECT n FROM others WHERE id = 1").Is("5")
		release()
		f.Fresh("SELECT sum(n) FROM others").Is("5")
	})
}

// Whatever may read or write a queued row comes after what is queued.
func TestWhatDependsOnAQueuedWriteComesAfterIt(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past("CREATE VIEW seen AS SELECT id, n FROM hits")
		f.Past("CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT sum(n) FROM hits'")
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		want := 0
		count := func() { f.Helper(); f.Exec(countHit, 1); want++ }
		for _, query := range []string{
			"SELECT n FROM hits WHERE id = 1",
			"SELECT sum(n) FROM hits",
			"SELECT n FROM seen WHERE id = 1",
			"SELECT total()",
			"SELECT h.n FROM hits h, others o WHERE h.id = 1 AND o.id = 1 AND o.n >= 0 FOR UPDATE OF h",
			"SELECT max(n) FROM (SELECT n FROM hits WHERE random() >= 0) x",
			"WITH w AS (UPDATE hits SET n = n WHERE id = 1 RETURNING n) SELECT n FROM w",
		} {
			count()
			if got := f.Read(f.DB, query, nil).String(); got != fmt.Sprint(want) {
				f.Errorf("%s: %s, want %d", query, got, want)
			}
		}
		for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
			count()
			in, tx := f.Begin(&sql.TxOptions{Isolation: level})
			if got := f.Read(in.Ask, "SELECT n FROM others", nil).String(); got != "0" {
				f.Errorf("others: %s", got)
			}
			if got := f.Read(in.Ask, "SELECT n FROM hits WHERE id = 1", nil).String(); got != fmt.Sprint(want) {
				f.Errorf("%v: %s, want %d", level, got, want)
			}
			f.Rollback(tx)
		}
		_, conn := f.Session()
		count()
		f.Exec("UPDATE hits SET n = n * 2 WHERE n > 0") // not by key: at once
		want *= 2
		if got := inPostgres(f, readHit, 1); got != fmt.Sprint(want) {
			f.Errorf("a direct write came before a queued one: %s, want %d", got, want)
		}
		count()
		for _, query := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT n FROM others"} {
			if _, err := conn.ExecContext(f.Ctx, query); err != nil {
				f.Fatal(err)
			}
		}
		if got := f.Read(conn, readHit, []any{1}).String(); got != fmt.Sprint(want) {
			f.Errorf("in a transaction begun by text: %s, want %d", got, want)
		}
		if _, err := conn.ExecContext(f.Ctx, "ROLLBACK"); err != nil {
			f.Fatal(err)
		}
	})
}

func TestOnlyWhatMeansTheSameLaterIsQueued(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		queued := func(query string, args ...any) bool {
			f.Helper()
			before := cachedpg.StatsOf(f.DB).Queue.Queued
			f.Exec(query, args...)
			return cachedpg.StatsOf(f.DB).Queue.Queued > before
		}
		at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.FixedZone("X", 3600))
		for _, query := range []struct {
			text string
			args []any
		}{
			{countHit, []any{1}},
			{"UPDATE hits SET n = 7 WHERE id = 2", nil},
			{"UPDATE hits SET n = $2, seen = $3 WHERE id IN ($1, 99)", []any{int64(3), int32(8), at}},
			{"INSERT INTO hits (id, n, seen) VALUES ($1, $2, $3)", []any{10, 1, nil}},
			{"INSERT INTO hits (id, n, seen) VALUES ($1, 1, $2) ON CONFLICT (id) DO UPDATE SET n = hits.n + excluded.n", []any{10, at}},
			{"DELETE FROM hits WHERE id = $1", []any{2}},
		} {
			if !queued(query.text, query.args...) {
				f.Errorf("not queued: %s", query.text)
			}
		}
		f.Fresh("SELECT id, n, seen FROM hits ORDER BY id")
		f.Fresh("SELECT n, seen = '2026-01-02 03:04:05.678901+01' FROM hits WHERE id = 3").Is("8 true")
		f.Fresh("SELECT n, seen FROM hits WHERE id = 10").Is("2 <nil>")
		for _, query := range []struct {
			text string
			args []any
		}{
			{"UPDATE hits SET seen = now() WHERE id = 1", nil},
			{"UPDATE hits SET seen = current_timestamp WHERE id = 1", nil},
			{"UPDATE hits SET seen = $1 WHERE id = 1", []any{"now"}},
			{"UPDATE hits SET seen = 'today' WHERE id = 1", nil},
			{"UPDATE hits SET seen = DEFAULT WHERE id = 1", nil},
			{"UPDATE hits SET n = (random() * 10)::int WHERE id = 1", nil},
			{"UPDATE hits SET n = (SELECT max(n) FROM others) WHERE id = 1", nil},
			{"UPDATE hits SET n = 1 WHERE n = 1", nil},
			{"INSERT INTO hits (id, n) VALUES (20, 1)", nil},
			{"INSERT INTO hits VALUES (21, 1)", nil},
			{"INSERT INTO hits (id, n, seen) SELECT 22, 1, NULL", nil},
			{"UPDATE others SET n = 1 WHERE id = 1", nil},
			{"DELETE FROM hits", nil},
		} {
			if queued(query.text, query.args...) {
				f.Errorf("queued: %s", query.text)
			}
		}
		in, tx := f.Begin(nil)
		before := cachedpg.StatsOf(f.DB).Queue.Queued
		in.Exec("UPDATE hits SET n = 5 WHERE id = 1")
		if cachedpg.StatsOf(f.DB).Queue.Queued > before {
			f.Error("queued in a transaction")
		}
		f.Commit(tx)
	})
}

func TestQueuedWritesAreAppliedOnceAndInOrder(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past("CREATE TABLE log (at serial, n int); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (n) VALUES (NEW.n); RETURN NULL; END $$;" +
			"CREATE TABLE steps (id int PRIMARY KEY, n int)")
		processes := []harness.Via{f.Via, f.Process("b"), f.Process("c")}
		var group sync.WaitGroup
		const each = 200
		for i, p := range processes {
			for range 4 {
				group.Go(func() {
					for range each {
						if _, err := p.DB.ExecContext(f.Ctx, countHit, i+1); err != nil {
							f.Error(err)
							return
						}
					}
				})
			}
			group.Go(func() {
				last := 0
				for range 100 {
					var n int
					if err := p.DB.QueryRowContext(f.Ctx, readHit, (i+1)%3+1).Scan(&n); err != nil || n < last {
						f.Errorf("%d after %d, %v", n, last, err)
						return
					}
					last = n
				}
			})
		}
		group.Wait()
		for _, p := range processes {
			p.Fresh("SELECT id, n FROM hits ORDER BY id").Is(fmt.Sprintf("1 %[1]d, 2 %[1]d, 3 %[1]d", 4*each))
		}
		// Each write depends on the one before it.
		for i := range 50 {
			f.Exec("UPDATE hits SET n = n * 3 % 1000 + $2 WHERE id = $1", 1, i)
		}
		n := 4 * each
		for i := range 50 {
			n = n*3%1000 + i
		}
		f.Fresh(readHit, 1).Is(fmt.Sprint(n))
	})
}

func TestATransactionThatHoldsALockDoesNotWaitForTheQueueForEver(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Drained()
		in, tx := f.Begin(nil)
		in.Exec("UPDATE hits SET n = 10 WHERE id = 1")
		f.Exec(countHit, 1)
		if _, err := tx.ExecContext(f.Ctx, "SELECT n FROM hits WHERE id = 1"); !errors.Is(err, behind.ErrLock) {
			f.Errorf("%v", err)
		}
		f.Commit(tx)
		f.Fresh(readHit, 1).Is("11")
	})
}

// A write means later, in whichever process, what it meant in its session.
func TestAQueuedWriteRunsUnderTheSettingsOfItsSession(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		role := roleOf(f)
		f.Past("CREATE SCHEMA apart; CREATE TABLE apart.hits (id int PRIMARY KEY, n int, seen timestamptz); INSERT INTO apart.hits VALUES (1, 0);" +
			"CREATE ROLE " + roleOf(f) + "; GRANT ALL ON SCHEMA apart TO " + roleOf(f) + "; GRANT ALL ON apart.hits TO " + roleOf(f))
		f.Cleanup(func() {
			f.Past("DROP OWNED BY " + role + "; DROP ROLE " + role)
		})
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		_, conn := f.Session()
		for _, set := range []string{"SET search_path = apart", "SET TimeZone = 'Asia/Tokyo'", "SET DateStyle = 'ISO, DMY'", "SET ROLE " + roleOf(f)} {
			if _, err := conn.ExecContext(f.Ctx, set); err != nil {
				f.Fatal(err)
			}
		}
		release := heldQueue(f)
		before := cachedpg.StatsOf(f.DB).Queue.Queued
		if _, err := conn.ExecContext(f.Ctx, "UPDATE hits SET n = n + 1, seen = '02.01.2026 00:00' WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		f.Exec(countHit, 1)
		if got := cachedpg.StatsOf(f.DB).Queue.Queued - before; got != 2 {
			f.Fatalf("%d were queued, want 2", got)
		}
		release()
		f.Fresh("SELECT n, seen = '2026-01-01 15:00Z' FROM apart.hits").Is("1 true")
		f.Fresh(readHit, 1).Is("1")
		if s := cachedpg.StatsOf(f.DB).Queue; s.Dead != 0 {
			f.Errorf("%+v", s)
		}
		if _, err := conn.ExecContext(f.Ctx, "RESET ROLE"); err != nil {
			f.Fatal(err)
		}
	})
}

// A foreign key makes PostgreSQL look into a table that the statement does not name.
func TestAForeignKeySeesWhatIsQueued(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past("CREATE TABLE parts (id int PRIMARY KEY, hit int REFERENCES hits); CREATE TABLE owners (id int PRIMARY KEY); INSERT INTO owners VALUES (1);" +
			"ALTER TABLE hits ADD owner int REFERENCES owners")
		if err := cachedpg.Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		f.Drained()
		add := func(id int, owner any) {
			before := cachedpg.StatsOf(f.DB).Queue.Queued
			f.Exec("INSERT INTO hits (id, n, seen, owner) VALUES ($1, 0, $2, $3)", id, nil, owner)
			if cachedpg.StatsOf(f.DB).Queue.Queued == before {
				f.Fatal("not queued")
			}
		}
		add(100, nil)
		f.Exec("INSERT INTO parts VALUES (1, 100)")
		add(101, 1)
		if _, err := f.DB.ExecContext(f.Ctx, "DELETE FROM owners WHERE id = 1"); err == nil {
			f.Error("an owner could be deleted to whom a queued row refers")
		}
		f.Drained()
		if s := cachedpg.StatsOf(f.DB).Queue; s.Dead != 0 {
			f.Errorf("%+v", s)
		}
	})
}
