package cachedpg

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

const usersThrough = "cache_policy=users:write-through"

// through returns the via of a DB whose commits refill users, and that caches.
func (f *fixture) through(keys ...string) via {
	f.Helper()
	v := f.with(append(keys, usersThrough)...)
	awaitCaching(f, v.db)
	return v
}

// refills checks what commits have done since before.
func (v via) refills(before Stats, refilled, skipped, failed uint64) {
	v.f.Helper()
	s := StatsOf(v.db)
	got := [3]uint64{s.Refilled - before.Refilled, s.RefillSkipped - before.RefillSkipped, s.RefillFailed - before.RefillFailed}
	if want := [3]uint64{refilled, skipped, failed}; got != want {
		v.f.Fatalf("got refilled, skipped, failed %v, want %v", got, want)
	}
}

func TestACommitRefillsWhatItInvalidated(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		v := f.through()
		v.known(userByID, 1).is("1 ann Oslo")
		v.known(userByID, 2)
		v.known("SELECT count(*) FROM users")
		before := StatsOf(v.db)
		v.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		v.hit(userByID, 1).is("1 ann Bergen")
		v.hit("SELECT count(*) FROM users").is("3")
		v.hit(userByID, 2)
		v.refills(before, 2, 0, 0)

		tx, err := v.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		v.on(tx).exec("UPDATE users SET city = 'Paris' WHERE id = $1", 1)
		v.on(tx).exec("DELETE FROM users WHERE id = $1", 2)
		v.hit(userByID, 2)
		f.commit(tx)
		v.hit(userByID, 1).is("1 ann Paris")
		v.hit(userByID, 2).is("")
		v.hit("SELECT count(*) FROM users").is("2")
	})
}

const namesOf = "SELECT name FROM users WHERE id = ANY($1) ORDER BY id"

// Whatever way a write takes, it refills; and what was read by a prepared statement
// or with a list is read again as it was.
func TestEveryWayToWriteRefills(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		v := f.through()
		stmt, err := v.db.PrepareContext(f.ctx, userByID)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		plain, err := f.plain.PrepareContext(f.ctx, userByID)
		if err != nil {
			f.Fatal(err)
		}
		defer plain.Close()
		byStmt := v.on(prepared{stmt})
		byStmt.truth = prepared{plain}
		simple := f.mode() == pgx.QueryExecModeSimpleProtocol || f.mode() == pgx.QueryExecModeExec
		written := func(how string, want string, write func()) {
			f.Helper()
			v.known(userByID, 1)
			byStmt.known(userByID, 1)
			if !simple {
				v.known(namesOf, []int{1, 2})
			}
			v.known("SELECT count(*) FROM users")
			before := StatsOf(v.db)
			write()
			v.hit("SELECT count(*) FROM users")
			if want != "" {
				v.hit(userByID, 1).is(want)
				byStmt.hit(userByID, 1).is(want)
				if !simple {
					v.hit(namesOf, []int{1, 2})
				}
			}
			if s := StatsOf(v.db); s.RefillFailed > before.RefillFailed {
				f.Errorf("%s: %d refills failed", how, s.RefillFailed-before.RefillFailed)
			}
		}
		written("a literal", "1 ann a", func() { v.exec("UPDATE users SET city = 'a' WHERE id = 1") })
		written("RETURNING", "1 ann b", func() {
			v.runs(keying.NotRead, "UPDATE users SET city = 'b' WHERE id = $1 RETURNING id", 1).is("1")
		})
		written("a prepared write", "1 ann c", func() {
			w, err := v.db.PrepareContext(f.ctx, "UPDATE users SET city = $2 WHERE id = $1")
			if err != nil {
				f.Fatal(err)
			}
			defer w.Close()
			if _, err := w.ExecContext(f.ctx, 1, "c"); err != nil {
				f.Fatal(err)
			}
		})
		written("BEGIN and COMMIT as text", "1 ann d", func() {
			conn := f.conn(v.db)
			defer conn.Close()
			for _, text := range []string{"BEGIN", "UPDATE users SET city = 'd' WHERE id = 1", "COMMIT"} {
				v.on(conn).exec(text)
			}
		})
		written("INSERT", "", func() { v.exec("INSERT INTO users VALUES (9, 'nina', NULL)") })
		written("TRUNCATE in a transaction", "", func() {
			tx, err := v.db.BeginTx(f.ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			v.on(tx).exec("TRUNCATE users")
			v.on(tx).exec("INSERT INTO users VALUES (1, 'ann', 'e'), (2, 'bob', NULL)")
			f.commit(tx)
		})
		raw := func(do func(conn *pgx.Conn) error) {
			conn := f.conn(v.db)
			defer conn.Close()
			if err := PgxConn(f.ctx, conn, do); err != nil {
				f.Fatal(err)
			}
		}
		written("a batch", "1 ann f", func() {
			raw(func(conn *pgx.Conn) error {
				tx, err := conn.Begin(f.ctx)
				if err != nil {
					return err
				}
				batch := &pgx.Batch{}
				batch.Queue("UPDATE users SET city = 'f' WHERE id = 1")
				batch.Queue("INSERT INTO users VALUES (10, 'ten', NULL)")
				if err := tx.SendBatch(f.ctx, batch).Close(); err != nil {
					return err
				}
				return tx.Commit(f.ctx)
			})
		})
		if !f.inMemory() {
			return // COPY cannot be given a transaction id: everything is invalidated, and nothing refilled
		}
		written("COPY", "", func() {
			raw(func(conn *pgx.Conn) error {
				_, err := conn.CopyFrom(f.ctx, pgx.Identifier{"users"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{11, "copied"}}))
				return err
			})
		})
	})
}

func TestACommitRefillsAtMostSoManyAndThoseUsedLast(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		v := f.through("cache_refill_max=2")
		for _, id := range []int{1, 2, 3} {
			v.known(userByID, id)
		}
		v.hit(userByID, 1)
		before := StatsOf(v.db)
		v.exec("UPDATE users SET city = 'Bergen'")
		v.refills(before, 2, 1, 0)
		v.hit(userByID, 1)
		v.hit(userByID, 3)
		v.miss(userByID, 2)
	})
}

// A commit that writes nothing of the strategy reads nothing, nor does a rollback.
func TestOnlyWritersOfTheRelationRefill(t *testing.T) {
	const setup = people + "CREATE TABLE pets (id int PRIMARY KEY, owner int)"
	scenario(t, setup, func(f *fixture) {
		v := f.through()
		const both = "SELECT count(*) FROM users JOIN pets ON owner = users.id"
		v.known(both)
		v.known("SELECT count(*) FROM pets")
		before := StatsOf(v.db)
		v.exec("INSERT INTO pets VALUES (1, 1)")
		v.refills(before, 0, 0, 0)
		v.miss(both).is("1")
		v.miss("SELECT count(*) FROM pets")
		v.exec("DELETE FROM users WHERE id = 1")
		v.hit(both).is("0")
		v.refills(before, 1, 0, 0)
		tx, err := v.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		v.on(tx).exec("DELETE FROM users")
		f.rollback(tx)
		v.hit(both)
		if _, err := v.db.ExecContext(f.ctx, "UPDATE users SET id = 3"); err == nil {
			f.Fatal("two rows have the same key")
		}
		v.refills(before, 1, 0, 0)
	})
}

// pinned is a connection of v with something that ends with it.
func (v via) pinned() (via, func()) {
	v.f.Helper()
	conn := v.f.conn(v.db)
	on := v.on(conn)
	on.exec("SELECT pg_advisory_lock(77)")
	return on, func() {
		v.f.Helper()
		var held bool
		if err := conn.QueryRowContext(v.f.ctx, "SELECT pg_advisory_unlock(77)").Scan(&held); err != nil || !held {
			v.f.Errorf("the connection has lost its lock: %v, %v", held, err)
		}
		var timeout, status string
		if err := conn.QueryRowContext(v.f.ctx, "SELECT current_setting('statement_timeout'), current_setting('transaction_read_only')").Scan(&timeout, &status); err != nil || timeout != "0" || status != "off" {
			v.f.Errorf("statement_timeout %s, read only %s, %v", timeout, status, err)
		}
	}
}

// A SELECT that fails is nobody's error: the commit has succeeded, and the
// connection is as it was.
func TestARefillThatFailsHarmsNeitherTheCommitNorTheConnection(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		v := f.through()
		const tenths = "SELECT 10 / length(city) FROM users WHERE id = 1"
		on, check := v.pinned()
		v.known(userByID, 1)
		v.known(tenths).is("2") // is refilled first
		before := StatsOf(v.db)
		on.exec("UPDATE users SET city = '' WHERE id = 1")
		v.refills(before, 0, 1, 1)
		check()
		v.fails(tenths)
		v.miss(userByID, 1).is("1 ann ")
		on.exec("UPDATE users SET city = 'x' WHERE id = 1") // what failed is not tried again
		v.refills(before, 1, 1, 1)
		v.miss(tenths).is("10")
	})
}

// A SELECT that waits for a lock, or for a slow disk, is ended by PostgreSQL.
func TestARefillHasATimeLimit(t *testing.T) {
	const setup = people + "CREATE TABLE cities (name text PRIMARY KEY)"
	scenario(t, setup, func(f *fixture) {
		v := f.through()
		const joined = "SELECT count(*) FROM users JOIN cities ON cities.name = city"
		on, check := v.pinned()
		v.known(userByID, 1)
		v.known(joined)
		tx, err := f.plain.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.Exec("LOCK TABLE cities"); err != nil {
			f.Fatal(err)
		}
		before, begin := StatsOf(v.db), time.Now()
		on.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		if took := time.Since(begin); took < refillTime { // and no longer than the lock, which is held
			f.Errorf("the commit took %v", took)
		}
		v.refills(before, 0, 1, 1)
		check()
		v.miss(userByID, 1).is("1 ann Bergen")
		f.rollback(tx)
		v.miss(joined)
	})
}

// What was read under other settings is left to who has them.
func TestARefillNeedsTheSessionOfTheEntry(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		v := f.through()
		conn := f.conn(v.db)
		other := v.on(conn)
		theirs := f.conn(f.plain)
		other.truth = theirs
		other.both("SET TimeZone = 'Asia/Tokyo'")
		v.known(userByID, 1)
		other.known(userByID, 1)
		before := StatsOf(v.db)
		other.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		v.refills(before, 1, 1, 0)
		other.hit(userByID, 1)
		v.miss(userByID, 1)

		// What counts is the session that the commit leaves.
		for _, tc := range []struct {
			set      string
			refilled uint64
			read     func(via, string, ...any) result
		}{
			{"SET LOCAL TimeZone = 'Europe/Oslo'", 1, via.hit},
			{"SET TimeZone = 'Europe/Oslo'", 0, via.miss},
		} {
			tx, err := conn.BeginTx(f.ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			other.on(tx).exec(tc.set)
			other.on(tx).exec("UPDATE users SET city = city || '!' WHERE id = 1")
			before = StatsOf(v.db)
			f.commit(tx)
			if n := StatsOf(v.db).Refilled - before.Refilled; n != tc.refilled {
				f.Errorf("%s: %d refilled, want %d", tc.set, n, tc.refilled)
			}
			tc.read(other, userByID, 1)
			v.miss(userByID, 1)
		}
	})
}

// Once the caller's context has ended nothing more is begun, and what has begun is
// finished: the commit and its connection are as without.
func TestAContextThatEndsDuringARefill(t *testing.T) {
	twoWriters(t, func(f *fixture, v, _ via) {
		v.known(userByID, 1)
		g := v.gated()
		on, check := v.pinned()
		for _, at := range []string{"before lookup", "after lookup", "before fill", "after fill"} {
			v.known(userByID, 1)
			v.known("SELECT count(*) FROM users WHERE city = 'x'")
			ctx, cancel := context.WithCancel(f.ctx)
			g.next(at, cancel)
			before := StatsOf(v.db)
			on.in(func(context.Context) context.Context { return WithBypass(ctx) }).exec(setCity, at)
			v.refills(before, 1, 1, 0)
			v.fresh(userByID, 1)
		}
		check()
	})
}

// An entry keeps the life that its reader has asked for, and one that has expired
// is not brought back.
func TestARefillKeepsTheTTLOfTheEntry(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		v := f.through()
		v.known(userByID, 2)
		short := v.in(func(ctx context.Context) context.Context { return WithTTL(ctx, 300*time.Millisecond) })
		short.known(userByID, 1)
		before := StatsOf(v.db)
		v.exec(setCity, "one")
		v.refills(before, 1, 0, 0)
		rs := &connectorOf(v.db).space().recipes
		left := func() (d time.Duration) {
			rs.mu.Lock()
			defer rs.mu.Unlock()
			d = time.Hour
			for element := rs.order.Front(); element != nil; element = element.Next() {
				if r := element.Value.(*recipe); r.sql == userByID && fmt.Sprint(r.values[0].Value) == "1" {
					d = r.expires.Sub(store.Now())
				}
			}
			return d
		}
		if d := left(); d > 300*time.Millisecond {
			f.Errorf("it lives for %v more", d)
		}
		f.until("the entry to expire", func() bool { return left() < 0 })
		before = StatsOf(v.db)
		v.exec(setCity, "two")
		v.miss(userByID, 1)
		v.refills(before, 0, 0, 0)
	})
}

// An argument that the caller changes afterwards is not what the entry was read with.
func TestARefillDoesNotReadTheCallersMemory(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		v := f.through()
		ids, id := []int{1, 2}, 1
		v.known(namesOf, ids).is("ann, bob")
		v.known(userByID, &id)
		ids[0], id = 3, 3
		before := StatsOf(v.db)
		v.exec("UPDATE users SET name = upper(name)")
		v.refills(before, 1, 0, 0)
		v.hit(namesOf, []int{1, 2}).is("ANN, BOB")
		v.miss(namesOf, ids).is("BOB, CID")
		v.miss(userByID, 1).is("1 ANN Oslo")
		v.miss(userByID, &id).is("3 CID <nil>")
	})
}

// What nobody reads any more is not read for ever.
func TestAResultThatNobodyReadsIsGivenUp(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		v := f.through()
		v.known(userByID, 1)
		before := StatsOf(v.db)
		for range maxUnread + 5 {
			v.exec("UPDATE users SET city = city || '!' WHERE id = 1")
		}
		v.refills(before, maxUnread+1, 0, 0)
		v.miss(userByID, 1)
		before = StatsOf(v.db)
		for range maxUnread + 5 {
			v.exec("UPDATE users SET city = city || '!' WHERE id = 1")
			v.hit(userByID, 1)
		}
		v.refills(before, maxUnread+5, 0, 0)
	})
}

// Schema changes, and what invalidates everything, are followed by no refill.
func TestASchemaChangeRefillsNothing(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		if f.mode() == pgx.QueryExecModeCacheStatement || f.mode() == pgx.QueryExecModeCacheDescribe {
			return // whose statements break with the change, as always
		}
		v := f.through()
		v.known("SELECT * FROM users WHERE id = 1")
		before := StatsOf(v.db)
		v.exec("ALTER TABLE users ADD age int DEFAULT 7")
		v.refills(before, 0, 0, 0)
		v.miss("SELECT * FROM users WHERE id = 1").is("1 ann Oslo 7")
		v.exec("UPDATE users SET age = 8 WHERE id = 1")
		v.hit("SELECT * FROM users WHERE id = 1").is("1 ann Oslo 8")
	})
}

func TestWriteThroughWithTheOtherSettings(t *testing.T) {
	shared(t, people, func(f *fixture) {
		for _, keys := range []string{
			"cache_consistency=eventual",
			"cache_outbox=off",
			"cache_encryption=1:AAECAwQFBgcICQoLDA0ODw==",
		} {
			v := f.process(keys, keys, usersThrough)
			v.known(userByID, 1)
			before := StatsOf(v.db)
			v.exec(setCity, keys)
			v.hit(userByID, 1).is("1 ann " + keys)
			v.refills(before, 1, 0, 0)
		}
	})
}

func TestExplainNamesWriteThrough(t *testing.T) {
	scenarioOnce(t, people+"CREATE TABLE pets (id int PRIMARY KEY); CREATE VIEW named AS SELECT id, name FROM users", func(f *fixture) {
		db := f.with(usersThrough, "cache_refill_max=3").db
		for query, want := range map[string][2]string{
			userByID:                             {strategyWriteThrough, ""},
			"SELECT name FROM named":             {strategyWriteThrough, ""},
			"SELECT * FROM pets":                 {strategyCacheAside, ""},
			"DELETE FROM pets":                   {strategyCacheAside, ""},
			"DELETE FROM users WHERE id = $1":    {strategyWriteThrough, "at most 3 results"},
			"UPDATE named SET name = 'x'":        {strategyWriteThrough, "cache_statement.users"},
			"ALTER TABLE users ADD column x int": {strategyCacheAside, ""},
		} {
			x, err := Explain(f.ctx, db, query)
			if err != nil {
				f.Fatal(err)
			}
			notes := strings.Join(x.Notes, " ")
			if x.Policy != want[0] || !strings.Contains(notes, want[1]) || want[1] == "" && strings.Contains(notes, "read again, at most") {
				f.Errorf("%s: policy %s, notes %q; want %q", query, x.Policy, notes, want)
			}
		}
	})
}

// What a ttl in the context or a comment excuses is refilled as it was read: as of
// the moment of the refill, for as long.
func TestWhatATTLExcusesIsRefilled(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		v := f.through()
		const now = "SELECT name, now() FROM users WHERE id = 1"
		hour := v.in(func(ctx context.Context) context.Context { return WithTTL(ctx, time.Hour) })
		read := func(v via, query string) string {
			before := inside.Counted(v.db)
			r := v.read(v.ask, query, nil)
			return difference(before, inside.Counted(v.db)) + " " + strings.Fields(r.String())[0]
		}
		for _, tc := range []struct {
			v     via
			query string
		}{{hour, now}, {v, "/* cachedpg: ttl=1h */ " + now}} {
			v.exec("UPDATE users SET name = 'ann' WHERE id = 1")
			v.released()
			read(tc.v, tc.query)
			if got := read(tc.v, tc.query); got != "hit ann" {
				f.Fatalf("%s: got a %s", tc.query, got)
			}
			before := StatsOf(v.db)
			v.exec("UPDATE users SET name = 'anna' WHERE id = 1")
			v.released()
			if got := read(tc.v, tc.query); got != "hit anna" || StatsOf(v.db).Refilled == before.Refilled {
				f.Errorf("%s: got a %s, %d refilled", tc.query, got, StatsOf(v.db).Refilled-before.Refilled)
			}
		}
	})
}

// How pgx types an argument depends on the mode, and the entry is one of the reader's.
func TestARefillRunsInTheModeOfTheReader(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		writer := f.through()
		reader := f.through("default_query_exec_mode=exec")
		reader.truth = f.open("pgx", withKey(f.dsn, "default_query_exec_mode", "exec"))
		const text = "SELECT $1::text FROM users WHERE id = 1" // which in the writer's mode takes no bool
		reader.known(text, true).is("t")
		before := StatsOf(writer.db)
		writer.exec(setCity, "Bergen")
		writer.refills(before, 1, 0, 0)
		reader.hit(text, true).is("t")
	})
}
