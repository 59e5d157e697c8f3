package cachedpg

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
)

// tracedPool returns a pool with tracers, and a cachedpg DB over it.
func (f *fixture) tracedPool(t *Tracer, tracer pgx.QueryTracer) (*pgxpool.Pool, via) {
	f.Helper()
	config := f.poolConfig()
	config.ConnConfig.Tracer = tracer
	config.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(f.ctx, config)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(pool.Close)
	return pool, f.over(pool, t)
}

// over returns a cachedpg DB over the pool.
func (f *fixture) over(pool *pgxpool.Pool, tracers ...*Tracer) via {
	f.Helper()
	_, own, err := ParseConfig(withKeys(f.dsn, f.keys))
	if err != nil {
		f.Fatal(err)
	}
	connector, err := WrapConnector(stdlib.GetPoolConnector(pool), own, tracers...)
	if err != nil {
		f.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(0)
	f.Cleanup(func() { db.Close() })
	return f.asking(db)
}

const cities = people + `
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
	scenario(t, cities, func(f *fixture) {
		t := NewTracer()
		pool, db := f.tracedPool(t, t)
		if !f.inMemory() {
			f.live(db.db)
		}
		const query = "SELECT name FROM users WHERE id = $1"
		for _, entry := range entries {
			if f.mode() == pgx.QueryExecModeSimpleProtocol && entry.name == "SendBatch of a prepared name" {
				continue // pgx sends the name as a text there
			}
			db.known(query, 1)
			if err := entry.write(f.ctx, pool, entry.name); err != nil {
				f.Errorf("%s: %v", entry.name, err)
			}
			db.fresh(query, 1).is(entry.name)
			db.known(query, 1).is(entry.name)
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
	scenarioInMemory(t, cities, func(f *fixture) {
		t, own := NewTracer(), &spectator{}
		pool, db := f.tracedPool(t, multitracer.New(t, own))
		const query = "SELECT name FROM users WHERE id = $1"
		db.known(query, 1)
		db.known(query, 2)
		entries[0].write(f.ctx, pool, "ann 2")
		db.hit(query, 2)
		db.miss(query, 1).is("ann 2")
		if own.queries == 0 {
			f.Error("the caller's own tracer was not called")
		}

		conn, err := pool.Acquire(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		defer conn.Release()
		if _, err := conn.Conn().Prepare(f.ctx, "change", "UPDATE users SET name = $1 WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		if _, err := conn.Conn().Prepare(f.ctx, "look", "SELECT city FROM users WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		db.hit(query, 1)
		var city string
		if err := conn.QueryRow(f.ctx, "look").Scan(&city); err != nil {
			f.Fatal(err)
		}
		db.hit(query, 1)
		if _, err := conn.Exec(f.ctx, "change", "ann 3"); err != nil {
			f.Fatal(err)
		}
		db.hit(query, 2)
		db.miss(query, 1).is("ann 3")

		tx, err := conn.Begin(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := tx.Exec(f.ctx, "UPDATE users SET name = 'ann 4' WHERE id = 1"); err != nil {
			f.Fatal(err)
		}
		db.hit(query, 1).is("ann 3")
		if err := tx.Rollback(f.ctx); err != nil {
			f.Fatal(err)
		}
		db.hit(query, 1).is("ann 3")

		// What is done with a lent connection is the tracer's business again.
		err = PgxConn(f.ctx, f.conn(db.db), func(conn *pgx.Conn) error {
			db.hit(query, 2)
			_, err := conn.Exec(f.ctx, "UPDATE users SET name = 'ann 5' WHERE id = 1")
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		db.hit(query, 2)
		db.miss(query, 1).is("ann 5")
	})
}

// The DB has no connection yet when the pool writes, or has none any more; others have results.
func TestWritesOnAPoolInvalidateWithoutAConnectionOfTheDB(t *testing.T) {
	scenario(t, cities, func(f *fixture) {
		t := NewTracer()
		const query = "SELECT name FROM users WHERE id = $1"
		pool, db := f.tracedPool(t, t)
		f.known(query, 1)
		if err := entries[0].write(f.ctx, pool, "first"); err != nil {
			f.Fatal(err)
		}
		f.fresh(query, 1).is("first")
		f.known(query, 1)
		if err := db.db.Close(); err != nil {
			f.Fatal(err)
		}

		again := f.over(pool, t)
		tx := f.writesIn(pool, "UPDATE users SET name = 'second' WHERE id = 1")
		f.known(query, 1).is("first")
		if err := tx.Commit(f.ctx); err != nil {
			f.Fatal(err)
		}
		f.fresh(query, 1).is("second")
		again.known(query, 1).is("second")
	})
}

// writesIn returns a transaction of the pool that has written and is not over.
func (f *fixture) writesIn(pool *pgxpool.Pool, sql string) pgx.Tx {
	f.Helper()
	tx, err := pool.Begin(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(f.ctx)) })
	if _, err := tx.Exec(f.ctx, sql); err != nil {
		f.Fatal(err)
	}
	return tx
}

// The transaction was begun, and has written, before there was a DB.
func TestATransactionThatIsOlderThanTheDBInvalidatesAtItsCommit(t *testing.T) {
	scenarioInMemory(t, cities, func(f *fixture) {
		const query = "SELECT name FROM users WHERE id = $1"
		f.known(query, 1)
		t := NewTracer()
		config := f.poolConfig()
		config.ConnConfig.Tracer = t
		pool, err := pgxpool.NewWithConfig(f.ctx, config)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(pool.Close)
		tx := f.writesIn(pool, "UPDATE users SET name = 'old' WHERE id = 1")
		db := f.over(pool, t)
		f.hit(query, 1).is("ann")
		if err := tx.Commit(f.ctx); err != nil {
			f.Fatal(err)
		}
		f.fresh(query, 1).is("old")
		db.known(query, 1).is("old")
	})
}

// pool                             DB
// UPDATE … RETURNING, rows open
//
//	SELECT → PostgreSQL
//
// rows end
func TestNothingIsAnsweredFromTheCacheWhileAPoolsWriteIsUnderWay(t *testing.T) {
	scenario(t, cities, func(f *fixture) {
		t := NewTracer()
		pool, db := f.tracedPool(t, t)
		if !f.inMemory() {
			f.live(db.db)
		}
		const query = "SELECT name FROM users WHERE id = $1"
		db.known(query, 1)
		rows, err := pool.Query(f.ctx, "UPDATE users SET name = 'new' WHERE id = 1 RETURNING id")
		if err != nil {
			f.Fatal(err)
		}
		before := StatsOf(db.db).Hits
		if r := db.read(db.ask, query, []any{1}); r.err != nil {
			f.Error(r.err)
		}
		if got := StatsOf(db.db).Hits - before; got != 0 {
			f.Errorf("got %d hits while the write was under way, want 0", got)
		}
		rows.Close()
		db.fresh(query, 1).is("new")
		db.known(query, 1)

		// A connection that ends in the middle: PostgreSQL says what became of it.
		conn, err := pool.Acquire(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := conn.Query(f.ctx, "UPDATE users SET name = 'newer' WHERE id = 1 RETURNING id"); err != nil {
			f.Fatal(err)
		}
		conn.Release() // with its rows open, so the pool closes it
		f.until("PostgreSQL's answer", func() bool {
			return connectorOf(db.db).space().writes.Stats().Unresolved == 0 && pool.Stat().AcquiredConns() == 0
		})
		db.fresh(query, 1)
		f.until("a hit", func() bool {
			before := StatsOf(db.db).Hits
			db.fresh(query, 1)
			return StatsOf(db.db).Hits > before
		})
	})
}

// The session is the connection's, whoever has set it.
func TestSettingsOfAPoolsConnectionAreSeen(t *testing.T) {
	scenarioInMemory(t, cities, func(f *fixture) {
		t := NewTracer()
		pool, db := f.tracedPool(t, t)
		other := fmt.Sprintf("other_%d", f.mode())
		f.past("CREATE SCHEMA " + other)
		f.past("CREATE TABLE " + other + ".users AS TABLE users")
		const query = "SELECT name FROM users WHERE id = $1"
		db.known(query, 1)
		err := pool.AcquireFunc(f.ctx, func(conn *pgxpool.Conn) error {
			_, set := conn.Exec(f.ctx, "SET search_path = "+other)
			_, write := conn.Exec(f.ctx, "UPDATE users SET name = 'other' WHERE id = 1")
			return errors.Join(set, write)
		})
		if err != nil {
			f.Fatal(err)
		}
		f.hit(query, 1).is("ann")
		if _, err := pool.Exec(f.ctx, "RESET search_path"); err != nil {
			f.Fatal(err)
		}
		entries[0].write(f.ctx, pool, "mine")
		db.fresh(query, 1).is("mine")
	})
}
