package connections

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// Two DBs of one process on one database share the cache, or a write in one
// would leave stale entries in the other.
func TestTwoDBsShareTheCache(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		other := f.With("cache_ttl=10m", "application_name=other")
		f.Warm(harness.UserByID, 1)
		other.Hit(harness.UserByID, 1)
		other.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo")
		off := f.With("cache_store=off")
		off.Exec("UPDATE users SET name = 'annette' WHERE id = 1")
		f.Miss(harness.UserByID, 1).Is("1 annette Oslo")
		if err := other.DB.Close(); err != nil {
			f.Error(err)
		}
		f.Hit(harness.UserByID, 1)
	})
}

func TestAConfigurationRegisteredWithPgx(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		config, err := pgx.ParseConfig(f.DSN)
		if err != nil {
			f.Fatal(err)
		}
		config.RuntimeParams["application_name"] = "registered"
		name := stdlib.RegisterConnConfig(config)
		defer stdlib.UnregisterConnConfig(name)
		v := f.Asking(f.Open("cachedpg", name))
		v.Warm(harness.UserByID, 1)
		v.Exec("UPDATE users SET name = 'anna' WHERE id = 1")
		v.Miss(harness.UserByID, 1)
		withKeys := f.Asking(f.Open("cachedpg", name+" cache_store=off"))
		withKeys.Bypass(keying.CacheOff, harness.UserByID, 1)

		unknown := f.Open("cachedpg", "registeredConnConfig999").PingContext(f.Ctx)
		harness.SameError(f, unknown, f.Open("pgx", "registeredConnConfig999").PingContext(f.Ctx))
	})
}

// A hook makes sessions that differ from what their DSN says.
func TestWrappedConnectors(t *testing.T) {
	harness.ScenarioInMemory(t, "CREATE TABLE v AS SELECT 1 AS id, '2024-05-01 12:00Z'::timestamptz AS at", func(f *harness.Fixture) {
		const query = "SELECT at::text FROM v WHERE id = $1"
		first := f.Warm(query, 1).String()
		config, err := pgx.ParseConfig(f.DSN)
		if err != nil {
			f.Fatal(err)
		}
		hook := func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET TIME ZONE 'Asia/Tokyo'")
			return err
		}
		connector, err := cachedpg.WrapConnector(stdlib.GetConnector(*config, stdlib.OptionAfterConnect(hook)), cachedpg.Config{})
		if err != nil {
			f.Fatal(err)
		}
		tokyo := f.Asking(sql.OpenDB(connector))
		defer tokyo.DB.Close()
		plain := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(hook))
		defer plain.Close()
		tokyo.Truth = plain
		if tokyo.Warm(query, 1).String() == first {
			f.Error("the hook's setting is not in the key")
		}
		f.Hit(query, 1).Is(first)
		tokyo.Exec("UPDATE v SET at = at + interval '1 hour' WHERE id = $1", 1)
		tokyo.Miss(query, 1)
		f.Miss(query, 1)
		f.Known("SELECT id FROM v")

		// Nothing is seen of what is done with the pgx connection.
		err = cachedpg.PgxConn(f.Ctx, f.Conn(tokyo.DB), func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.Ctx, "UPDATE v SET id = 2")
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Fresh("SELECT id FROM v").Is("2")

		pool, err := pgxpool.NewWithConfig(f.Ctx, f.PoolConfig())
		if err != nil {
			f.Fatal(err)
		}
		defer pool.Close()
		if connector, err = cachedpg.WrapConnector(stdlib.GetPoolConnector(pool), cachedpg.Config{}); err != nil {
			f.Fatal(err)
		}
		pooled := f.Asking(sql.OpenDB(connector))
		defer pooled.DB.Close()
		pooled.DB.SetMaxIdleConns(0)
		pooled.Known(query, 2)
		pooled.Exec("UPDATE v SET at = at + interval '1 hour' WHERE id = $1", 2)
		pooled.Miss(query, 2)
		pooled.Hit(query, 2)
		f.Hit(query, 2)
	})
}

// A hit needs no PostgreSQL.
func TestHitsWhilePostgreSQLIsUnreachable(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		p := harness.ThroughProxy(f)
		p.Warm(harness.UserByID, 1)
		p.Warm("SELECT name FROM users ORDER BY id")
		p.Cut()
		for range 3 { // also on connections that have not dialled, or are broken
			p.Hit(harness.UserByID, 1)
			p.Hit("SELECT name FROM users ORDER BY id")
		}
		if _, err := p.DB.QueryContext(f.Ctx, harness.UserByID, 2); err == nil {
			f.Error("a miss without PostgreSQL succeeded")
		}
		if _, err := p.DB.ExecContext(f.Ctx, "UPDATE users SET name = 'x' WHERE id = 1"); err == nil {
			f.Error("a write without PostgreSQL succeeded")
		}
		if err := p.DB.PingContext(f.Ctx); err == nil {
			f.Error("a ping without PostgreSQL succeeded")
		}
		p.Hit("SELECT name FROM users ORDER BY id")
		p.Restore()
		p.Fresh(harness.UserByID, 1)
		p.Again(harness.UserByID, 2) // once it is known that nobody else has written meanwhile
	})
}

// The connection breaks while PostgreSQL executes a write: only PostgreSQL
// knows what became of it, and the cache waits until it says.
func TestTheAnswerToAWriteIsLost(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People+`CREATE FUNCTION wait(n text) RETURNS text LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1); RETURN n; END'`, func(f *harness.Fixture) {
		p := harness.ThroughProxy(f)
		f.Warm(harness.UserByID, 1)
		f.Warm(harness.UserByID, 2)
		g := f.CloseGate()
		lost := make(chan error, 1)
		go func() {
			_, err := p.DB.ExecContext(f.Ctx, "UPDATE users SET name = wait('anna') WHERE id = 1")
			lost <- err
		}()
		g.Await(1)
		f.Bypass(keying.DirtyTag, harness.UserByID, 1)
		p.Cut()
		if err := <-lost; err == nil || errors.Is(err, driver.ErrBadConn) {
			f.Errorf("got %v, want the error of a broken connection", err)
		}
		p.Restore()
		f.Bypass(keying.DirtyTag, harness.UserByID, 1).Is("1 ann Oslo")
		if s := cachedpg.StatsOf(p.DB); s.UnknownOutcome != 1 || s.Unresolved != 1 {
			f.Errorf("%d writes of unknown outcome, %d unresolved, want 1 and 1", s.UnknownOutcome, s.Unresolved)
		}
		g.Open() // PostgreSQL commits now, for nobody
		f.Until("the outcome", func() bool { return cachedpg.StatsOf(p.DB).Unresolved == 0 })
		f.Miss(harness.UserByID, 1).Is("1 anna Oslo")
		f.Hit(harness.UserByID, 1)
	})
}
