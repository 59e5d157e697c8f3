package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/keying"
)

// What lets the log be followed is altered while it is: hits stop, Ping says what is
// wrong and what mends it, and when it is mended caching begins again, cold.
func TestWhatTheFeedNeedsIsAlteredWhileItIsFollowed(t *testing.T) {
	t.Parallel()
	const dropped = "DROP PUBLICATION cachedpg; "
	tests := []struct{ name, alter, want, mend string }{
		{"an operation is left out", "ALTER PUBLICATION cachedpg SET (publish = 'insert')", "SET (publish =", "ALTER PUBLICATION cachedpg SET (publish = 'insert, update, delete, truncate')"},
		{"TRUNCATE is left out", "ALTER PUBLICATION cachedpg SET (publish = 'insert, update, delete')", "SET (publish =", ""},
		{"partitions are named by their root", "ALTER PUBLICATION cachedpg SET (publish_via_partition_root = true)", "publish_via_partition_root = false", "ALTER PUBLICATION cachedpg SET (publish_via_partition_root = false)"},
		{"other tables", dropped + "CREATE PUBLICATION cachedpg FOR TABLE other", "leaves something out", ""},
		{"other columns", dropped + "CREATE PUBLICATION cachedpg FOR TABLE other, users (id)", "leaves something out", ""},
		{"some rows", dropped + "CREATE PUBLICATION cachedpg FOR TABLE other, marks, users WHERE (id < 2)", "leaves something out", dropped + "CREATE PUBLICATION cachedpg FOR ALL TABLES"},
		{"tables of a schema", dropped + "CREATE SCHEMA s; CREATE PUBLICATION cachedpg FOR TABLES IN SCHEMA s", "leaves something out", ""},
		{"no publication", dropped, "there is no publication cachedpg", ""},
		{"another name", "ALTER PUBLICATION cachedpg RENAME TO theirs", "there is no publication cachedpg", "ALTER PUBLICATION theirs RENAME TO cachedpg"},
		{"a trigger is disabled", "ALTER EVENT TRIGGER cachedpg_ddl DISABLE", "event triggers", "ALTER EVENT TRIGGER cachedpg_ddl ENABLE ALWAYS"},
		{"a trigger fires at times", "ALTER EVENT TRIGGER cachedpg_drop ENABLE REPLICA", "event triggers", ""},
		{"a trigger is dropped", "DROP EVENT TRIGGER cachedpg_drop", "event triggers", ""},
		{"a trigger for some commands", "DROP EVENT TRIGGER cachedpg_ddl; CREATE EVENT TRIGGER cachedpg_ddl ON ddl_command_end WHEN tag IN ('CREATE TABLE') EXECUTE FUNCTION cachedpg.tell_ddl(); ALTER EVENT TRIGGER cachedpg_ddl ENABLE ALWAYS", "event triggers", ""},
		{"the schema is dropped", "DROP SCHEMA cachedpg CASCADE", "event triggers", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if strings.HasPrefix(tt.name, "some rows") || strings.HasPrefix(tt.name, "other columns") || strings.HasPrefix(tt.name, "tables of") {
				harness.NeedsServer(t, 15)
			}
			t.Parallel()
			f := newFed(t, fedPeople+"CREATE TABLE other (id int PRIMARY KEY);")
			f.Known(harness.UserByID, 1)
			gaps := cachedpg.StatsOf(f.DB).Feed.Gaps
			f.Past(tt.alter)
			f.Until("Ping to tell", func() bool {
				err := f.DB.PingContext(f.Ctx)
				var wrong *walfeed.ConfigError
				return errors.As(err, &wrong) && strings.Contains(err.Error(), tt.want)
			})
			f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
			f.Bypass(keying.FeedDown, harness.UserByID, 1).Is("1 ann Bergen")
			if s := cachedpg.StatsOf(f.DB).Feed; s.Live || s.Gaps <= gaps || !strings.Contains(s.Problem, tt.want) {
				t.Errorf("got stats %+v", s)
			}
			if tt.mend == "" {
				tt.mend = cachedpg.WALSetupSQL
			}
			f.Past(tt.mend)
			follows(f, f.Via)
			heard(f)
			f.Known(harness.UserByID, 1).Is("1 ann Bergen")
			f.Past("UPDATE users SET city = 'Molde' WHERE id = 1")
			heard(f)
			f.Miss(harness.UserByID, 1).Is("1 ann Molde")
		})
	}
}

// Others hear of nothing while the publication lacks something, though it is mended at once.
func TestWhatWasAlteredAndAlteredBackIsNoticed(t *testing.T) {
	t.Parallel()
	f := newFed(t, fedPeople)
	f.Known(harness.UserByID, 1)
	f.Past("ALTER EVENT TRIGGER cachedpg_ddl DISABLE; ALTER EVENT TRIGGER cachedpg_drop DISABLE")
	f.Past("ALTER PUBLICATION cachedpg SET (publish = 'insert')")
	f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
	f.Past("ALTER PUBLICATION cachedpg SET (publish = 'insert, update, delete, truncate')")
	f.Past("ALTER EVENT TRIGGER cachedpg_ddl ENABLE ALWAYS; ALTER EVENT TRIGGER cachedpg_drop ENABLE ALWAYS")
	f.Until("the gap", func() bool { return cachedpg.StatsOf(f.DB).Feed.Gaps > 0 })
	follows(f, f.Via)
	f.Known(harness.UserByID, 1).Is("1 ann Bergen")
}

// With a shared store hits end with the lease, and each process says why.
func TestEachProcessSaysWhatTheFeedLacks(t *testing.T) {
	t.Parallel()
	f := newFed(t, fedPeople, "cache_store="+pgtest.Redis(t))
	other := f.Process("other")
	follows(f, other)
	f.Known(harness.UserByID, 1)
	other.Hit(harness.UserByID, 1)
	f.Past("ALTER PUBLICATION cachedpg SET (publish = 'insert')")
	for _, v := range []harness.Via{f.Via, other} {
		f.Until("Ping to tell", func() bool {
			err := v.DB.PingContext(f.Ctx)
			return err != nil && strings.Contains(err.Error(), "SET (publish =")
		})
	}
	f.Until("the end of the leases", func() bool { return !inside.Live(f.DB) && !inside.Live(other.DB) })
	f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
	other.Bypass(keying.FeedDown, harness.UserByID, 1).Is("1 ann Bergen")
	f.Past("ALTER PUBLICATION cachedpg SET (publish = 'insert, update, delete, truncate')")
	follows(f, f.Via)
	follows(f, other)
	f.Known(harness.UserByID, 1).Is("1 ann Bergen")
}

// A table that no identity can serve is read past the cache, and so is what it is
// part of. Ping names it. Other tables are cached.
func TestATableWithoutAnIdentityIsLeftOutOfTheCache(t *testing.T) {
	harness.NeedsServer(t, 18)
	const setup = fedPeople + `
		CREATE TABLE odd (id int, n int, twice int GENERATED ALWAYS AS (n * 2));
		INSERT INTO odd VALUES (1, 1);
		CREATE VIEW seen AS SELECT id, n FROM odd;`
	const odd, seen = "SELECT n, twice FROM odd WHERE id = $1", "SELECT n FROM seen WHERE id = $1"
	t.Parallel()
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := newFed(t, fedPeople, keys...)
		f.Past(strings.TrimPrefix(setup, fedPeople))
		f.Until("Ping to tell", func() bool {
			err := f.DB.PingContext(f.Ctx)
			return err != nil && strings.Contains(err.Error(), "no replica identity can serve odd")
		})
		f.Until("the feed", func() bool { return cachedpg.StatsOf(f.DB).Feed.Live && inside.Live(f.DB) })
		f.Known(harness.UserByID, 1)
		for n, text := range []string{odd, seen, odd} {
			f.Bypass(keying.NotFollowed, text, 1)
			f.Past("UPDATE odd SET n = n + 1")
			f.Bypass(keying.NotFollowed, text, 1)
			if n == 0 {
				heard(f)
				f.Hit(harness.UserByID, 1)
			}
		}
		if s := cachedpg.StatsOf(f.DB).Feed; s.LeftOut != "odd" || !s.Live {
			t.Errorf("got stats %+v", s)
		}
		if x := outside.Explain(f.Via, odd, 1); x.Cacheable || x.Reason != keying.NotFollowed.String() {
			t.Errorf("explain:\n%s", x)
		}
		f.Past("INSERT INTO users VALUES (4, 'dan', NULL)")
		heard(f)
		f.Known(harness.UserByID, 4)
		f.Past("ALTER TABLE odd ADD PRIMARY KEY (id)")
		f.Until("it to be followed", func() bool { return f.DB.PingContext(f.Ctx) == nil && cachedpg.StatsOf(f.DB).Feed.LeftOut == "" })
		follows(f, f.Via)
		f.Known(odd, 1).Is("4 8")
		f.Past("UPDATE odd SET n = n + 1")
		heard(f)
		f.Miss(odd, 1).Is("5 10")
	})
}

// What PostgreSQL refuses though it was set up is told, and no reason not to cache.
func TestPingNamesTablesWhoseUpdateIsRefused(t *testing.T) {
	t.Parallel()
	f := newFed(t, fedPeople)
	conn := f.Conn(f.Plain)
	// A session that lets no trigger fire, as a superuser may do it.
	for _, sql := range []string{"ALTER EVENT TRIGGER cachedpg_ddl DISABLE", "ALTER TABLE users REPLICA IDENTITY NOTHING", "ALTER EVENT TRIGGER cachedpg_ddl ENABLE ALWAYS"} {
		if _, err := conn.ExecContext(f.Ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	f.Until("Ping to tell", func() bool {
		err := f.DB.PingContext(f.Ctx)
		return err != nil && strings.Contains(err.Error(), "PostgreSQL refuses UPDATE and DELETE of users")
	})
	f.Past(cachedpg.WALSetupSQL)
	f.Until("Ping to be content", func() bool { return f.DB.PingContext(f.Ctx) == nil })
	f.Past("UPDATE users SET city = 'Bergen' WHERE id = 1")
}

// Follow ends when what it needs is altered.
func TestFollowEndsWhenThePublicationIsAltered(t *testing.T) {
	t.Parallel()
	f := newFed(t, fedPeople)
	done := make(chan error, 1)
	started := make(chan struct{}, 1)
	go func() {
		done <- cachedpg.Follow(f.Ctx, f.DB, invalidation.SinkFunc(func(context.Context, []invalidation.Event) error {
			select {
			case started <- struct{}{}:
			default:
			}
			return nil
		}))
	}()
	<-started
	f.Past("ALTER PUBLICATION cachedpg SET (publish = 'insert')")
	var wrong *walfeed.ConfigError
	if err := <-done; !errors.As(err, &wrong) {
		t.Errorf("got error %v", err)
	}
}

// A role that owns nothing but its own tables changes the schema as before, also what
// others own; it may not call the functions, and can dump what setup has made.
func TestSetupIsNotInTheWayOfARoleThatOwnsLittle(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	role := fmt.Sprintf("cachedpg_little_%d", time.Now().UnixNano())
	pgtest.Exec(t, database, "CREATE ROLE "+role+" LOGIN; CREATE SCHEMA own AUTHORIZATION "+role+`;
		SET ROLE `+role+`; CREATE TYPE own.mood AS ENUM ('ok'); RESET ROLE;
		CREATE TABLE theirs (m own.mood, id int, PRIMARY KEY (m, id)); INSERT INTO theirs VALUES ('ok', 1)`)
	t.Cleanup(func() { pgtest.Exec(t, database, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	pgtest.Exec(t, database, cachedpg.WALSetupSQL)
	pgtest.Exec(t, strings.Replace(database, "postgres@", role+"@", 1), `
		CREATE TABLE own.loose (id int PRIMARY KEY DEFERRABLE, n int); INSERT INTO own.loose VALUES (1, 1); UPDATE own.loose SET n = 2;
		ALTER TABLE own.loose DROP CONSTRAINT loose_pkey; UPDATE own.loose SET n = 3; ALTER TABLE own.loose ADD PRIMARY KEY (id); DELETE FROM own.loose;
		DROP TYPE own.mood CASCADE;
		LOCK TABLE cachedpg.identities IN ACCESS SHARE MODE; SELECT * FROM cachedpg.identities`)
	pgtest.Exec(t, database, "UPDATE theirs SET id = 2")
	for _, call := range []string{"cachedpg.look(NULL, true)", "cachedpg.look(NULL, false)", "cachedpg.publish(true)"} {
		_, err := pgtest.Connect(t, strings.Replace(database, "postgres@", role+"@", 1)).Exec(t.Context(), "SELECT "+call)
		if err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: got error %v, want that it is not permitted", call, err)
		}
	}
}

// A table that a transaction has made before the setup, and commits after it, is
// looked at too.
func TestSetupLooksAgainAtWhatWasOpen(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
	defer cancel()
	f := &harness.Fixture{T: t, Ctx: ctx}
	db := f.Open("pgx", database)
	f.Via = harness.Via{F: f, DB: db, Ask: db, Truth: db}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "CREATE TABLE late (id int); INSERT INTO late VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cachedpg.SetupWAL(ctx, db) }()
	f.Until("the publication", func() bool {
		return f.Read(db, "SELECT count(*)::text FROM pg_publication", nil).String() == "1"
	})
	f.Commit(tx)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, database, "UPDATE late SET id = 2")
}

// RemoveWAL ends the feeds of processes that are there still.
func TestRemovedWhileItIsFollowed(t *testing.T) {
	t.Parallel()
	f := newFed(t, fedPeople)
	f.Known(harness.UserByID, 1)
	for range 2 {
		if err := cachedpg.RemoveWAL(f.Ctx, f.Plain); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.Read(f.Plain, "SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database()", nil).String(); got != "0" {
		t.Errorf("%s slots are left", got)
	}
	f.Until("Ping to tell", func() bool {
		err := f.DB.PingContext(f.Ctx)
		return err != nil && strings.Contains(err.Error(), "there is no publication cachedpg")
	})
	f.Bypass(keying.FeedDown, harness.UserByID, 1)
	f.Past(cachedpg.WALSetupSQL)
	follows(f, f.Via)
	f.Known(harness.UserByID, 1)
}

// Keys of which the log does not tell all columns are invalidated as a whole.
func TestFeedInvalidatesRowsOfOddTables(t *testing.T) {
	const setup = `
		CREATE TABLE gen (id int, v int, g int GENERATED ALWAYS AS (id + 1) STORED, PRIMARY KEY (id, g));
		INSERT INTO gen VALUES (1, 1), (2, 1);
		CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, v int);
		INSERT INTO late VALUES (1, 1), (2, 1);
		CREATE TABLE chosen (id int PRIMARY KEY, u int NOT NULL, v int);
		CREATE UNIQUE INDEX chosen_u ON chosen (u);
		ALTER TABLE chosen REPLICA IDENTITY USING INDEX chosen_u;
		INSERT INTO chosen VALUES (1, 10, 1), (2, 20, 1);
		CREATE TABLE kept (id int PRIMARY KEY, v int);
		ALTER TABLE kept REPLICA IDENTITY NOTHING;
		INSERT INTO kept VALUES (1, 1), (2, 1);`
	fed(t, setup, func(f *harness.Fixture) {
		for _, q := range []string{"SELECT v FROM gen WHERE id = $1 AND g = 2", "SELECT v FROM late WHERE id = $1", "SELECT v FROM chosen WHERE id = $1",
			"SELECT v FROM chosen WHERE u = 10 AND id = $1", "SELECT v FROM kept WHERE id = $1"} {
			f.Known(q, 1)
			f.Past("UPDATE gen SET v = v + 1 WHERE id = 1; UPDATE late SET v = v + 1 WHERE id = 1; UPDATE chosen SET v = v + 1 WHERE id = 1; UPDATE kept SET v = v + 1 WHERE id = 1")
			heard(f)
			f.Miss(q, 1)
		}
		f.Known("SELECT v FROM chosen WHERE id = $1", 1)
		f.Past("DROP INDEX chosen_u")
		heard(f)
		f.Caches("SELECT v FROM chosen WHERE id = $1", 1) // when the catalog has been loaded again
		f.Past("UPDATE chosen SET v = 7 WHERE id = 1")
		heard(f)
		f.Miss("SELECT v FROM chosen WHERE id = $1", 1).Is("7")
	})
}
