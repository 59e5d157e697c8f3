package through

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/keying"
)

func TestACommitRefillsWhatItInvalidated(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f)
		v.Known(harness.UserByID, 1).Is("1 ann Oslo")
		v.Known(harness.UserByID, 2)
		v.Known("SELECT count(*) FROM users")
		before := cachedpg.StatsOf(v.DB)
		v.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		v.Hit(harness.UserByID, 1).Is("1 ann Bergen")
		v.Hit("SELECT count(*) FROM users").Is("3")
		v.Hit(harness.UserByID, 2)
		refills(v, before, 2, 0, 0)

		tx, err := v.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		v.On(tx).Exec("UPDATE users SET city = 'Paris' WHERE id = $1", 1)
		v.On(tx).Exec("DELETE FROM users WHERE id = $1", 2)
		v.Hit(harness.UserByID, 2)
		f.Commit(tx)
		v.Hit(harness.UserByID, 1).Is("1 ann Paris")
		v.Hit(harness.UserByID, 2).Is("")
		v.Hit("SELECT count(*) FROM users").Is("2")
	})
}

const namesOf = "SELECT name FROM users WHERE id = ANY($1) ORDER BY id"

// Whatever way a write takes, it refills; and what was read by a prepared statement
// or with a list is read again as it was.
func TestEveryWayToWriteRefills(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f)
		stmt, err := v.DB.PrepareContext(f.Ctx, harness.UserByID)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		plain, err := f.Plain.PrepareContext(f.Ctx, harness.UserByID)
		if err != nil {
			f.Fatal(err)
		}
		defer plain.Close()
		byStmt := v.On(harness.Prepared{Stmt: stmt})
		byStmt.Truth = harness.Prepared{Stmt: plain}
		simple := f.Mode() == pgx.QueryExecModeSimpleProtocol || f.Mode() == pgx.QueryExecModeExec
		written := func(how string, want string, write func()) {
			f.Helper()
			v.Known(harness.UserByID, 1)
			byStmt.Known(harness.UserByID, 1)
			if !simple {
				v.Known(namesOf, []int{1, 2})
			}
			v.Known("SELECT count(*) FROM users")
			before := cachedpg.StatsOf(v.DB)
			write()
			v.Hit("SELECT count(*) FROM users")
			if want != "" {
				v.Hit(harness.UserByID, 1).Is(want)
				byStmt.Hit(harness.UserByID, 1).Is(want)
				if !simple {
					v.Hit(namesOf, []int{1, 2})
				}
			}
			if s := cachedpg.StatsOf(v.DB); s.RefillFailed > before.RefillFailed {
				f.Errorf("%s: %d refills failed", how, s.RefillFailed-before.RefillFailed)
			}
		}
		written("a literal", "1 ann a", func() { v.Exec("UPDATE users SET city = 'a' WHERE id = 1") })
		written("RETURNING", "1 ann b", func() {
			v.Runs(keying.NotRead, "UPDATE users SET city = 'b' WHERE id = $1 RETURNING id", 1).Is("1")
		})
		written("a prepared write", "1 ann c", func() {
			w, err := v.DB.PrepareContext(f.Ctx, "UPDATE users SET city = $2 WHERE id = $1")
			if err != nil {
				f.Fatal(err)
			}
			defer w.Close()
			if _, err := w.ExecContext(f.Ctx, 1, "c"); err != nil {
				f.Fatal(err)
			}
		})
		written("BEGIN and COMMIT as text", "1 ann d", func() {
			conn := f.Conn(v.DB)
			defer conn.Close()
			for _, text := range []string{"BEGIN", "UPDATE users SET city = 'd' WHERE id = 1", "COMMIT"} {
				v.On(conn).Exec(text)
			}
		})
		written("INSERT", "", func() { v.Exec("INSERT INTO users VALUES (9, 'nina', NULL)") })
		written("TRUNCATE in a transaction", "", func() {
			tx, err := v.DB.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			v.On(tx).Exec("TRUNCATE users")
			v.On(tx).Exec("INSERT INTO users VALUES (1, 'ann', 'e'), (2, 'bob', NULL)")
			f.Commit(tx)
		})
		raw := func(do func(conn *pgx.Conn) error) {
			conn := f.Conn(v.DB)
			defer conn.Close()
			if err := cachedpg.PgxConn(f.Ctx, conn, do); err != nil {
				f.Fatal(err)
			}
		}
		written("a batch", "1 ann f", func() {
			raw(func(conn *pgx.Conn) error {
				tx, err := conn.Begin(f.Ctx)
				if err != nil {
					return err
				}
				batch := &pgx.Batch{}
				batch.Queue("UPDATE users SET city = 'f' WHERE id = 1")
				batch.Queue("INSERT INTO users VALUES (10, 'ten', NULL)")
				if err := tx.SendBatch(f.Ctx, batch).Close(); err != nil {
					return err
				}
				return tx.Commit(f.Ctx)
			})
		})
		if !f.InMemory() {
			return // COPY cannot be given a transaction id: everything is invalidated, and nothing refilled
		}
		written("COPY", "", func() {
			raw(func(conn *pgx.Conn) error {
				_, err := conn.CopyFrom(f.Ctx, pgx.Identifier{"users"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{11, "copied"}}))
				return err
			})
		})
	})
}

func TestACommitRefillsAtMostSoManyAndThoseUsedLast(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f, "cache_refill_max=2")
		for _, id := range []int{1, 2, 3} {
			v.Known(harness.UserByID, id)
		}
		v.Hit(harness.UserByID, 1)
		before := cachedpg.StatsOf(v.DB)
		v.Exec("UPDATE users SET city = 'Bergen'")
		refills(v, before, 2, 1, 0)
		v.Hit(harness.UserByID, 1)
		v.Hit(harness.UserByID, 3)
		v.Miss(harness.UserByID, 2)
	})
}

// A commit that writes nothing of the strategy reads nothing, nor does a rollback.
func TestOnlyWritersOfTheRelationRefill(t *testing.T) {
	const setup = harness.People + "CREATE TABLE pets (id int PRIMARY KEY, owner int)"
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		v := openThrough(f)
		const both = "SELECT count(*) FROM users JOIN pets ON owner = users.id"
		v.Known(both)
		v.Known("SELECT count(*) FROM pets")
		before := cachedpg.StatsOf(v.DB)
		v.Exec("INSERT INTO pets VALUES (1, 1)")
		refills(v, before, 0, 0, 0)
		v.Miss(both).Is("1")
		v.Miss("SELECT count(*) FROM pets")
		v.Exec("DELETE FROM users WHERE id = 1")
		v.Hit(both).Is("0")
		refills(v, before, 1, 0, 0)
		tx, err := v.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		v.On(tx).Exec("DELETE FROM users")
		f.Rollback(tx)
		v.Hit(both)
		if _, err := v.DB.ExecContext(f.Ctx, "UPDATE users SET id = 3"); err == nil {
			f.Fatal("two rows have the same key")
		}
		refills(v, before, 1, 0, 0)
	})
}

// A SELECT that fails is nobody's error: the commit has succeeded, and the
// connection is as it was.
func TestARefillThatFailsHarmsNeitherTheCommitNorTheConnection(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f)
		const tenths = "SELECT 10 / length(city) FROM users WHERE id = 1"
		on, check := harness.Pin(v)
		v.Known(harness.UserByID, 1)
		v.Known(tenths).Is("2") // is refilled first
		before := cachedpg.StatsOf(v.DB)
		on.Exec("UPDATE users SET city = '' WHERE id = 1")
		refills(v, before, 0, 1, 1)
		check()
		v.Fails(tenths)
		v.Miss(harness.UserByID, 1).Is("1 ann ")
		on.Exec("UPDATE users SET city = 'x' WHERE id = 1") // what failed is not tried again
		refills(v, before, 1, 1, 1)
		v.Miss(tenths).Is("10")
	})
}

// What was read under other settings is left to who has them.
func TestARefillNeedsTheSessionOfTheEntry(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f)
		conn := f.Conn(v.DB)
		other := v.On(conn)
		theirs := f.Conn(f.Plain)
		other.Truth = theirs
		other.Both("SET TimeZone = 'Asia/Tokyo'")
		v.Known(harness.UserByID, 1)
		other.Known(harness.UserByID, 1)
		before := cachedpg.StatsOf(v.DB)
		other.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		refills(v, before, 1, 1, 0)
		other.Hit(harness.UserByID, 1)
		v.Miss(harness.UserByID, 1)

		// What counts is the session that the commit leaves.
		for _, tc := range []struct {
			set      string
			refilled uint64
			read     func(harness.Via, string, ...any) harness.Result
		}{
			{"SET LOCAL TimeZone = 'Europe/Oslo'", 1, harness.Via.Hit},
			{"SET TimeZone = 'Europe/Oslo'", 0, harness.Via.Miss},
		} {
			tx, err := conn.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			other.On(tx).Exec(tc.set)
			other.On(tx).Exec("UPDATE users SET city = city || '!' WHERE id = 1")
			before = cachedpg.StatsOf(v.DB)
			f.Commit(tx)
			if n := cachedpg.StatsOf(v.DB).Refilled - before.Refilled; n != tc.refilled {
				f.Errorf("%s: %d refilled, want %d", tc.set, n, tc.refilled)
			}
			tc.read(other, harness.UserByID, 1)
			v.Miss(harness.UserByID, 1)
		}
	})
}

// An argument that the caller changes afterwards is not what the entry was read with.
func TestARefillDoesNotReadTheCallersMemory(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f)
		ids, id := []int{1, 2}, 1
		v.Known(namesOf, ids).Is("ann, bob")
		v.Known(harness.UserByID, &id)
		ids[0], id = 3, 3
		before := cachedpg.StatsOf(v.DB)
		v.Exec("UPDATE users SET name = upper(name)")
		refills(v, before, 1, 0, 0)
		v.Hit(namesOf, []int{1, 2}).Is("ANN, BOB")
		v.Miss(namesOf, ids).Is("BOB, CID")
		v.Miss(harness.UserByID, 1).Is("1 ANN Oslo")
		v.Miss(harness.UserByID, &id).Is("3 CID <nil>")
	})
}

// Schema changes, and what invalidates everything, are followed by no refill.
func TestASchemaChangeRefillsNothing(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		if f.Mode() == pgx.QueryExecModeCacheStatement || f.Mode() == pgx.QueryExecModeCacheDescribe {
			return // whose statements break with the change, as always
		}
		v := openThrough(f)
		v.Known("SELECT * FROM users WHERE id = 1")
		before := cachedpg.StatsOf(v.DB)
		v.Exec("ALTER TABLE users ADD age int DEFAULT 7")
		refills(v, before, 0, 0, 0)
		v.Miss("SELECT * FROM users WHERE id = 1").Is("1 ann Oslo 7")
		v.Exec("UPDATE users SET age = 8 WHERE id = 1")
		v.Hit("SELECT * FROM users WHERE id = 1").Is("1 ann Oslo 8")
	})
}

func TestWriteThroughWithTheOtherSettings(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		for _, keys := range []string{
			"cache_consistency=eventual",
			"cache_outbox=off",
			"cache_encryption=1:AAECAwQFBgcICQoLDA0ODw==",
		} {
			v := f.Process(keys, keys, usersThrough)
			v.Known(harness.UserByID, 1)
			before := cachedpg.StatsOf(v.DB)
			v.Exec(setCity, keys)
			v.Hit(harness.UserByID, 1).Is("1 ann " + keys)
			refills(v, before, 1, 0, 0)
		}
	})
}

// What a ttl in the context or a comment excuses is refilled as it was read: as of
// the moment of the refill, for as long.
func TestWhatATTLExcusesIsRefilled(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		v := openThrough(f)
		const now = "SELECT name, now() FROM users WHERE id = 1"
		hour := v.In(func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, time.Hour) })
		read := func(v harness.Via, query string) string {
			before := inside.Counted(v.DB)
			r := v.Read(v.Ask, query, nil)
			return harness.Difference(before, inside.Counted(v.DB)) + " " + strings.Fields(r.String())[0]
		}
		for _, tc := range []struct {
			v     harness.Via
			query string
		}{{hour, now}, {v, "/* cachedpg: ttl=1h */ " + now}} {
			v.Exec("UPDATE users SET name = 'ann' WHERE id = 1")
			v.Released()
			read(tc.v, tc.query)
			if got := read(tc.v, tc.query); got != "hit ann" {
				f.Fatalf("%s: got a %s", tc.query, got)
			}
			before := cachedpg.StatsOf(v.DB)
			v.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
			v.Released()
			if got := read(tc.v, tc.query); got != "hit anna" || cachedpg.StatsOf(v.DB).Refilled == before.Refilled {
				f.Errorf("%s: got a %s, %d refilled", tc.query, got, cachedpg.StatsOf(v.DB).Refilled-before.Refilled)
			}
		}
	})
}

// How pgx types an argument depends on the mode, and the entry is one of the reader's.
func TestARefillRunsInTheModeOfTheReader(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		writer := openThrough(f)
		reader := openThrough(f, "default_query_exec_mode=exec")
		reader.Truth = f.Open("pgx", harness.WithKey(f.DSN, "default_query_exec_mode", "exec"))
		const text = "SELECT $1::text FROM users WHERE id = 1" // which in the writer's mode takes no bool
		reader.Known(text, true).Is("t")
		before := cachedpg.StatsOf(writer.DB)
		writer.Exec(setCity, "Bergen")
		refills(writer, before, 1, 0, 0)
		reader.Hit(text, true).Is("t")
	})
}
