package outages

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
)

func TestAWriteInOneProcessIsSeenByTheOther(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		other := f.Process("other")
		f.Warm(harness.UserByID, 1) // what this process finds there, the other does too
		other.Hit(harness.UserByID, 1).Is("1 ann Oslo")
		other.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		other.Released()
		f.Warm(harness.UserByID, 1).Is("1 ann Bergen")
		other.Hit(harness.UserByID, 1)

		f.Warm(harness.UserByID, 2)
		tx, err := other.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		other.On(tx).Exec("DELETE FROM users WHERE id = 1")
		f.Hit(harness.UserByID, 1)
		f.Commit(tx)
		other.Released()
		f.Miss(harness.UserByID, 1).Is("")
		f.Hit(harness.UserByID, 2)
	})
}

// A statement that commits by itself behaves as with pgx, though it runs in a
// transaction of the driver's own.
func TestAnAutocommitStatementBehavesAsWithPgx(t *testing.T) {
	const setup = harness.People + `
		CREATE TABLE parents (id int PRIMARY KEY);
		CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
		CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO parents VALUES (100); COMMIT; INSERT INTO parents VALUES (101); END $$;`
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		insert := "INSERT INTO users VALUES ($1, $2, NULL) RETURNING id, name"
		f.Runs(keying.NotRead, insert, 10, "dan").Is("10 dan")
		var id int
		if err := f.DB.QueryRowContext(f.Ctx, insert, 11, "eve").Scan(&id, new(string)); err != nil || id != 11 {
			f.Errorf("QueryRow: %d, %v", id, err)
		}
		f.Fresh("SELECT count(*) FROM users").Is("5")

		for _, query := range []string{
			"INSERT INTO users VALUES (1, 'x', NULL)",
			"INSERT INTO users VALUES (1, 'x', NULL) RETURNING id",
			"INSERT INTO children VALUES (1, 7)", // found out at COMMIT
			"INSERT INTO children VALUES (1, 7) RETURNING id",
			"UPDATE users SET nothing = 1",
			"UPDATE nowhere SET nothing = 1",
			"UPDATE users SET",
		} {
			_, got := f.DB.ExecContext(f.Ctx, query)
			_, want := f.Plain.ExecContext(f.Ctx, query)
			harness.SameError(f.T, got, want)
			if strings.Contains(query, "RETURNING") {
				f.Fails(query)
			}
		}
		if n, err := f.Exec("UPDATE users SET city = 'Rome' WHERE id > $1", 9).RowsAffected(); n != 2 || err != nil {
			f.Errorf("%d rows affected, %v, want 2", n, err)
		}
		if n, err := f.Exec("UPDATE users SET city = 'Rome' WHERE id > 1000").RowsAffected(); n != 0 || err != nil {
			f.Errorf("%d rows affected, %v, want 0", n, err)
		}

		// What PostgreSQL refuses inside a transaction runs outside of one.
		f.Known("SELECT count(*) FROM parents")
		f.Exec("CREATE INDEX CONCURRENTLY users_city ON users (city)")
		f.Exec("VACUUM users")
		f.Exec("CALL twice()")
		f.Fresh("SELECT count(*) FROM parents").Is("2")
		const locks = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND classid = 1667326824 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
		if got := f.Read(f.Plain, locks, nil).String(); got != "0" {
			f.Errorf("%s advisory locks were left behind", got)
		}
	})
}

// A DDL in one process is noticed by the plans of all.
func TestASchemaChangeInOneProcessReachesTheOther(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		other := f.Process("other")
		// Without the statement caches of pgx, which the change breaks as always.
		v := f.Process("third", "default_query_exec_mode=exec")
		v.Truth = f.Open("pgx", harness.WithKey(f.DSN, "default_query_exec_mode", "exec"))
		v.Warm("SELECT * FROM users WHERE id = 1")
		v.Hit("SELECT * FROM users WHERE id = 1")
		other.Exec("ALTER TABLE users ADD COLUMN age int DEFAULT 7")
		other.Released()
		v.Miss("SELECT * FROM users WHERE id = 1").Is("1 ann Oslo 7")

		// A write that was planned with the catalog from before.
		_, tx := f.Begin(nil)
		f.On(tx).Exec("DELETE FROM users WHERE id = 2")
		other.Exec("CREATE TABLE pets (id int PRIMARY KEY, owner int)")
		f.Commit(tx)
		f.Released()
		other.Fresh("SELECT count(*) FROM users").Is("2")

		// A foreign key that the other process does not know of takes rows along.
		f.Exec("CREATE TABLE cities (name text PRIMARY KEY)")
		f.Exec("INSERT INTO cities VALUES ('Oslo')")
		f.Exec("CREATE TABLE shops (id int PRIMARY KEY, city text)")
		f.Exec("INSERT INTO shops VALUES (1, 'Oslo')")
		f.Released()
		other.Known("SELECT count(*) FROM cities")
		f.Exec("ALTER TABLE shops ADD FOREIGN KEY (city) REFERENCES cities ON DELETE CASCADE")
		f.Released()
		f.Known("SELECT count(*) FROM shops").Is("1")
		other.Exec("DELETE FROM cities")
		other.Released()
		f.Fresh("SELECT count(*) FROM shops").Is("0")
	})
}

// What goes through the pgx connection outside of a transaction cannot be given
// one: it invalidates more.
func TestTheConnectionUnderneathInvalidatesForAll(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		other := f.Process("other")
		const count = "SELECT count(*) FROM users"
		other.Known(count).Is("3")
		outside.Raw(f, func(conn *pgx.Conn) error {
			_, err := conn.CopyFrom(f.Ctx, pgx.Identifier{"users"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{8, "copied"}, {9, "too"}}))
			return err
		})
		f.Released()
		other.Miss(count).Is("5")
		other.Warm(harness.UserByID, 1)
		outside.Raw(f, func(conn *pgx.Conn) error {
			tx, err := conn.Begin(f.Ctx)
			if err != nil {
				return err
			}
			batch := &pgx.Batch{}
			batch.Queue("UPDATE users SET name = 'eight' WHERE id = 8")
			batch.Queue("UPDATE users SET name = 'nine' WHERE id = 9")
			if err := tx.SendBatch(f.Ctx, batch).Close(); err != nil {
				return err
			}
			return tx.Commit(f.Ctx)
		})
		f.Released()
		other.Fresh("SELECT name FROM users WHERE id > 7 ORDER BY id").Is("eight, nine")
		other.Hit(harness.UserByID, 1)
	})
}

// Two plans that differ only in the cached catalog's age do not keep each other
// from caching: DDL settles down.
func TestTransactionsAcrossADDLSettleDown(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		other := f.Process("other")
		f.Exec("CREATE TABLE a (id int PRIMARY KEY)")
		for i := range 4 { // each with a transaction of the other open
			_, tx := f.Begin(nil)
			f.On(tx).Exec("UPDATE users SET name = name || 'x' WHERE id = 1")
			otherTx, err := other.DB.BeginTx(f.Ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			other.On(otherTx).Exec("UPDATE users SET name = name || 'y' WHERE id = 2")
			if i == 0 {
				f.Exec("CREATE TABLE b (id int PRIMARY KEY)")
			}
			f.Commit(tx)
			f.Released()
			f.Commit(otherTx)
			other.Released()
		}
		f.Known(harness.UserByID, 3)
		_, tx := f.Begin(nil)
		f.On(tx).Exec("UPDATE users SET name = 'z' WHERE id = 1")
		f.Commit(tx)
		f.Released()
		f.Hit(harness.UserByID, 3)
		other.Hit(harness.UserByID, 3)
	})
}

// A stampede on one key is one SELECT, whatever the number of processes.
func TestManyProcessesMissingOneKeyRunOneSelect(t *testing.T) {
	const slow = "SELECT count(*) FROM generate_series(1, 300000) a, users WHERE id = $1"
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		var vias []harness.Via
		for i := range 4 {
			v := f.Process(fmt.Sprint("process ", i))
			v.DB.SetMaxOpenConns(8)
			v.Known(harness.UserByID, 1+i%3) // planned, dialled
			vias = append(vias, v)
		}
		start := make(chan struct{})
		var done sync.WaitGroup
		for i := range 200 {
			v := vias[i%len(vias)]
			done.Go(func() {
				<-start
				var n int
				if err := v.DB.QueryRowContext(f.Ctx, slow, 1).Scan(&n); err != nil || n != 300000 {
					t.Errorf("got %d, %v", n, err)
				}
			})
		}
		close(start)
		done.Wait()
		var fills, joined uint64
		for _, v := range vias {
			s := cachedpg.StatsOf(v.DB)
			for _, st := range s.Statements {
				if strings.Contains(st.Text, "generate_series") {
					fills += st.Misses
				}
			}
			joined += s.Joined
		}
		if fills-joined != 1 {
			t.Errorf("%d misses, %d of them joined another's SELECT: %d SELECTs, want 1", fills, joined, fills-joined)
		}
	})
}

// Behind a pooler in transaction mode each transaction may run on another
// backend: everything that must be known later is known by the transaction's id.
func TestTheDriverWorksBehindAPoolerInTransactionMode(t *testing.T) {
	const setup = `
		CREATE TABLE public.users (id int PRIMARY KEY, name text);
		INSERT INTO public.users VALUES (1, 'ann'), (2, 'bob');
		CREATE TABLE public.gated AS TABLE public.users;
		CREATE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON public.gated DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION public.gate()`
	harness.Shared(t, setup, func(f *harness.Fixture) {
		const byID = "SELECT name FROM public.users WHERE id = $1"
		through := harness.WithKey(pgtest.PgbouncerTo(f.T, f.DSN, "transaction"), "default_query_exec_mode", "exec")
		direct := f.Process("direct")
		config, err := pgx.ParseConfig(through)
		if err != nil {
			f.Fatal(err)
		}
		p := redistest.Proxy(f.T, net.JoinHostPort(config.Host, fmt.Sprint(config.Port)))
		host, port, _ := net.SplitHostPort(p.Addr())
		pooled := *f
		pooled.DSN = harness.WithKey(harness.WithKey(through, "host", host), "port", port)
		pooled.Plain = f.Open("pgx", through)
		v := pooled.Process("pooled")
		v.DB.SetMaxOpenConns(4)

		v.Known(byID, 1).Is("ann")
		direct.Known(byID, 1)
		v.Exec("UPDATE public.users SET name = 'anna' WHERE id = $1", 1)
		v.Released()
		direct.Miss(byID, 1).Is("anna")
		v.Known(byID, 1).Is("anna")
		v.Runs(keying.NotRead, "UPDATE public.users SET name = 'anne' WHERE id = $1 RETURNING name", 1).Is("anne")
		v.Released()
		direct.Known(byID, 1).Is("anne")
		tx, err := v.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		v.On(tx).Exec("UPDATE public.users SET name = 'ann' WHERE id = $1", 1)
		f.Commit(tx)
		v.Released()
		direct.Known(byID, 1).Is("ann")
		v.Exec("CREATE TABLE public.pets (id int)")
		v.Released()
		direct.Fresh("SELECT count(*) FROM public.pets").Is("0")

		// The answer to COMMIT is lost: only its id tells what became of it.
		const gated = "SELECT name FROM public.gated WHERE id = 2"
		direct.Known(gated).Is("bob")
		if tx, err = v.DB.BeginTx(f.Ctx, nil); err != nil {
			f.Fatal(err)
		}
		v.On(tx).Exec("UPDATE public.gated SET name = 'bobby' WHERE id = 2")
		g := f.CloseGate()
		lost := make(chan error, 1)
		go func() { lost <- tx.Commit() }()
		g.Await(1)
		p.CutReplies()
		g.Open()
		f.Until("the commit", func() bool { return f.Read(f.Plain, gated, nil).String() == "bobby" })
		direct.Fresh(gated).Is("bobby")
		p.Drop()
		if err := <-lost; err == nil {
			f.Error("the answer to COMMIT was not lost")
		}
		p.Restore()
		direct.Again(gated).Is("bobby")
		v.Again(byID, 2).Is("bob")
	})
}

// An entry that is asked for all the time is refreshed before it expires: no
// reader finds it gone.
func TestAHotEntryIsRefreshedEarly(t *testing.T) {
	const slow = "SELECT count(*) FROM generate_series(1, 200000) a, users WHERE id = $1"
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		hot := f.Process("hot", "cache_ttl=1s")
		hot.Known(slow, 1)
		before := cachedpg.StatsOf(hot.DB)
		hot.Stays(3*time.Second, func() { hot.Read(hot.Ask, slow, []any{1}) })
		after := cachedpg.StatsOf(hot.DB)
		if after.Refreshed == before.Refreshed {
			f.Errorf("no hit refreshed the entry: %d misses, %d hits", after.Misses-before.Misses, after.Hits-before.Hits)
		}
	})
}

// Eventual consistency marks nothing and invalidates after the commit.
func TestEventualConsistencyInvalidatesAfterTheCommit(t *testing.T) {
	harness.Shared(t, harness.People, func(f *harness.Fixture) {
		writer := f.Process("writer", "cache_consistency=eventual")
		f.Known(harness.UserByID, 1)
		writer.Exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		writer.Released()
		f.Miss(harness.UserByID, 1).Is("1 ann Bergen")
		tx, err := writer.DB.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.On(tx).Exec("UPDATE users SET city = 'Tromsø' WHERE id = 1")
		f.Hit(harness.UserByID, 1)
		f.Commit(tx)
		writer.Released()
		f.Miss(harness.UserByID, 1).Is("1 ann Tromsø")
		if n := inside.Writes(writer.DB).Stats().Intents; n != 0 {
			f.Errorf("%d intents, want none", n)
		}
	})
}
