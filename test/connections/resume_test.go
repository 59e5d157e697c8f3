package connections

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// onePool returns a pool of one connection, with a Tracer if it is traced, and a cachedpg DB over it that keeps none.
func onePool(f *harness.Fixture, traced bool, change func(*pgxpool.Config)) (*pgxpool.Pool, harness.Via) {
	f.Helper()
	config := f.PoolConfig()
	config.MaxConns = 1
	var tracers []*cachedpg.Tracer
	if traced {
		t := cachedpg.NewTracer()
		tracers, config.ConnConfig.Tracer = append(tracers, t), t
	}
	if change != nil {
		change(config)
	}
	pool, err := pgxpool.NewWithConfig(f.Ctx, config)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(pool.Close)
	return pool, overPool(f, pool, tracers...)
}

// A pool gives the same connection again and again: what is known of it is asked once.
func TestAConnectionOfAPoolIsAskedForItsSessionOnce(t *testing.T) {
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		wire := pgtest.Listen(t, f.DSN)
		f.DSN = wire.DSN
		for name, traced := range map[string]bool{"alone": false, "with a Tracer": true} {
			t.Run(name, func(t *testing.T) {
				_, v := onePool(f, traced, nil)
				v.Again(harness.UserByID, 1)
				v.Fresh("SELECT city FROM users WHERE id = $1", 1)
				v.Exec("UPDATE users SET city = 'x' WHERE id = $1", 100)
				before := len(wire.Texts())
				for i := range 20 {
					v.Hit(harness.UserByID, 1)
					v.Fresh("SELECT city FROM users WHERE id = $1", i)
					v.Exec("UPDATE users SET city = 'x' WHERE id = $1", 100+i)
				}
				if sessions, discards := outside.SessionQuestions(wire.Texts()[before:]); sessions != 0 || discards != 0 {
					t.Errorf("60 statements asked for the session %d times, and sent DISCARD PLANS %d times", sessions, discards)
				}
			})
		}
	})
}

// poolUses are the ways in which somebody else may use a connection while it is in its pool.
var poolUses = []struct {
	name string
	set  func(ctx context.Context, conn *pgx.Conn, path string) error
}{
	{"Exec", func(ctx context.Context, conn *pgx.Conn, path string) error {
		_, err := conn.Exec(ctx, "SET search_path = "+path)
		return err
	}},
	{"PgConn", func(ctx context.Context, conn *pgx.Conn, path string) error {
		return conn.PgConn().Exec(ctx, "SET search_path = "+path).Close()
	}},
	{"a batch past pgx' frontend", func(ctx context.Context, conn *pgx.Conn, path string) error {
		batch := &pgconn.Batch{}
		batch.ExecParams("SELECT set_config('search_path', $1, false)", [][]byte{[]byte(path)}, nil, nil, nil)
		return conn.PgConn().ExecBatch(ctx, batch).Close()
	}},
	{"a pipeline", func(ctx context.Context, conn *pgx.Conn, path string) error {
		pipeline := conn.PgConn().StartPipeline(ctx)
		pipeline.SendQueryParams("SELECT set_config('search_path', $1, false)", [][]byte{[]byte(path)}, nil, nil, nil)
		if err := pipeline.Sync(); err != nil {
			return err
		}
		return pipeline.Close()
	}},
	{"a trace of its own", func(ctx context.Context, conn *pgx.Conn, path string) error {
		frontend := conn.PgConn().Frontend()
		frontend.Trace(new(strings.Builder), pgproto3.TracerOptions{})
		defer frontend.Untrace()
		return conn.PgConn().Exec(ctx, "SET search_path = "+path).Close()
	}},
}

// Whoever uses a connection in its pool, and however: what it leaves is seen.
func TestWhatIsDoneToAConnectionInItsPoolIsSeen(t *testing.T) {
	const setup = harness.People + `
		DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other;
		CREATE TABLE other.users (id int PRIMARY KEY, name text, city text); INSERT INTO other.users VALUES (1, 'zoe', 'Nice');`
	harness.ScenarioInMemory(t, setup, func(f *harness.Fixture) {
		for _, traced := range []bool{false, true} {
			path, asked := "", false
			use := func(context.Context, *pgx.Conn, string) error { return nil }
			_, v := onePool(f, traced, func(c *pgxpool.Config) {
				c.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
					if path == "" {
						return true, nil
					}
					asked = true
					err := use(ctx, conn, path)
					path = ""
					return true, err
				}
			})
			own := currentSchema(f)
			for _, other := range poolUses {
				v.Known(harness.UserByID, 1).Is("1 ann Oslo")
				use, path = other.set, "other"
				v.Truth = withPath(f, "other")
				v.Fresh(harness.UserByID, 1).Is("1 zoe Nice")
				v.Hit(harness.UserByID, 1).Is("1 zoe Nice")
				use, path = other.set, own
				v.Truth = f.Plain
				v.Fresh(harness.UserByID, 1).Is("1 ann Oslo")
				v.Hit(harness.UserByID, 1)
				if !asked {
					f.Fatal("the hook did not run")
				}
			}
		}
	})
}

func currentSchema(f *harness.Fixture) (name string) {
	f.Helper()
	if err := f.Plain.QueryRowContext(f.Ctx, "SELECT current_schema()").Scan(&name); err != nil {
		f.Fatal(err)
	}
	return name
}

// withPath returns plain pgx with another search_path.
func withPath(f *harness.Fixture, path string) *sql.DB {
	f.Helper()
	return f.Open("pgx", harness.WithKey(f.DSN, "search_path", path))
}

// A hook whose batch pgx writes past its own trace, of a setting that PostgreSQL does not report by itself.
func TestABatchOfAHookIsSeen(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People, func(f *harness.Fixture) {
		const query = "SELECT (id / 3::float8)::text FROM users WHERE id = 1"
		digits := "1"
		connector, err := cachedpg.WrapConnector(stdlib.GetConnector(harness.ParsedDSN(f, f.DSN), stdlib.OptionResetSession(func(ctx context.Context, conn *pgx.Conn) error {
			batch := &pgconn.Batch{}
			batch.ExecParams("SELECT set_config('extra_float_digits', $1, false)", [][]byte{[]byte(digits)}, nil, nil, nil)
			return conn.PgConn().ExecBatch(ctx, batch).Close()
		})), cachedpg.Config{})
		if err != nil {
			f.Fatal(err)
		}
		db := sql.OpenDB(connector)
		f.Cleanup(func() { db.Close() })
		db.SetMaxOpenConns(1)
		v := f.Asking(db)
		v.Truth = f.Open("pgx", harness.WithKey(f.DSN, "extra_float_digits", digits))
		v.Known(query)
		digits = "-10"
		v.Truth = f.Open("pgx", harness.WithKey(f.DSN, "extra_float_digits", digits))
		v.Fresh(query).Is("0.33333")
		v.Hit(query)
	})
}

// PostgreSQL has read the literals of a statement by the settings of who has prepared it, and the pool keeps it prepared.
func TestStatementsThatAPoolKeepsPreparedAreReadAgain(t *testing.T) {
	harness.ScenarioInMemory(t, harness.Clocks, func(f *harness.Fixture) {
		harness.UTC(f)
		const query = "SELECT '2024-05-01 12:00'::timestamptz = at FROM clocks"
		pool, v := onePool(f, false, nil)
		v.Exec("SET TimeZone = 'Asia/Tokyo'")
		v.Truth = f.Open("pgx", harness.WithKey(f.DSN, "timezone", "Asia/Tokyo"))
		v.Known(query).Is("false")
		if _, err := pool.Exec(f.Ctx, "SET TimeZone = 'UTC'"); err != nil { // so that the session is asked for again
			f.Fatal(err)
		}
		v.Truth = f.Plain
		v.Fresh(query).Is("true")
		v.Hit(query).Is("true")
	})
}
