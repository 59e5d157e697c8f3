package reads

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// Stories that other caches get wrong: each of these bugs is in at least one
// published cache for Go.

// A reader that stops early never leaves a truncated entry.
func TestAReaderThatStopsEarlyLeavesAWholeEntryOrNone(t *testing.T) {
	harness.Scenario(t, "CREATE TABLE n AS SELECT generate_series(1, 1000) AS i", func(f *harness.Fixture) {
		const all = "SELECT i FROM n ORDER BY i"
		stop := func(after int) {
			rows, err := f.DB.QueryContext(f.Ctx, all)
			if err != nil {
				f.Fatal(err)
			}
			for range after {
				if !rows.Next() {
					f.Fatal("too few rows")
				}
			}
			if err := rows.Close(); err != nil {
				f.Fatal(err)
			}
		}
		for _, after := range []int{0, 1, 999} {
			f.Exec("UPDATE n SET i = i")
			stop(after) // a miss
			stop(after) // a hit
			if r := f.Fresh(all); len(r.Rows) != 1000 {
				f.Errorf("stopped after %d: got %d rows, want 1000", after, len(r.Rows))
			}
		}
		// A context that ends between two rows.
		f.Exec("UPDATE n SET i = i")
		for range 2 {
			ctx, cancel := context.WithCancel(f.Ctx)
			rows, err := f.DB.QueryContext(ctx, all)
			if err != nil {
				f.Fatal(err)
			}
			rows.Next()
			cancel()
			for rows.Next() {
			}
			rows.Close()
			f.Fresh(all)
		}
	})
}

type address string // a type of the application's own, with a basic kind

// Arguments that PostgreSQL tells apart never share an entry.
func TestDistinctArgumentsNeverShareAnEntry(t *testing.T) {
	noon := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	elsewhere := noon.In(time.FixedZone("", 2*60*60))
	empty, a := "", "a"
	harness.Scenario(t, "", func(f *harness.Fixture) {
		for _, tc := range []struct {
			name, query string
			args        [][]any
		}{
			{"netip.Addr", "SELECT $1::inet", [][]any{{netip.MustParseAddr("10.0.0.1")}, {netip.MustParseAddr("10.0.0.2")}, {netip.MustParseAddr("::1")}}},
			{"where one ends and the next begins", "SELECT $1::text || '|' || $2::text", [][]any{{"a b", "c"}, {"a", "b c"}, {"a b c", ""}, {"", "a b c"}}},
			{"length prefixes in a value", "SELECT $1::text || '|' || $2::text", [][]any{{"a\x01b", "c"}, {"a", "\x01bc"}}},
			{"NULL and the empty string", "SELECT $1::text", [][]any{{nil}, {""}, {"NULL"}, {"<nil>"}}},
			{"pointers", "SELECT $1::text", [][]any{{(*string)(nil)}, {&empty}, {&a}, {"b"}}},
			{"sql.NullString", "SELECT $1::text", [][]any{{sql.NullString{}}, {sql.NullString{Valid: true}}, {sql.NullString{String: "a", Valid: true}}}},
			{"a number and its digits", "SELECT $1::int", [][]any{{1}, {2}, {int64(3)}, {int32(4)}, {"5"}}},
			{"zones in timestamp", "SELECT $1::timestamp", [][]any{{noon}, {elsewhere}, {noon.Add(time.Microsecond)}}},
			{"zones in timestamptz", "SELECT $1::timestamptz", [][]any{{noon}, {elsewhere.Add(time.Hour)}, {elsewhere.Add(time.Microsecond)}}},
			{"zones in date", "SELECT $1::date", [][]any{{time.Date(2024, 5, 1, 23, 0, 0, 0, time.UTC)}, {time.Date(2024, 5, 2, 1, 0, 0, 0, time.FixedZone("", 2*60*60))}}},
			{"floats", "SELECT $1::float8", [][]any{{0.1}, {float64(float32(0.1))}, {math.Copysign(0, -1)}, {0.0}, {math.Inf(1)}, {math.Inf(-1)}, {math.NaN()}, {math.MaxFloat64}}},
			{"numeric by text", "SELECT $1::numeric", [][]any{{"1.0"}, {"1.00"}, {"1"}, {"NaN"}, {"1e3"}}},
			{"bytes", "SELECT $1::bytea", [][]any{{[]byte{}}, {[]byte(nil)}, {[]byte{0}}, {[]byte{0, 0}}, {[]byte("\\x00")}}},
			{"booleans", "SELECT $1::bool", [][]any{{true}, {false}, {nil}}},
			{"arrays of text", "SELECT $1::text[]", [][]any{{[]string{"a", "b"}}, {[]string{"a,b"}}, {[]string{}}, {[]string(nil)}, {[]string{""}}, {[]string{`{"a"}`}}}},
			{"arrays of int", "SELECT $1::int[]", [][]any{{[]int32{1, 2}}, {[]int32{12}}, {[]int32{}}, {[]int64{2, 1}}}},
			{"arrays with NULL", "SELECT $1::text[]", [][]any{{[]*string{nil}}, {[]*string{&empty}}, {[]*string{&a, nil}}}},
			{"own types", "SELECT $1::text", [][]any{{address("x")}, {address("y")}}},
			{"pgtype", "SELECT $1::int4", [][]any{{pgtype.Int4{Int32: 1, Valid: true}}, {pgtype.Int4{Int32: 2, Valid: true}}, {pgtype.Int4{}}}},
			{"json by struct", "SELECT $1::jsonb", [][]any{{struct{ A int }{1}}, {struct{ A int }{2}}, {map[string]int{"A": 3}}, {`{"A":4}`}}},
			{"number of arguments used", "SELECT coalesce($1::text, $2::text, 'none')", [][]any{{nil, nil}, {"a", nil}, {nil, "a2"}}},
		} {
			f.Step(tc.name, func(f *harness.Fixture) {
				for _, args := range tc.args {
					want := f.Read(f.Truth, tc.query, args)
					before := cachedpg.StatsOf(f.DB).Hits
					got := f.Read(f.Ask, tc.query, args)
					if cachedpg.StatsOf(f.DB).Hits != before {
						f.Errorf("%#v: the first time is a hit: it shares the entry of another", args)
					}
					if fmt.Sprint(got.Err) != fmt.Sprint(want.Err) || got.String() != want.String() {
						f.Errorf("%#v: got %q %v, plain pgx's %q %v", args, got, got.Err, want, want.Err)
					}
				}
				for _, args := range slices.Backward(tc.args) { // now from the cache
					want, got := f.Read(f.Truth, tc.query, args), f.Read(f.Ask, tc.query, args)
					if fmt.Sprint(got.Err) != fmt.Sprint(want.Err) || got.String() != want.String() {
						f.Errorf("%#v, again: got %q %v, plain pgx's %q %v", args, got, got.Err, want, want.Err)
					}
				}
			})
		}
	})
}

// A text with its values written in it is another question for each value.
func TestDistinctLiteralsNeverShareAnEntry(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm("SELECT name FROM users WHERE id = 1")
		f.Warm("SELECT name FROM users WHERE id = 2")
		f.Hit("SELECT name FROM users WHERE id = 1")
		f.Hit("select  name from users /* written otherwise */ where id = 1")
		f.Warm("SELECT name, 'x' FROM users WHERE id = 1").Is("ann x")
		f.Warm("SELECT name, 'y' FROM users WHERE id = 1").Is("ann y")
		f.Warm(`SELECT name, E'\'' FROM users WHERE id = 1`).Is("ann '")
		f.Warm(`SELECT name, '''' || 'x' FROM users WHERE id = 1`)
		f.Warm("SELECT name, 1 FROM users WHERE id = 1").Is("ann 1")
		f.Warm("SELECT name, 1.0 FROM users WHERE id = 1").Is("ann 1.0")
		f.Warm("SELECT name, -1 FROM users WHERE id = 1").Is("ann -1")
		f.Warm("SELECT name, B'1' FROM users WHERE id = 1")
		f.Warm("SELECT name, X'1' FROM users WHERE id = 1")
		f.Warm(`SELECT name AS "A" FROM users WHERE id = 1`)
		f.Warm(`SELECT name AS a FROM users WHERE id = 1`)
		if parsed := cachedpg.StatsOf(f.DB).Parsed; parsed > 20 {
			f.Errorf("%d texts were parsed: literals are not normalised", parsed)
		}
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Miss("SELECT name FROM users WHERE id = 1").Is("anna")
		f.Hit("SELECT name FROM users WHERE id = 2")
	})
}

// What a transaction reads of its own writes is for its eyes only, and a
// rollback leaves the cache as it was.
func TestATransactionsOwnWritesAreNotPublished(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		tx, end := f.Begin(nil)
		tx.Hit(harness.UserByID, 1)
		tx.Exec("UPDATE users SET name = 'draft' WHERE id = 1")
		tx.Runs(keying.InTransactionAfterWrite, harness.UserByID, 1).Is("1 draft Oslo")
		tx.Runs(keying.InTransactionAfterWrite, "SELECT name FROM users ORDER BY id").Is("draft, bob, cid")
		tx.Miss(harness.UserByID, 2)
		f.Hit(harness.UserByID, 1).Is("1 ann Oslo")
		f.Warm("SELECT name FROM users ORDER BY id").Is("ann, bob, cid")
		f.Rollback(end)
		f.Hit(harness.UserByID, 1).Is("1 ann Oslo")
		f.Hit("SELECT name FROM users ORDER BY id")
	})
}

// A transaction that has changed other rows of a table still hits those that
// were there. Its own new row is neither answered from what is known of its
// absence, nor stored for others to see.
func TestATransactionHitsTheRowsItLeftAlone(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 2)
		f.Warm(harness.UserByID, 9) // no rows
		tx, end := f.Begin(nil)
		tx.Exec("UPDATE users SET name = 'draft' WHERE id = 1")
		tx.Exec("INSERT INTO users VALUES (9, 'new', 'Bonn')")
		tx.Hit(harness.UserByID, 2).Is("2 bob Rome")
		tx.Runs(keying.InTransactionAfterWrite, harness.UserByID, 9).Is("9 new Bonn")
		tx.Runs(keying.InTransactionAfterWrite, harness.UserByID, 9).Is("9 new Bonn")
		f.Hit(harness.UserByID, 9).Is("")
		tx.Exec("DELETE FROM users WHERE name = 'bob'")
		tx.Runs(keying.InTransactionAfterWrite, harness.UserByID, 2).Is("")
		f.Rollback(end)
		f.Hit(harness.UserByID, 9).Is("")
		f.Hit(harness.UserByID, 2).Is("2 bob Rome")
	})
}

// Until the commit the old value is the right one, for everybody else; from
// the commit on the new one is.
func TestInvalidationTakesEffectAtCommit(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		tx, end := f.Begin(nil)
		tx.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Hit(harness.UserByID, 1).Is("1 ann Oslo")
		f.Warm(harness.UserByID, 3)
		f.Commit(end)
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo")
		f.Hit(harness.UserByID, 1)
		f.Hit(harness.UserByID, 3)
	})
}

// A SELECT that began before a write ends after it. What it found is right for
// its own caller and must not be stored for others.
func TestALoadThatBeganBeforeAWriteIsNotUsedAfterIt(t *testing.T) {
	harness.Scenario(t, harness.Gated, func(f *harness.Fixture) {
		g := f.CloseGate()
		old := f.AskAside(f.Ctx, harness.GatedByID, 1)
		g.Await(1)
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		g.Open()
		f.Wants(old, "ann")
		f.Miss(harness.GatedByID, 1).Is("anna")
		f.Hit(harness.GatedByID, 1)
	})
}

// The same SELECT is under way when the write returns. Who asks after that must
// not be given its result.
func TestAReadDoesNotJoinALoadThatBeganBeforeAWrite(t *testing.T) {
	harness.Scenario(t, harness.Gated, func(f *harness.Fixture) {
		g := f.CloseGate()
		old := f.AskAside(f.Ctx, harness.GatedByID, 1)
		g.Await(1)
		f.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Miss(harness.GatedByID, 1).Is("anna") // it does not wait for the gate
		f.Hit(harness.GatedByID, 1).Is("anna")
		g.Open()
		f.Wants(old, "ann")
		f.Hit(harness.GatedByID, 1).Is("anna")
	})
}

// Concurrent identical misses share one SELECT; each of them has a context of
// its own.
func TestALeadersFateIsNotItsFollowers(t *testing.T) {
	harness.Scenario(t, harness.Gated, func(f *harness.Fixture) {
		g := f.CloseGate()
		misses := func(n uint64) {
			f.Until("misses", func() bool { return cachedpg.StatsOf(f.DB).Misses == n })
		}
		leading, cancelLeader := context.WithCancel(f.Ctx)
		leader := f.AskAside(leading, harness.GatedByID, 1)
		g.Await(1)
		followers := []<-chan harness.Answer{f.AskAside(f.Ctx, harness.GatedByID, 1), f.AskAside(f.Ctx, harness.GatedByID, 1)}
		following, cancelFollower := context.WithCancel(f.Ctx)
		impatient := f.AskAside(following, harness.GatedByID, 1)
		misses(4)

		cancelFollower()
		if a := <-impatient; a.Err != context.Canceled {
			f.Errorf("a cancelled follower got %v, want context.Canceled", a.Err)
		}
		cancelLeader()
		if a := <-leader; a.Err == nil {
			f.Error("the cancelled leader got no error")
		}
		g.Await(1) // one of the others leads now
		g.Open()
		for _, follower := range followers {
			f.Wants(follower, "ann")
		}
		f.Hit(harness.GatedByID, 1)
		if s := cachedpg.StatsOf(f.DB); s.Fills != 1 {
			f.Errorf("%d fills, want 1", s.Fills)
		}
	})
}

// What is volatile, locks or has a side effect runs each time.
func TestWhatMustRunAlwaysRuns(t *testing.T) {
	harness.Scenario(t, harness.People+"CREATE SEQUENCE s; CREATE VIEW clock AS SELECT now() AS now", func(f *harness.Fixture) {
		for _, tc := range []struct {
			reason keying.Reason
			query  string
		}{
			{keying.VolatileFunction, "SELECT gen_random_uuid()"},
			{keying.VolatileFunction, "SELECT id FROM users ORDER BY random()"},
			{keying.VolatileFunction, "SELECT nextval('s')"},
			{keying.VolatileFunction, "SELECT clock_timestamp()"},
			{keying.VolatileFunction, "SELECT pg_advisory_lock_shared(7), pg_advisory_unlock_shared(7)"},
			{keying.VolatileFunction, "SELECT pg_notify('a', 'b')"},
			{keying.StableFunction, "SELECT now()"},
			{keying.StableFunction, "SELECT name FROM users WHERE now() > '2000-01-01'"},
			{keying.StableFunction, "SELECT now FROM clock"},
			{keying.StableFunction, "SELECT current_setting('TimeZone')"},
			{keying.StableFunction, "SELECT to_char(statement_timestamp(), 'YYYY')"},
			{keying.ClockKeyword, "SELECT current_date"},
			{keying.ClockKeyword, "SELECT CURRENT_TIMESTAMP"},
			{keying.RowLock, "SELECT name FROM users WHERE id = 1 FOR UPDATE"},
			{keying.RowLock, "SELECT name FROM users FOR KEY SHARE SKIP LOCKED"},
			{keying.RowLock, "SELECT * FROM (SELECT name FROM users FOR SHARE) u"},
			{keying.Sample, "SELECT count(*) >= 0 FROM users TABLESAMPLE BERNOULLI (50)"},
			{keying.SystemCatalog, "SELECT count(*) FROM pg_class"},
			{keying.SystemCatalog, "SELECT count(*) FROM information_schema.tables"},
			{keying.SequenceRead, "SELECT last_value FROM s"},
			{keying.SystemColumn, "SELECT xmin FROM users"},
			{keying.ClockType, "SELECT '12:00+02'::timetz"},
			{keying.ClockInput, "SELECT name FROM users WHERE 'now'::timestamptz > '2000-01-01'"},
			{keying.NotRead, "EXPLAIN SELECT 1"},
			{keying.NotRead, "SHOW TimeZone"},
		} {
			f.Runs(tc.reason, tc.query)
			f.Runs(tc.reason, tc.query)
		}
		// Migration tools take their lock by QueryRow and an argument.
		const lock = "SELECT pg_try_advisory_lock($1)"
		f.Runs(keying.VolatileFunction, lock, 42).Is("true")
		f.Runs(keying.VolatileFunction, "SELECT pg_advisory_unlock($1)", 42).Is("true")
		f.Runs(keying.VolatileFunction, lock, 42).Is("true")
		f.Runs(keying.VolatileFunction, "SELECT pg_advisory_unlock_all()")

		first := f.Runs(keying.VolatileFunction, "SELECT gen_random_uuid()").String()
		if again := f.Runs(keying.VolatileFunction, "SELECT gen_random_uuid()").String(); again == first {
			f.Errorf("the same random value twice: %s", again)
		}
	})
}

// SELECTs that change the session leave nothing cached for a session that is no more.
func TestASelectThatChangesTheSession(t *testing.T) {
	harness.Scenario(t, "CREATE TABLE times (at timestamptz); INSERT INTO times VALUES ('2024-01-01 00:00Z')", func(f *harness.Fixture) {
		s, _ := f.Session()
		s.Warm("SELECT at::text FROM times")
		const set = "SELECT set_config('TimeZone', 'Asia/Tokyo', false)"
		s.Runs(keying.SessionFunction, set)
		if _, err := s.Truth.ExecContext(f.Ctx, set); err != nil {
			f.Fatal(err)
		}
		if got := s.Fresh("SELECT at::text FROM times").String(); !strings.Contains(got, "+09") {
			f.Errorf("got %s, want the time in Tokyo", got)
		}
		s.Known("SELECT at::text FROM times")
	})
}

// A table's shape changes under a cached text.
func TestDDLDropsCachedShapes(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		const all = "SELECT * FROM users WHERE id = $1"
		f.Known(all, 1)
		for _, ddl := range []string{
			"ALTER TABLE users ADD COLUMN age int DEFAULT 7",
			"ALTER TABLE users RENAME COLUMN city TO town",
			"ALTER TABLE users ALTER COLUMN age TYPE text",
			"ALTER TABLE users DROP COLUMN age",
			"ALTER TABLE users DROP CONSTRAINT users_pkey",
			"ALTER TABLE users ADD PRIMARY KEY (name)",
		} {
			f.Exec(ddl)
			// A prepared plan of the old shape: PostgreSQL refuses once, pgx prepares anew.
			f.Settled(all, 1)
			f.Hit(all, 1)
		}
		f.Exec("DROP TABLE users")
		f.Fails(all, 1)
		f.Exec("CREATE TABLE users (id int, other bool)")
		f.Settled(all, 1)
		f.Exec("INSERT INTO users VALUES (1, true)")
		f.Settled(all, 1)
		f.Hit(all, 1).Is("1 true")
	})
}

// Entries and stamps that are evicted are missing, and nothing is taken for
// fresh because nothing is known to be wrong with it.
func TestWhatIsEvictedIsAMiss(t *testing.T) {
	harness.ScenarioOnce(t, "CREATE TABLE n AS SELECT i, 0 AS v FROM generate_series(1, 400) i; ALTER TABLE n ADD PRIMARY KEY (i)", func(f *harness.Fixture) {
		small := f.With("cache_memory=64KiB", "cache_max_entry=4KiB")
		const one = "SELECT i, v FROM n WHERE i = $1"
		for round := range 2 {
			for i := 1; i <= 400; i++ {
				small.Fresh(one, i)
				if i%7 == round {
					small.Exec("UPDATE n SET v = v + 1 WHERE i = $1", i)
				}
				small.Fresh(one, 1+i*i%400)
			}
		}
		if s := cachedpg.StatsOf(small.DB); s.Evictions == 0 || s.Bytes > 64<<10 {
			f.Errorf("%d evictions, %d bytes, want some, and at most 64 KiB", s.Evictions, s.Bytes)
		}
	})
}
