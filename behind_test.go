package cachedpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

const counters3 = `
	CREATE SCHEMA IF NOT EXISTS cachedpg;` + behind.TableSQL + `;
	CREATE TABLE hits (id int PRIMARY KEY, n int NOT NULL CHECK (n < 1000000), seen timestamptz DEFAULT now());
	INSERT INTO hits VALUES (1, 0), (2, 0), (3, 0);
	CREATE TABLE others (id int PRIMARY KEY, n int);
	INSERT INTO others VALUES (1, 0);`

const (
	countHit = "UPDATE hits SET n = n + 1 WHERE id = $1"
	readHit  = "SELECT n FROM hits WHERE id = $1"
)

// queueing is a story of a database with a queue in a Redis of its own.
func queueing(t *testing.T, story func(f *harness.Fixture, r *redistest.Server)) {
	t.Helper()
	t.Parallel()
	r := redistest.Start(t)
	story(harness.New(t, pgtest.Database(t), "cache_statement", counters3,
		"cache_store="+r.URL(), "cache_policy=hits:write-behind"), r)
}

func writeQueueOf(v harness.Via) *behind.Queue { return connectorOf(v.DB).behind.Load() }

// held keeps PostgreSQL from recording a position until release is called.
func heldQueue(f *harness.Fixture) (release func()) {
	f.Helper()
	drained(f.Via)
	tx, err := f.Plain.BeginTx(f.Ctx, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { tx.Rollback() })
	if _, err := tx.ExecContext(f.Ctx, "SELECT FROM cachedpg.queue FOR UPDATE"); err != nil {
		f.Fatal(err)
	}
	return func() { f.Rollback(tx) }
}

// drained returns when the queue is empty.
func drained(v harness.Via) {
	v.F.Helper()
	v.F.Until("the queue to be ready", func() bool {
		if err := writeQueueOf(v).Check(v.F.Ctx); err != nil {
			v.F.Fatal(err)
		}
		return writeQueueOf(v).Standing() == behind.Owns
	})
	if err := writeQueueOf(v).Drain(v.F.Ctx, false); err != nil {
		v.F.Fatal(err)
	}
}

func inPostgres(f *harness.Fixture, query string, args ...any) string {
	f.Helper()
	return f.Read(f.Plain, query, args).String()
}

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
		if s := StatsOf(f.DB).Queue; s.Queued != 1 || s.Length != 1 || !strings.Contains(s.Risk, "appendonly") {
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
		drained(f.Via)
		f.Again(readHit, 1).Is("1")
		if s := StatsOf(f.DB).Queue; s.Applied != 1 || s.Length != 0 || s.Drains == 0 {
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
		if err := Invalidate(f.Ctx, f.DB); err != nil {
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
			before := StatsOf(f.DB).Queue.Queued
			f.Exec(query, args...)
			return StatsOf(f.DB).Queue.Queued > before
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
		before := StatsOf(f.DB).Queue.Queued
		in.Exec("UPDATE hits SET n = 5 WHERE id = 1")
		if StatsOf(f.DB).Queue.Queued > before {
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

// told is the only process, with a hook.
func told(f *harness.Fixture, hook func(DeadLetter)) harness.Via {
	f.Helper()
	f.DB.Close()
	pg, err := pgx.ParseConfig(f.DSN)
	if err != nil {
		f.Fatal(err)
	}
	_, config, err := ParseConfig(harness.WithKeys(f.DSN, f.Keys))
	if err != nil {
		f.Fatal(err)
	}
	config.OnDeadLetter = hook
	c, err := NewConnector(*pg, config)
	if err != nil {
		f.Fatal(err)
	}
	db := harness.OpenDB(f, c)
	f.Live(db)
	return f.Asking(db)
}

func TestAStatementThatFailsGoesToTheDeadLetters(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		var mu sync.Mutex
		var letters []DeadLetter
		f.Via = told(f, func(l DeadLetter) {
			mu.Lock()
			defer mu.Unlock()
			letters = append(letters, l)
		})
		release := heldQueue(f)
		f.Exec(countHit, 1)
		f.Exec("INSERT INTO hits (id, n, seen) VALUES ($1, $2, $3)", 1, 1, nil) // there is one
		f.Exec(countHit, 1)
		f.Exec("UPDATE hits SET n = $2 WHERE id = $1", 1, 2000000) // the check
		f.Exec("UPDATE hits SET n = $2 WHERE id = $1", 2, "ten")   // no number
		f.Exec(countHit, 1)
		if _, err := r.Client().XAdd(f.Ctx, &goredis.XAddArgs{Stream: writeQueueOf(f.Via).Store().QueueName(), Values: []string{"w", "poison"}}).Result(); err != nil {
			f.Fatal(err)
		}
		f.Exec(countHit, 2)
		release()
		f.Fresh("SELECT id, n FROM hits WHERE id < 3 ORDER BY id").Is("1 3, 2 1")
		drained(f.Via)
		mu.Lock()
		defer mu.Unlock()
		s := StatsOf(f.Via.DB).Queue
		if s.Dead != 4 || s.Applied != 8 || len(letters) != 4 || s.Length != 0 {
			f.Fatalf("%+v, %d letters", s, len(letters))
		}
		if letters[0].SQLState != "23505" || letters[1].SQLState != "23514" || !strings.HasPrefix(letters[0].SQL, "INSERT") {
			f.Errorf("%+v", letters)
		}
		dead, err := r.Client().XRange(f.Ctx, s.DeadLetters, "-", "+").Result()
		if err != nil || len(dead) != 4 || dead[0].Values["sqlstate"] != "23505" || dead[0].Values["id"] != letters[0].ID {
			f.Errorf("%v, %v", dead, err)
		}
	})
}

func TestALongQueueMakesWritersWait(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		small := f.With("cache_queue_max=3")
		small.Known("SELECT n FROM others WHERE id = 1")
		drained(small)
		release := heldQueue(f)
		for range 3 {
			small.Exec(countHit, 1)
		}
		ctx, cancel := context.WithTimeout(f.Ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := small.DB.ExecContext(ctx, countHit, 1); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cache_queue_max") {
			f.Errorf("%v", err)
		}
		done := make(chan error)
		go func() {
			_, err := small.DB.ExecContext(f.Ctx, countHit, 1)
			done <- err
		}()
		release()
		if err := <-done; err != nil {
			f.Error(err)
		}
		f.Fresh(readHit, 1).Is("4")
	})
}

func TestCloseAppliesWhatIsQueued(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		other := f.With()
		other.Exec(countHit, 1)
		if err := other.DB.Close(); err != nil {
			f.Fatal(err)
		}
		if got := inPostgres(f, readHit, 1); got != "1" {
			f.Errorf("after Close PostgreSQL has %s, want 1", got)
		}
	})
}

func TestATransactionThatHoldsALockDoesNotWaitForTheQueueForEver(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		drained(f.Via)
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

func TestWithoutItsTableNothingIsQueued(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, "cache_store="+r.URL(), "cache_policy=users:write-behind")
	if _, err := f.DB.ExecContext(f.Ctx, "UPDATE users SET city = 'x' WHERE id = 1"); !errors.Is(err, behind.ErrNoTable) {
		t.Errorf("%v", err)
	}
	f.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
	f.Past("CREATE SCHEMA cachedpg; " + behind.TableSQL)
	f.Exec("UPDATE users SET city = 'x' WHERE id = 1")
	f.Fresh(harness.UserByID, 1).Is("1 ann x")
}

func TestAQueueThatCannotBeReachedIsAnError(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Again(readHit, 1)
		drained(f.Via)
		r.Kill()
		for _, query := range []string{"UPDATE hits SET n = 9 WHERE id = 1", "SELECT n FROM hits WHERE id = 1"} {
			if _, err := f.DB.ExecContext(f.Ctx, query); err == nil || !strings.Contains(err.Error(), "write-behind") {
				f.Errorf("%s: %v", query, err)
			}
		}
		f.Fresh("SELECT n FROM others WHERE id = 1") // it has nothing to do with the queue
		if got := inPostgres(f, readHit, 1); got != "0" {
			f.Errorf("%s", got)
		}
	})
}

// The stream outlives a Redis that keeps it on disk, the marks and the entries do not.
func TestAQueueSurvivesARestartOfRedis(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	f := harness.New(t, pgtest.Database(t), "cache_statement", counters3, "cache_store="+r.URL(), "cache_policy=hits:write-behind")
	f.Again(readHit, 1)
	release := heldQueue(f)
	for range 5 {
		f.Exec(countHit, 1)
	}
	if s := StatsOf(f.DB).Queue; s.Risk != "" {
		f.Errorf("risk: %s", s.Risk)
	}
	r.Kill()
	r.Restart()
	release()
	f.Until("the store", func() bool { return !StatsOf(f.DB).Shared.Down })
	f.Fresh(readHit, 1).Is("5")
	drained(f.Via)
}

func TestARedisThatHasLostTheQueueIsNoticed(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		f.Fresh(readHit, 1).Is("1")
		drained(f.Via)
		f.Past("UPDATE cachedpg.queue SET position = '99999999999999-3'") // as if the clock had been put back
		r.Kill()
		r.Restart()
		f.Until("the store", func() bool { return !StatsOf(f.DB).Shared.Down })
		other := f.Process("b")
		f.Until("the loss to be seen", func() bool { return StatsOf(other.DB).Queue.Lost == 1 })
		f.Exec(countHit, 1)
		f.Fresh(readHit, 1).Is("2")
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
		if err := Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		_, conn := f.Session()
		for _, set := range []string{"SET search_path = apart", "SET TimeZone = 'Asia/Tokyo'", "SET DateStyle = 'ISO, DMY'", "SET ROLE " + roleOf(f)} {
			if _, err := conn.ExecContext(f.Ctx, set); err != nil {
				f.Fatal(err)
			}
		}
		release := heldQueue(f)
		before := StatsOf(f.DB).Queue.Queued
		if _, err := conn.ExecContext(f.Ctx, "UPDATE hits SET n = n + 1, seen = '02.01.2026 00:00' WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		f.Exec(countHit, 1)
		if got := StatsOf(f.DB).Queue.Queued - before; got != 2 {
			f.Fatalf("%d were queued, want 2", got)
		}
		release()
		f.Fresh("SELECT n, seen = '2026-01-01 15:00Z' FROM apart.hits").Is("1 true")
		f.Fresh(readHit, 1).Is("1")
		if s := StatsOf(f.DB).Queue; s.Dead != 0 {
			f.Errorf("%+v", s)
		}
		if _, err := conn.ExecContext(f.Ctx, "RESET ROLE"); err != nil {
			f.Fatal(err)
		}
	})
}

func roleOf(f *harness.Fixture) string { return "behind_" + connectorOf(f.DB).space().key.Database }

func TestWriteBehindNeedsARedisOfOnePiece(t *testing.T) {
	for store, want := range map[string]string{"memory": "queues writes in a Redis", "redis+cluster://127.0.0.1:1": "Cluster"} {
		_, _, err := ParseConfig("postgres://127.0.0.1/x?cache_policy=hits:write-behind&cache_store=" + url.QueryEscape(store))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", store, err)
		}
	}
}

// A foreign key makes PostgreSQL look into a table that the statement does not name.
func TestAForeignKeySeesWhatIsQueued(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		f.Past("CREATE TABLE parts (id int PRIMARY KEY, hit int REFERENCES hits); CREATE TABLE owners (id int PRIMARY KEY); INSERT INTO owners VALUES (1);" +
			"ALTER TABLE hits ADD owner int REFERENCES owners")
		if err := Invalidate(f.Ctx, f.DB); err != nil {
			f.Fatal(err)
		}
		drained(f.Via)
		add := func(id int, owner any) {
			before := StatsOf(f.DB).Queue.Queued
			f.Exec("INSERT INTO hits (id, n, seen, owner) VALUES ($1, 0, $2, $3)", id, nil, owner)
			if StatsOf(f.DB).Queue.Queued == before {
				f.Fatal("not queued")
			}
		}
		add(100, nil)
		f.Exec("INSERT INTO parts VALUES (1, 100)")
		add(101, 1)
		if _, err := f.DB.ExecContext(f.Ctx, "DELETE FROM owners WHERE id = 1"); err == nil {
			f.Error("an owner could be deleted to whom a queued row refers")
		}
		drained(f.Via)
		if s := StatsOf(f.DB).Queue; s.Dead != 0 {
			f.Errorf("%+v", s)
		}
	})
}
