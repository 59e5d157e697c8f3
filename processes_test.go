package cachedpg

import (
	"database/sql/driver"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

func (v via) keeper() *keeper { return connectorOf(v.db).space().keeper }

func TestAWriteInOneProcessIsSeenByTheOther(t *testing.T) {
	shared(t, people, func(f *fixture) {
		other := f.process("other")
		f.warm(userByID, 1) // what this process finds there, the other does too
		other.hit(userByID, 1).is("1 ann Oslo")
		other.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		other.released()
		f.warm(userByID, 1).is("1 ann Bergen")
		other.hit(userByID, 1)

		f.warm(userByID, 2)
		tx, err := other.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		other.on(tx).exec("DELETE FROM users WHERE id = 1")
		f.hit(userByID, 1)
		f.commit(tx)
		other.released()
		f.miss(userByID, 1).is("")
		f.hit(userByID, 2)
	})
}

// A statement that commits by itself behaves as with pgx, though it runs in a
// transaction of the driver's own.
func TestAnAutocommitStatementBehavesAsWithPgx(t *testing.T) {
	const setup = people + `
		CREATE TABLE parents (id int PRIMARY KEY);
		CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
		CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO parents VALUES (100); COMMIT; INSERT INTO parents VALUES (101); END $$;`
	scenario(t, setup, func(f *fixture) {
		insert := "INSERT INTO users VALUES ($1, $2, NULL) RETURNING id, name"
		f.runs(keying.NotRead, insert, 10, "dan").is("10 dan")
		var id int
		if err := f.db.QueryRowContext(f.ctx, insert, 11, "eve").Scan(&id, new(string)); err != nil || id != 11 {
			f.Errorf("QueryRow: %d, %v", id, err)
		}
		f.fresh("SELECT count(*) FROM users").is("5")

		for _, query := range []string{
			"INSERT INTO users VALUES (1, 'x', NULL)",
			"INSERT INTO users VALUES (1, 'x', NULL) RETURNING id",
			"INSERT INTO children VALUES (1, 7)", // found out at COMMIT
			"INSERT INTO children VALUES (1, 7) RETURNING id",
			"UPDATE users SET nothing = 1",
			"UPDATE nowhere SET nothing = 1",
			"UPDATE users SET",
		} {
			_, got := f.db.ExecContext(f.ctx, query)
			_, want := f.plain.ExecContext(f.ctx, query)
			sameError(f.T, got, want)
			if strings.Contains(query, "RETURNING") {
				f.fails(query)
			}
		}
		if n, err := f.exec("UPDATE users SET city = 'Rome' WHERE id > $1", 9).RowsAffected(); n != 2 || err != nil {
			f.Errorf("%d rows affected, %v, want 2", n, err)
		}
		if n, err := f.exec("UPDATE users SET city = 'Rome' WHERE id > 1000").RowsAffected(); n != 0 || err != nil {
			f.Errorf("%d rows affected, %v, want 0", n, err)
		}

		// What PostgreSQL refuses inside a transaction runs outside of one.
		f.known("SELECT count(*) FROM parents")
		f.exec("CREATE INDEX CONCURRENTLY users_city ON users (city)")
		f.exec("VACUUM users")
		f.exec("CALL twice()")
		f.fresh("SELECT count(*) FROM parents").is("2")
		const locks = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND classid = 1667326824 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
		if got := f.read(f.plain, locks, nil).String(); got != "0" {
			f.Errorf("%s advisory locks were left behind", got)
		}
	})
}

// I4, I8: whoever meets the intent of a writer that fell silent asks
// PostgreSQL, and only its answer ends the intent.
func TestTheIntentsOfADeadWriterAreResolved(t *testing.T) {
	shared(t, people, func(f *fixture) {
		conn := pgtest.Connect(f.T, f.dsn)
		kill := func(prepare bool, end string) {
			f.T.Helper()
			f.known(userByID, 1)
			tx, err := conn.Begin(f.ctx)
			if err != nil {
				f.Fatal(err)
			}
			var xid uint64
			if err := tx.QueryRow(f.ctx, "UPDATE users SET city = city || '!' WHERE id = 1 RETURNING pg_current_xact_id()::text::int8").Scan(&xid); err != nil {
				f.Fatal(err)
			}
			tags := f.tagsOf(userByID, 1)
			if _, err := f.keeper().store.Mark(f.ctx, store.NewTransactionWriter(xid), tags, f.catalog()); err != nil {
				f.Fatal(err)
			}
			// Longer than a sweep needs to look at the writer twice.
			for until := time.Now().Add(suspectAfter + 2*renewEvery); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
				f.bypass(keying.DirtyTag, userByID, 1)
			}
			if prepare {
				if _, err := conn.Exec(f.ctx, "PREPARE TRANSACTION '"+f.T.Name()+"'"); err != nil {
					f.Fatal(err)
				}
				f.bypass(keying.DirtyTag, userByID, 1)
				f.exec(end + " PREPARED '" + f.T.Name() + "'")
			} else if _, err := conn.Exec(f.ctx, end); err != nil {
				f.Fatal(err)
			}
			f.until("the result to be cached again", func() bool {
				before := StatsOf(f.db).Hits
				f.fresh(userByID, 1)
				return StatsOf(f.db).Hits > before
			})
		}
		kill(false, "COMMIT")
		kill(false, "ROLLBACK")
		kill(true, "COMMIT")
		kill(true, "ROLLBACK")
		f.fresh(userByID, 1).is("1 ann Oslo!!")
	})
}

// tagsOf are the tags that a query depends on whatever its result.
func (f *fixture) tagsOf(query string, args ...any) []store.Tag {
	f.Helper()
	d := connectorOf(f.db)
	f.until("a catalog", func() bool { known := d.known.Load(); return known != nil && known.view != nil })
	known := d.known.Load()
	text := d.plan(known.view, known.session, query)
	values := keying.Values{Literals: text.literals}
	for i, arg := range args {
		values.Args = append(values.Args, sqlValue(i+1, arg))
	}
	tags, always, _ := text.plan.ReadTags(nil, values)
	return tags[1:always] // without the schema
}

func (f *fixture) catalog() store.Stamp { return connectorOf(f.db).space().view.Load().catalog }

// A DDL in one process is noticed by the plans of all.
func TestASchemaChangeInOneProcessReachesTheOther(t *testing.T) {
	shared(t, people, func(f *fixture) {
		other := f.process("other")
		// Without the statement caches of pgx, which the change breaks as always.
		v := f.process("third", "default_query_exec_mode=exec")
		v.truth = f.open("pgx", withKey(f.dsn, "default_query_exec_mode", "exec"))
		v.warm("SELECT * FROM users WHERE id = 1")
		v.hit("SELECT * FROM users WHERE id = 1")
		other.exec("ALTER TABLE users ADD COLUMN age int DEFAULT 7")
		other.released()
		v.miss("SELECT * FROM users WHERE id = 1").is("1 ann Oslo 7")

		// A write that was planned with the catalog from before.
		_, tx := f.begin(nil)
		f.on(tx).exec("DELETE FROM users WHERE id = 2")
		other.exec("CREATE TABLE pets (id int PRIMARY KEY, owner int)")
		f.commit(tx)
		f.released()
		other.fresh("SELECT count(*) FROM users").is("2")

		// A foreign key that the other process does not know of takes rows along.
		f.exec("CREATE TABLE cities (name text PRIMARY KEY)")
		f.exec("INSERT INTO cities VALUES ('Oslo')")
		f.exec("CREATE TABLE shops (id int PRIMARY KEY, city text)")
		f.exec("INSERT INTO shops VALUES (1, 'Oslo')")
		f.released()
		other.known("SELECT count(*) FROM cities")
		f.exec("ALTER TABLE shops ADD FOREIGN KEY (city) REFERENCES cities ON DELETE CASCADE")
		f.released()
		f.known("SELECT count(*) FROM shops").is("1")
		other.exec("DELETE FROM cities")
		other.released()
		f.fresh("SELECT count(*) FROM shops").is("0")
	})
}

// What goes through the pgx connection outside of a transaction cannot be given
// one: it invalidates more.
func TestTheConnectionUnderneathInvalidatesForAll(t *testing.T) {
	shared(t, people, func(f *fixture) {
		other := f.process("other")
		const count = "SELECT count(*) FROM users"
		other.known(count).is("3")
		f.raw(func(conn *pgx.Conn) error {
			_, err := conn.CopyFrom(f.ctx, pgx.Identifier{"users"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{8, "copied"}, {9, "too"}}))
			return err
		})
		f.released()
		other.miss(count).is("5")
		other.warm(userByID, 1)
		f.raw(func(conn *pgx.Conn) error {
			tx, err := conn.Begin(f.ctx)
			if err != nil {
				return err
			}
			batch := &pgx.Batch{}
			batch.Queue("UPDATE users SET name = 'eight' WHERE id = 8")
			batch.Queue("UPDATE users SET name = 'nine' WHERE id = 9")
			if err := tx.SendBatch(f.ctx, batch).Close(); err != nil {
				return err
			}
			return tx.Commit(f.ctx)
		})
		f.released()
		other.fresh("SELECT name FROM users WHERE id > 7 ORDER BY id").is("eight, nine")
		other.hit(userByID, 1)
	})
}

// Two plans that differ only in the cached catalog's age do not keep each other
// from caching: DDL settles down.
func TestTransactionsAcrossADDLSettleDown(t *testing.T) {
	shared(t, people, func(f *fixture) {
		other := f.process("other")
		f.exec("CREATE TABLE a (id int PRIMARY KEY)")
		for i := range 4 { // each with a transaction of the other open
			_, tx := f.begin(nil)
			f.on(tx).exec("UPDATE users SET name = name || 'x' WHERE id = 1")
			otherTx, err := other.db.BeginTx(f.ctx, nil)
			if err != nil {
				f.Fatal(err)
			}
			other.on(otherTx).exec("UPDATE users SET name = name || 'y' WHERE id = 2")
			if i == 0 {
				f.exec("CREATE TABLE b (id int PRIMARY KEY)")
			}
			f.commit(tx)
			f.released()
			f.commit(otherTx)
			other.released()
		}
		f.known(userByID, 3)
		_, tx := f.begin(nil)
		f.on(tx).exec("UPDATE users SET name = 'z' WHERE id = 1")
		f.commit(tx)
		f.released()
		f.hit(userByID, 3)
		other.hit(userByID, 3)
	})
}

// A stampede on one key is one SELECT, whatever the number of processes.
func TestManyProcessesMissingOneKeyRunOneSelect(t *testing.T) {
	const slow = "SELECT count(*) FROM generate_series(1, 300000) a, users WHERE id = $1"
	shared(t, people, func(f *fixture) {
		var vias []via
		for i := range 4 {
			v := f.process(fmt.Sprint("process ", i))
			v.db.SetMaxOpenConns(8)
			v.known(userByID, 1+i%3) // planned, dialled
			vias = append(vias, v)
		}
		start := make(chan struct{})
		var done sync.WaitGroup
		for i := range 200 {
			v := vias[i%len(vias)]
			done.Go(func() {
				<-start
				var n int
				if err := v.db.QueryRowContext(f.ctx, slow, 1).Scan(&n); err != nil || n != 300000 {
					t.Errorf("got %d, %v", n, err)
				}
			})
		}
		close(start)
		done.Wait()
		var fills, joined uint64
		for _, v := range vias {
			s := StatsOf(v.db)
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

// Eventual consistency marks nothing and invalidates after the commit.
func TestEventualConsistencyInvalidatesAfterTheCommit(t *testing.T) {
	shared(t, people, func(f *fixture) {
		writer := f.process("writer", "cache_consistency=eventual")
		f.known(userByID, 1)
		writer.exec("UPDATE users SET city = 'Bergen' WHERE id = 1")
		writer.released()
		f.miss(userByID, 1).is("1 ann Bergen")
		tx, err := writer.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		writer.on(tx).exec("UPDATE users SET city = 'Tromsø' WHERE id = 1")
		f.hit(userByID, 1)
		f.commit(tx)
		writer.released()
		f.miss(userByID, 1).is("1 ann Tromsø")
		if n := connectorOf(writer.db).space().writes.Stats().Intents; n != 0 {
			f.Errorf("%d intents, want none", n)
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
	shared(t, setup, func(f *fixture) {
		const byID = "SELECT name FROM public.users WHERE id = $1"
		through := withKey(pgtest.PgbouncerTo(f.T, f.dsn, "transaction"), "default_query_exec_mode", "exec")
		direct := f.process("direct")
		config, err := pgx.ParseConfig(through)
		if err != nil {
			f.Fatal(err)
		}
		p := redistest.Proxy(f.T, net.JoinHostPort(config.Host, fmt.Sprint(config.Port)))
		host, port, _ := net.SplitHostPort(p.Addr())
		pooled := *f
		pooled.dsn = withKey(withKey(through, "host", host), "port", port)
		pooled.plain = f.open("pgx", through)
		v := pooled.process("pooled")
		v.db.SetMaxOpenConns(4)

		v.known(byID, 1).is("ann")
		direct.known(byID, 1)
		v.exec("UPDATE public.users SET name = 'anna' WHERE id = $1", 1)
		v.released()
		direct.miss(byID, 1).is("anna")
		v.known(byID, 1).is("anna")
		v.runs(keying.NotRead, "UPDATE public.users SET name = 'anne' WHERE id = $1 RETURNING name", 1).is("anne")
		v.released()
		direct.known(byID, 1).is("anne")
		tx, err := v.db.BeginTx(f.ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		v.on(tx).exec("UPDATE public.users SET name = 'ann' WHERE id = $1", 1)
		f.commit(tx)
		v.released()
		direct.known(byID, 1).is("ann")
		v.exec("CREATE TABLE public.pets (id int)")
		v.released()
		direct.fresh("SELECT count(*) FROM public.pets").is("0")

		// The answer to COMMIT is lost: only its id tells what became of it.
		const gated = "SELECT name FROM public.gated WHERE id = 2"
		direct.known(gated).is("bob")
		if tx, err = v.db.BeginTx(f.ctx, nil); err != nil {
			f.Fatal(err)
		}
		v.on(tx).exec("UPDATE public.gated SET name = 'bobby' WHERE id = 2")
		g := f.closeGate()
		lost := make(chan error, 1)
		go func() { lost <- tx.Commit() }()
		g.await(1)
		p.CutReplies()
		g.open()
		f.until("the commit", func() bool { return f.read(f.plain, gated, nil).String() == "bobby" })
		direct.fresh(gated).is("bobby")
		p.Drop()
		if err := <-lost; err == nil {
			f.Error("the answer to COMMIT was not lost")
		}
		p.Restore()
		direct.again(gated).is("bobby")
		v.again(byID, 2).is("bob")
	})
}

func TestEarlyRefreshIsLikelierTowardsTheEnd(t *testing.T) {
	const took = time.Second
	for _, tc := range []struct {
		left time.Duration
		want float64
	}{
		{-time.Second, 1}, {0, 1}, {took / 10, math.Exp(-0.1)}, {took, math.Exp(-1)}, {3 * took, math.Exp(-3)}, {41 * took, 0}, {time.Hour, 0},
	} {
		const n = 10000
		due := 0
		for i := range n { // evenly, so that the count is what it should be
			if dueEarly(tc.left, took, func() float64 { return (float64(i) + 0.5) / n }) {
				due++
			}
		}
		if got := float64(due) / n; math.Abs(got-tc.want) > 0.001 {
			t.Errorf("%v before the end: %.3f of the hits refresh, want %.3f", tc.left, got, tc.want)
		}
	}
}

// An entry that is asked for all the time is refreshed before it expires: no
// reader finds it gone.
func TestAHotEntryIsRefreshedEarly(t *testing.T) {
	const slow = "SELECT count(*) FROM generate_series(1, 200000) a, users WHERE id = $1"
	shared(t, people, func(f *fixture) {
		hot := f.process("hot", "cache_ttl=1s")
		hot.known(slow, 1)
		before := StatsOf(hot.db)
		hot.stays(3*time.Second, func() { hot.read(hot.ask, slow, []any{1}) })
		after := StatsOf(hot.db)
		if after.Refreshed == before.Refreshed {
			f.Errorf("no hit refreshed the entry: %d misses, %d hits", after.Misses-before.Misses, after.Hits-before.Hits)
		}
	})
}

func sqlValue(ordinal int, v any) driver.NamedValue {
	if n, ok := v.(int); ok {
		v = int64(n)
	}
	return driver.NamedValue{Ordinal: ordinal, Value: v}
}
