package connections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
)

// tracedPool returns a pool with tracers, and a cachedpg DB over it.
func tracedPool(f *harness.Fixture, t *cachedpg.Tracer, tracer pgx.QueryTracer) (*pgxpool.Pool, harness.Via) {
	f.Helper()
	config := f.PoolConfig()
	config.ConnConfig.Tracer = tracer
	config.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(f.Ctx, config)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(pool.Close)
	return pool, overPool(f, pool, t)
}

// overPool returns a cachedpg DB over the pool.
func overPool(f *harness.Fixture, pool *pgxpool.Pool, tracers ...*cachedpg.Tracer) harness.Via {
	f.Helper()
	_, own, err := cachedpg.ParseConfig(harness.WithKeys(f.DSN, f.Keys))
	if err != nil {
		f.Fatal(err)
	}
	connector, err := cachedpg.WrapConnector(stdlib.GetPoolConnector(pool), own, tracers...)
	if err != nil {
		f.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(0)
	f.Cleanup(func() { db.Close() })
	return f.Asking(db)
}

const cities = harness.People + `
	CREATE TABLE log (id int);
	CREATE FUNCTION rename(which int, to_name text) RETURNS int LANGUAGE sql AS 'UPDATE users SET name = to_name WHERE id = which RETURNING id';`

// entries are the ways to write on a pool. Each changes the name of user 1.
var entries = []struct {
	name  string
	write func(ctx context.Context, pool *pgxpool.Pool, name string) error
}{
	{"Exec", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		_, err := pool.Exec(ctx, "UPDATE users SET name = $1 WHERE id = 1", name)
		return err
	}},
	{"Exec without arguments", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		_, err := pool.Exec(ctx, "UPDATE users SET name = '"+name+"' WHERE id = 1")
		return err
	}},
	{"Exec of two statements", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		_, err := pool.Exec(ctx, "INSERT INTO log VALUES (1); UPDATE users SET name = '"+name+"' WHERE id = 1")
		return err
	}},
	{"Exec with named arguments", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		_, err := pool.Exec(ctx, "UPDATE users SET name = @name WHERE id = @id", pgx.NamedArgs{"name": name, "id": 1})
		return err
	}},
	{"Query", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		rows, err := pool.Query(ctx, "UPDATE users SET name = $1 WHERE id = 1 RETURNING id", name)
		if err != nil {
			return err
		}
		_, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	}},
	{"Query of a function", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		rows, err := pool.Query(ctx, "SELECT rename(1, $1)", name)
		if err != nil {
			return err
		}
		_, err = pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	}},
	{"QueryRow", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		var id int
		return pool.QueryRow(ctx, "UPDATE users SET name = $1 WHERE id = 1 RETURNING id", name).Scan(&id)
	}},
	{"SendBatch", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		batch := &pgx.Batch{}
		batch.Queue("SELECT 1")
		batch.Queue("UPDATE users SET name = $1 WHERE id = 1", name)
		return pool.SendBatch(ctx, batch).Close()
	}},
	{"CopyFrom", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		if _, err := pool.Exec(ctx, "DELETE FROM users WHERE id = 1"); err != nil {
			return err
		}
		_, err := pool.CopyFrom(ctx, pgx.Identifier{"users"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{int32(1), name}}))
		return err
	}},
	{"Begin", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE users SET name = $1 WHERE id = 1", name)
		return errors.Join(err, tx.Commit(ctx))
	}},
	{"BeginTx", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
			return pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error { // a savepoint
				_, err := savepoint.Exec(ctx, "UPDATE users SET name = $1 WHERE id = 1", name)
				return err
			})
		})
	}},
	{"BEGIN and COMMIT by Exec", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		return pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			_, begin := conn.Exec(ctx, "BEGIN")
			_, write := conn.Exec(ctx, "UPDATE users SET name = $1 WHERE id = 1", name)
			_, commit := conn.Exec(ctx, "COMMIT")
			return errors.Join(begin, write, commit)
		})
	}},
	{"Exec of a prepared name", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		return pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			_, err := conn.Conn().Prepare(ctx, "change", "UPDATE users SET name = $1 WHERE id = 1")
			_, write := conn.Exec(ctx, "change", name)
			return errors.Join(err, write)
		})
	}},
	{"SendBatch of a prepared name", func(ctx context.Context, pool *pgxpool.Pool, name string) error {
		return pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			_, err := conn.Conn().Prepare(ctx, "change", "UPDATE users SET name = $1 WHERE id = 1")
			batch := &pgx.Batch{}
			batch.Queue("change", name)
			return errors.Join(err, conn.SendBatch(ctx, batch).Close())
		})
	}},
}

func TestWritesOnAPoolInvalidate(t *testing.T) {
	harness.Scenario(t, cities, func(f *harness.Fixture) {
		t := cachedpg.NewTracer()
		pool, db := tracedPool(f, t, t)
		if !f.InMemory() {
			f.Live(db.DB)
		}
		const query = "SELECT name FROM users WHERE id = $1"
		for _, entry := range entries {
			if f.Mode() == pgx.QueryExecModeSimpleProtocol && entry.name == "SendBatch of a prepared name" {
				continue // pgx sends the name as a text there
			}
			db.Known(query, 1)
			if err := entry.write(f.Ctx, pool, entry.name); err != nil {
				f.Errorf("%s: %v", entry.name, err)
			}
			db.Fresh(query, 1).Is(entry.name)
			db.Known(query, 1).Is(entry.name)
		}
	})
}

// spectator counts what a tracer of the caller's own is told of.
type spectator struct{ queries int }

func (c *spectator) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.queries++
	return ctx
}

func (c *spectator) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestWritesOnAPoolInvalidateWhatTheyChangeAndNoMore(t *testing.T) {
	harness.ScenarioInMemory(t, cities, func(f *harness.Fixture) {
		t, own := cachedpg.NewTracer(), &spectator{}
		pool, db := tracedPool(f, t, multitracer.New(t, own))
		const query = "SELECT name FROM users WHERE id = $1"
		db.Known(query, 1)
		db.Known(query, 2)
		entries[0].write(f.Ctx, pool, "ann 2")
		db.Hit(query, 2)
		db.Miss(query, 1).Is("ann 2")
		if own.queries == 0 {
			f.Error("the caller's own tracer was not called")
		}

		conn, err := pool.Acquire(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		defer conn.Release()
		if _, err := conn.Conn().Prepare(f.Ctx, "change", "UPDATE users SET name = $1 WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		if _, err := conn.Conn().Prepare(f.Ctx, "look", "SELECT city FROM users WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		db.Hit(query, 1)
		var city string
		if err := conn.QueryRow(f.Ctx, "look").Scan(&city); err != nil {
			f.Fatal(err)
		}
		db.Hit(query, 1)
		if _, err := conn.Exec(f.Ctx, "change", "ann 3"); err != nil {
			f.Fatal(err)
		}
		db.Hit(query, 2)
		db.Miss(query, 1).Is("ann 3")

		tx, err := conn.Begin(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := tx.Exec(f.Ctx, "UPDATE users SET name = 'ann 4' WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		db.Hit(query, 1).Is("ann 3")
		if err := tx.Rollback(f.Ctx); err != nil {
			f.Fatal(err)
		}
		db.Hit(query, 1).Is("ann 3")

		// What is done with a lent connection is the tracer's business again.
		err = cachedpg.PgxConn(f.Ctx, f.Conn(db.DB), func(conn *pgx.Conn) error {
			db.Hit(query, 2)
			_, err := conn.Exec(f.Ctx, "UPDATE users SET name = 'ann 5' WHERE id = 1")
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		db.Hit(query, 2)
		db.Miss(query, 1).Is("ann 5")
	})
}

// The DB has no connection yet when the pool writes, or has none any more; others have results.
func TestWritesOnAPoolInvalidateWithoutAConnectionOfTheDB(t *testing.T) {
	harness.Scenario(t, cities, func(f *harness.Fixture) {
		t := cachedpg.NewTracer()
		const query = "SELECT name FROM users WHERE id = $1"
		pool, db := tracedPool(f, t, t)
		f.Known(query, 1)
		if err := entries[0].write(f.Ctx, pool, "first"); err != nil {
			f.Fatal(err)
		}
		f.Fresh(query, 1).Is("first")
		f.Known(query, 1)
		if err := db.DB.Close(); err != nil {
			f.Fatal(err)
		}

		again := overPool(f, pool, t)
		tx := writesIn(f, pool, "UPDATE users SET name = 'second' WHERE id = 1")
		f.Known(query, 1).Is("first")
		if err := tx.Commit(f.Ctx); err != nil {
			f.Fatal(err)
		}
		f.Fresh(query, 1).Is("second")
		again.Known(query, 1).Is("second")
	})
}

// writesIn returns a transaction of the pool that has written and is not over.
func writesIn(f *harness.Fixture, pool *pgxpool.Pool, sql string) pgx.Tx {
	f.Helper()
	tx, err := pool.Begin(f.Ctx)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(f.Ctx)) })
	if _, err := tx.Exec(f.Ctx, sql); err != nil {
		f.Fatal(err)
	}
	return tx
}

// The transaction was begun, and has written, before there was a DB.
func TestATransactionThatIsOlderThanTheDBInvalidatesAtItsCommit(t *testing.T) {
	harness.ScenarioInMemory(t, cities, func(f *harness.Fixture) {
		const query = "SELECT name FROM users WHERE id = $1"
		f.Known(query, 1)
		t := cachedpg.NewTracer()
		config := f.PoolConfig()
		config.ConnConfig.Tracer = t
		pool, err := pgxpool.NewWithConfig(f.Ctx, config)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(pool.Close)
		tx := writesIn(f, pool, "UPDATE users SET name = 'old' WHERE id = 1")
		db := overPool(f, pool, t)
		f.Hit(query, 1).Is("ann")
		if err := tx.Commit(f.Ctx); err != nil {
			f.Fatal(err)
		}
		f.Fresh(query, 1).Is("old")
		db.Known(query, 1).Is("old")
	})
}

// pool                             DB
// UPDATE … RETURNING, rows open
//
//	SELECT → PostgreSQL
//
// rows end
func TestNothingIsAnsweredFromTheCacheWhileAPoolsWriteIsUnderWay(t *testing.T) {
	harness.Scenario(t, cities, func(f *harness.Fixture) {
		t := cachedpg.NewTracer()
		pool, db := tracedPool(f, t, t)
		if !f.InMemory() {
			f.Live(db.DB)
		}
		const query = "SELECT name FROM users WHERE id = $1"
		db.Known(query, 1)
		rows, err := pool.Query(f.Ctx, "UPDATE users SET name = 'new' WHERE id = 1 RETURNING id")
		if err != nil {
			f.Fatal(err)
		}
		before := cachedpg.StatsOf(db.DB).Hits
		if r := db.Read(db.Ask, query, []any{1}); r.Err != nil {
			f.Error(r.Err)
		}
		if got := cachedpg.StatsOf(db.DB).Hits - before; got != 0 {
			f.Errorf("got %d hits while the write was under way, want 0", got)
		}
		rows.Close()
		db.Fresh(query, 1).Is("new")
		db.Known(query, 1)

		// A connection that ends in the middle: PostgreSQL says what became of it.
		conn, err := pool.Acquire(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := conn.Query(f.Ctx, "UPDATE users SET name = 'newer' WHERE id = 1 RETURNING id"); err != nil {
			f.Fatal(err)
		}
		conn.Release() // with its rows open, so the pool closes it
		f.Until("PostgreSQL's answer", func() bool {
			return cachedpg.StatsOf(db.DB).Unresolved == 0 && pool.Stat().AcquiredConns() == 0
		})
		db.Fresh(query, 1)
		f.Until("a hit", func() bool {
			before := cachedpg.StatsOf(db.DB).Hits
			db.Fresh(query, 1)
			return cachedpg.StatsOf(db.DB).Hits > before
		})
	})
}

// The session is the connection's, whoever has set it.
func TestSettingsOfAPoolsConnectionAreSeen(t *testing.T) {
	harness.ScenarioInMemory(t, cities, func(f *harness.Fixture) {
		t := cachedpg.NewTracer()
		pool, db := tracedPool(f, t, t)
		other := fmt.Sprintf("other_%d", f.Mode())
		f.Past("CREATE SCHEMA " + other)
		f.Past("CREATE TABLE " + other + ".users AS TABLE users")
		const query = "SELECT name FROM users WHERE id = $1"
		db.Known(query, 1)
		err := pool.AcquireFunc(f.Ctx, func(conn *pgxpool.Conn) error {
			_, set := conn.Exec(f.Ctx, "SET search_path = "+other)
			_, write := conn.Exec(f.Ctx, "UPDATE users SET name = 'other' WHERE id = 1")
			return errors.Join(set, write)
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Hit(query, 1).Is("ann")
		if _, err := pool.Exec(f.Ctx, "RESET search_path"); err != nil {
			f.Fatal(err)
		}
		entries[0].write(f.Ctx, pool, "mine")
		db.Fresh(query, 1).Is("mine")
	})
}
