package feed

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
)

const external = "cache_external=wal"

// fed is a story in a database that is set up for the feed, with each store.
func fed(t *testing.T, setup string, story func(f *harness.Fixture)) {
	t.Helper()
	t.Parallel()
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		story(newFed(t, setup, keys...))
	})
}

func newFed(t *testing.T, setup string, keys ...string) *harness.Fixture {
	t.Helper()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, cachedpg.WALSetupSQL)
	pgtest.Exec(t, database, "CREATE TABLE marks (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);"+setup)
	ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
	t.Cleanup(cancel)
	f := &harness.Fixture{T: t, DSN: harness.WithKey(database, "default_query_exec_mode", "cache_statement"), Keys: append(keys, external), Ctx: ctx}
	f.DB = f.Open("cachedpg", harness.WithKeys(f.DSN, f.Keys))
	f.Plain = f.Open("pgx", f.DSN)
	f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
	follows(f, f.Via)
	heard(f) // of the tables, too
	return f
}

// follows returns when the process hears of what others write, and caches.
func follows(f *harness.Fixture, v harness.Via) {
	f.Helper()
	if err := v.DB.PingContext(f.Ctx); err != nil {
		f.Fatal(err)
	}
	f.Until("the feed", func() bool {
		return cachedpg.StatsOf(v.DB).Feed.Live && inside.Live(v.DB)
	})
}

// heard returns when what has been committed is handled.
func heard(f *harness.Fixture) { heardBy(f, f.Via) }

func heardBy(f *harness.Fixture, v harness.Via) {
	f.Helper()
	var before string
	if err := f.Plain.QueryRowContext(f.Ctx, "SELECT (pg_current_wal_lsn() - '0/0')::text").Scan(&before); err != nil {
		f.Fatal(err)
	}
	f.Past("INSERT INTO marks DEFAULT VALUES") // something that comes last
	f.Until("the last commit", func() bool {
		var lsn uint64
		fmt.Sscan(before, &lsn)
		return inside.Followed(v.DB) > lsn
	})
}

func feedPID(f *harness.Fixture) string {
	return f.Read(f.Plain, "SELECT active_pid::text FROM pg_replication_slots WHERE database = current_database() AND active", nil).String()
}

const fedPeople = `
	CREATE TABLE users (id int PRIMARY KEY, name text UNIQUE, city text);
	INSERT INTO users VALUES (1, 'ann', 'Oslo'), (2, 'bob', 'Rome'), (3, 'cid', NULL);`

const userByName = "SELECT id, name, city FROM users WHERE name = $1"

// What others write invalidates what depends on it, and no other row.
func TestFeedInvalidatesExactlyWhatOthersChange(t *testing.T) {
	const setup = fedPeople + `
		CREATE TABLE orders (id uuid PRIMARY KEY, buyer int REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE, n int);
		INSERT INTO orders VALUES ('00000000-0000-0000-0000-000000000001', 3, 1), ('00000000-0000-0000-0000-000000000002', 2, 1);
		CREATE TABLE plain (id int, n int);
		INSERT INTO plain VALUES (1, 1);
		CREATE TABLE whole (id bigint PRIMARY KEY, code text UNIQUE NOT NULL, n int);
		ALTER TABLE whole REPLICA IDENTITY FULL;
		INSERT INTO whole VALUES (1, 'a', 1), (2, 'b', 1);
		CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
		CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (1) TO (10);
		CREATE TABLE parts2 (n int, id int NOT NULL);
		ALTER TABLE parts ATTACH PARTITION parts2 FOR VALUES FROM (10) TO (20);
		INSERT INTO parts VALUES (1, 1), (2, 1), (11, 1);
		CREATE TABLE counts (id int PRIMARY KEY, n int);
		INSERT INTO counts VALUES (1, 0), (2, 0);
		CREATE FUNCTION counting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			UPDATE counts SET n = n + 1 WHERE id = 1; RETURN NULL; END $$;
		CREATE TRIGGER counting AFTER UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION counting();`
	const (
		order  = "SELECT n FROM orders WHERE id = $1"
		order1 = "00000000-0000-0000-0000-000000000001"
		order2 = "00000000-0000-0000-0000-000000000002"
		count  = "SELECT n FROM counts WHERE id = $1"
		part   = "SELECT n FROM parts WHERE id = $1"
		whole  = "SELECT n FROM whole WHERE id = $1"
		coded  = "SELECT n FROM whole WHERE code = $1"
	)
	type query struct {
		text string
		arg  any
	}
	tests := []struct {
		write       string
		stale, kept []query
	}{
		{"UPDATE users SET city = 'Bergen' WHERE name = 'ann'",
			[]query{{harness.UserByID, 1}, {userByName, "ann"}, {"SELECT count(*) FROM users WHERE id > $1", 0}}, []query{{harness.UserByID, 2}, {count, 1}}},
		{"INSERT INTO users VALUES (7, 'gil', 'Riga')",
			[]query{{harness.UserByID, 7}, {"SELECT count(*) FROM users WHERE id > $1", 0}}, []query{{harness.UserByID, 1}, {userByName, "bob"}}},
		{"UPDATE users SET id = 8 WHERE id = 7", []query{{harness.UserByID, 7}, {harness.UserByID, 8}, {userByName, "gil"}}, []query{{harness.UserByID, 1}}},
		{"UPDATE users SET name = 'guy' WHERE id = 8", []query{{harness.UserByID, 8}, {userByName, "gil"}, {userByName, "guy"}}, []query{{harness.UserByID, 1}}},
		{"INSERT INTO users VALUES (8, 'guy', 'Nice') ON CONFLICT (id) DO UPDATE SET city = 'Nice'", []query{{harness.UserByID, 8}}, []query{{harness.UserByID, 1}}},
		{"DELETE FROM users WHERE id = 8", []query{{harness.UserByID, 8}, {userByName, "guy"}}, []query{{harness.UserByID, 1}, {harness.UserByID, 2}}},
		{"DELETE FROM users WHERE id = 3", []query{{harness.UserByID, 3}, {order, order1}}, []query{{harness.UserByID, 1}, {order, order2}}},
		{"UPDATE plain SET n = 2", []query{{count, 1}, {"SELECT n FROM plain WHERE id = $1", 1}}, []query{{count, 2}, {harness.UserByID, 1}}},
		{"UPDATE whole SET n = 2 WHERE id = 1", []query{{whole, 1}, {coded, "a"}}, []query{{whole, 2}, {coded, "b"}}},
		{"UPDATE whole SET code = 'c' WHERE id = 1", []query{{whole, 1}, {coded, "a"}, {coded, "c"}}, []query{{whole, 2}, {coded, "b"}}},
		{"UPDATE parts SET n = 2 WHERE id = 1", []query{{part, 1}, {"SELECT n FROM parts1 WHERE id = $1", 1}}, []query{{part, 2}, {part, 11}}},
		{"UPDATE parts2 SET n = 2 WHERE id = 11", []query{{part, 11}}, []query{{part, 1}, {part, 2}}},
		{"UPDATE parts SET id = 12 WHERE id = 2", []query{{part, 2}, {part, 12}}, []query{{part, 1}, {part, 11}}},
		{"TRUNCATE orders, parts1", []query{{order, order2}, {part, 1}}, []query{{harness.UserByID, 1}, {count, 1}}},
		{"BEGIN; UPDATE users SET city = 'x' WHERE id = 1; SAVEPOINT s; UPDATE users SET city = 'x' WHERE id = 2; ROLLBACK TO s; COMMIT",
			[]query{{harness.UserByID, 1}}, []query{{harness.UserByID, 2}}},
		{"BEGIN; UPDATE users SET city = 'x' WHERE id = 1; ROLLBACK", nil, []query{{harness.UserByID, 1}, {harness.UserByID, 2}}},
	}
	fed(t, setup, func(f *harness.Fixture) {
		for _, tt := range tests {
			f.Step(tt.write, func(f *harness.Fixture) {
				for _, q := range slices.Concat(tt.stale, tt.kept) {
					f.Known(q.text, q.arg)
				}
				f.Past(tt.write)
				heard(f)
				for _, q := range tt.kept {
					f.Hit(q.text, q.arg)
				}
				for _, q := range tt.stale {
					f.Miss(q.text, q.arg)
				}
			})
		}
		s := cachedpg.StatsOf(f.DB).Feed
		if !s.Live || !s.Leader || s.Gaps != 0 || s.Problem != "" || s.Transactions < uint64(len(tests)) || s.Changes < s.Transactions-1 {
			f.Errorf("got stats %+v", s)
		}
	})
}

// Changes of the schema by others are told by the event triggers.
// What the setup makes is no code of the application's that DDL would run.
func TestTheFeedsOwnTriggersAreNoReason(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+`CREATE MATERIALIZED VIEW names AS SELECT name FROM users;`, func(f *harness.Fixture) {
		const refresh = "REFRESH MATERIALIZED VIEW names"
		before := outside.Explain(f.Via, refresh)
		f.Past(cachedpg.WALSetupSQL)
		f.Exec("CREATE TABLE others (id int)") // the catalog is loaded anew
		if x := outside.Explain(f.Via, refresh); x.Asks || !slices.Equal(x.Invalidates, before.Invalidates) {
			f.Errorf("got\n%swithout the triggers\n%s", x, before)
		}
		f.Past("CREATE FUNCTION theirs() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER theirs ON ddl_command_end EXECUTE FUNCTION theirs()")
		f.Exec("CREATE TABLE more (id int)")
		if x := outside.Explain(f.Via, refresh); slices.Equal(x.Invalidates, before.Invalidates) && !x.Asks {
			f.Errorf("with one of the application's own:\n%s", x)
		}
	})
}

func TestFeedHearsOfDDLByOthers(t *testing.T) {
	const setup = fedPeople + `
		CREATE VIEW cities AS SELECT city FROM users WHERE id = 1;
		CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM users;`
	fed(t, setup, func(f *harness.Fixture) {
		f.Known("SELECT city FROM cities").Is("Oslo")
		f.Past("CREATE OR REPLACE VIEW cities AS SELECT city FROM users WHERE id = 2")
		heard(f)
		f.Known("SELECT city FROM cities").Is("Rome")

		f.Known(harness.UserByID, 1)
		f.Known("SELECT n FROM totals").Is("3")
		f.Past("INSERT INTO users VALUES (4, 'dan', NULL)")
		f.Past("REFRESH MATERIALIZED VIEW totals")
		heard(f)
		f.Miss("SELECT n FROM totals").Is("4")
		f.Hit(harness.UserByID, 1)

		f.Past("CREATE TEMP TABLE scratch (id int); CREATE INDEX ON scratch (id); DROP TABLE scratch")
		heard(f)
		f.Hit(harness.UserByID, 1)

		// It has a table without a key made identifiable, or UPDATE were refused.
		f.Past("CREATE TABLE loose (n int); INSERT INTO loose VALUES (1)")
		f.Past("UPDATE loose SET n = 2")
		heard(f)
		f.Known("SELECT n FROM loose").Is("2")
		f.Past("UPDATE loose SET n = 3")
		heard(f)
		f.Miss("SELECT n FROM loose").Is("3")

		// Rows have other names after it, and no trigger tells.
		f.Known(harness.UserByID, 1)
		f.Past("REINDEX TABLE CONCURRENTLY users")
		f.Past("UPDATE users SET city = 'Ulm' WHERE id = 1")
		heard(f)
		f.Fresh(harness.UserByID, 1).Is("1 ann Ulm")
		f.Known(harness.UserByID, 1)
		f.Past("UPDATE users SET city = 'Kiel' WHERE id = 1")
		heard(f)
		f.Miss(harness.UserByID, 1).Is("1 ann Kiel")
	})
}

// A gap: what happened in it was not heard, so everything is cold.
func TestFeedThatWasLostLeavesNothingStale(t *testing.T) {
	fed(t, fedPeople, func(f *harness.Fixture) {
		f.Known(harness.UserByID, 1)
		f.Known(harness.UserByID, 2)
		pid := feedPID(f)
		// The slot ends and the change is not in the next one's log.
		f.Past("SELECT pg_terminate_backend(" + pid + ", 5000)")
		f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
		f.Until("the gap", func() bool { return cachedpg.StatsOf(f.DB).Feed.Gaps == 1 })
		f.Until("another slot", func() bool { return cachedpg.StatsOf(f.DB).Feed.Live && feedPID(f) != pid })
		follows(f, f.Via)
		f.Miss(harness.UserByID, 1).Is("1 ann Bergen")
		f.Miss(harness.UserByID, 2)
		f.Past("UPDATE users SET city = 'Molde' WHERE id = 1")
		heard(f)
		f.Miss(harness.UserByID, 1).Is("1 ann Molde")
		f.Hit(harness.UserByID, 2)
	})
}

// With a shared store nobody has a hit while nobody follows, and another process
// takes over.
func TestAnotherProcessTakesTheFeedOver(t *testing.T) {
	t.Parallel()
	f := newFed(t, fedPeople, "cache_store="+pgtest.Redis(t))
	other := f.Process("other")
	f.Until("the other to follow who leads", func() bool {
		s := cachedpg.StatsOf(other.DB).Feed
		return s.Live && !s.Leader
	})
	f.Known(harness.UserByID, 1)
	other.Hit(harness.UserByID, 1)
	f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
	heard(f)
	other.Miss(harness.UserByID, 1).Is("1 ann Bergen")
	other.Hit(harness.UserByID, 1)

	if err := f.DB.Close(); err != nil {
		f.Fatal(err)
	}
	f.Past("UPDATE users SET city = 'Molde' WHERE id = 1")
	f.Until("the other to lead", func() bool { return cachedpg.StatsOf(other.DB).Feed.Leader })
	follows(f, other)
	other.Miss(harness.UserByID, 1).Is("1 ann Molde")
	other.Hit(harness.UserByID, 1)
	f.Past("UPDATE users SET city = 'Ulm' WHERE id = 1")
	heardBy(f, other)
	other.Miss(harness.UserByID, 1).Is("1 ann Ulm")
}

// While nobody can follow, reads go to PostgreSQL: with a store in memory at
// once, with a shared one when the lease ends that nobody renews.
func TestNobodyHitsWhileNobodyFollows(t *testing.T) {
	fed(t, fedPeople, func(f *harness.Fixture) {
		f.Known(harness.UserByID, 1)
		f.Past("DROP PUBLICATION cachedpg") // which is noticed, and ends the feed
		f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
		f.Until("the reason", func() bool {
			return strings.Contains(cachedpg.StatsOf(f.DB).Feed.Problem, "there is no publication cachedpg")
		})
		if _, shared := inside.Pending(f.DB); shared {
			f.Until("the end of the lease", func() bool { return !inside.Live(f.DB) })
		}
		f.Bypass(keying.FeedDown, harness.UserByID, 1).Is("1 ann Bergen")
		f.Past("CREATE PUBLICATION cachedpg FOR ALL TABLES")
		follows(f, f.Via)
		f.Known(harness.UserByID, 1).Is("1 ann Bergen")
	})
}

func TestFeedWithoutWhatItNeedsSaysSo(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, break_, want string }{
		{"no setup", "", "there is no publication cachedpg: run cachedpg setup --wal"},
		{"some tables only", cachedpg.WALSetupSQL + "; DROP PUBLICATION cachedpg; CREATE PUBLICATION cachedpg FOR TABLE users", "DROP PUBLICATION cachedpg, then"},
		{"no triggers", cachedpg.WALSetupSQL + "; ALTER EVENT TRIGGER cachedpg_ddl DISABLE", "event triggers cachedpg_ddl"},
		{"no privilege", cachedpg.WALSetupSQL, "ALTER ROLE … REPLICATION"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			database := pgtest.Database(t)
			pgtest.Exec(t, database, harness.People+tt.break_)
			if tt.name == "no privilege" {
				owner, role := database, fmt.Sprintf("cachedpg_feed_%d", time.Now().UnixNano())
				pgtest.Exec(t, database, "CREATE ROLE "+role+" LOGIN; GRANT SELECT ON users TO "+role+"; GRANT EXECUTE ON FUNCTION pg_control_system() TO "+role)
				t.Cleanup(func() { pgtest.Exec(t, owner, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
				database = strings.Replace(database, "postgres@", role+"@", 1)
			}
			db, err := sql.Open("cachedpg", harness.WithKey(database, "cache_external", "wal"))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
			defer cancel()
			if err := db.PingContext(ctx); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "cachedpg: cache_external=wal: ") {
				t.Errorf("Ping: got error %v, want one with %q", err, tt.want)
			}
			var n int
			for range 2 {
				if err := db.QueryRowContext(ctx, "SELECT count(*) FROM users").Scan(&n); err != nil || n != 3 {
					t.Errorf("a query: got %d, %v", n, err)
				}
			}
			s := cachedpg.StatsOf(db)
			if s.Hits != 0 || s.Bypasses[keying.FeedDown.String()] != 2 || !strings.Contains(s.Feed.Problem, tt.want) || s.Feed.Live {
				t.Errorf("got %d hits, bypasses %v, feed %+v", s.Hits, s.Bypasses, s.Feed)
			}
			x, err := cachedpg.Explain(ctx, db, "SELECT count(*) FROM users")
			if err != nil || !strings.Contains(x.String(), tt.want) {
				t.Errorf("explain: got %v, %v", x, err)
			}
		})
	}
}

func TestNoSlotIsLeftBehind(t *testing.T) {
	fed(t, fedPeople, func(f *harness.Fixture) {
		const slots = "SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database()"
		if got := f.Read(f.Plain, slots, nil).String(); got != "1" {
			f.Errorf("got %s slots while it follows, want 1", got)
		}
		if err := f.DB.Close(); err != nil {
			f.Fatal(err)
		}
		f.Until("the end of the slot", func() bool { return f.Read(f.Plain, slots, nil).String() == "0" })
	})
}
