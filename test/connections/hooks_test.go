package connections

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A tenant is a schema and a role that may read and write that schema alone.
const tenantSchemas = `
	CREATE SCHEMA a; CREATE TABLE a.items (id int PRIMARY KEY, owner text); INSERT INTO a.items SELECT n, 'a 0' FROM generate_series(1, 3) n;
	CREATE SCHEMA b; CREATE TABLE b.items (id int PRIMARY KEY, owner text); INSERT INTO b.items SELECT n, 'b 0' FROM generate_series(1, 3) n;
	GRANT USAGE ON SCHEMA a TO %[1]s_a; GRANT ALL ON a.items TO %[1]s_a;
	GRANT USAGE ON SCHEMA b TO %[1]s_b; GRANT ALL ON b.items TO %[1]s_b;`

// tenantKey is of the tenant in a context.
type tenantKey struct{}

func asTenant(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, tenantKey{}, tenant)
}

func tenantOf(ctx context.Context) string {
	tenant, _ := ctx.Value(tenantKey{}).(string)
	return tenant
}

var errNoTenant = errors.New("no tenant")

// tenancy is how the program under test sets the tenant of the context.
type tenancy struct {
	name string
	set  func(ctx context.Context, exec func(sql string) error, roles string) error
}

var tenancies = []tenancy{
	{"search_path", func(ctx context.Context, exec func(string) error, roles string) error {
		return exec("SET search_path TO " + tenantOf(ctx))
	}},
	{"role", func(ctx context.Context, exec func(string) error, roles string) error {
		return exec("SET search_path TO " + tenantOf(ctx) + ", a, b; SET ROLE " + roles + "_" + tenantOf(ctx))
	}},
	{"set_config", func(ctx context.Context, exec func(string) error, roles string) error {
		return exec("SELECT set_config('search_path', '" + tenantOf(ctx) + "', false)")
	}},
}

// hooks is a way to have pgx run a hook. Each of its connectors dials anew.
type hooks struct {
	name string
	open func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector
	idle int // SetMaxIdleConns
}

func onConn(ctx context.Context, conn *pgx.Conn) func(string) error {
	return func(sql string) error { return conn.PgConn().Exec(ctx, sql).Close() }
}

func pooled(tb testing.TB, dsn string, change func(*pgxpool.Config), options ...stdlib.OptionOpenDB) driver.Connector {
	tb.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	config.MaxConns = 8
	change(config)
	pool, err := pgxpool.NewWithConfig(tb.Context(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return stdlib.GetPoolConnector(pool, options...)
}

// setter is a hook that sets the tenant, if the context has one.
type setter = func(ctx context.Context, conn *pgx.Conn) error

func setterOf(set func(context.Context, func(string) error) error) setter {
	return func(ctx context.Context, conn *pgx.Conn) error {
		if tenantOf(ctx) == "" {
			return nil
		}
		return set(ctx, onConn(ctx, conn))
	}
}

// everyHook are all hooks of pgx's stdlib and pool packages.
var everyHook = []hooks{
	{"OptionResetSession", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return stdlib.GetConnector(harness.ParsedDSN(tb, dsn), stdlib.OptionResetSession(setterOf(set)))
	}, 2},
	{"OptionResetSession and OptionAfterConnect", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return stdlib.GetConnector(harness.ParsedDSN(tb, dsn), stdlib.OptionResetSession(setterOf(set)), stdlib.OptionAfterConnect(setterOf(set)))
	}, 2},
	{"OptionAfterConnect", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return stdlib.GetConnector(harness.ParsedDSN(tb, dsn), stdlib.OptionAfterConnect(setterOf(set)))
	}, 0},
	{"OptionBeforeConnect", func(tb testing.TB, dsn string, _ func(context.Context, func(string) error) error) driver.Connector {
		return stdlib.GetConnector(harness.ParsedDSN(tb, dsn), stdlib.OptionBeforeConnect(func(ctx context.Context, config *pgx.ConnConfig) error {
			config.RuntimeParams = map[string]string{"search_path": tenantOf(ctx)}
			return nil
		}))
	}, 0},
	{"OptionShouldPing", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return stdlib.GetConnector(harness.ParsedDSN(tb, dsn), stdlib.OptionShouldPing(func(ctx context.Context, p stdlib.ShouldPingParams) bool {
			return setterOf(set)(ctx, p.Conn) != nil
		}), stdlib.OptionAfterConnect(setterOf(set)))
	}, 2},
	{"pool's BeforeConnect", func(tb testing.TB, dsn string, _ func(context.Context, func(string) error) error) driver.Connector {
		return pooled(tb, dsn, func(config *pgxpool.Config) {
			config.BeforeConnect = func(ctx context.Context, config *pgx.ConnConfig) error {
				config.RuntimeParams["search_path"] = tenantOf(ctx)
				return nil
			}
			config.AfterRelease = func(*pgx.Conn) bool { return false }
		})
	}, 0},
	{"pool's AfterConnect", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return pooled(tb, dsn, func(config *pgxpool.Config) {
			config.AfterConnect = setterOf(set)
			config.AfterRelease = func(*pgx.Conn) bool { return false }
		})
	}, 0},
	{"pool's BeforeAcquire", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return pooled(tb, dsn, func(config *pgxpool.Config) {
			//lint:ignore SA1019 older programs use it
			config.BeforeAcquire = func(ctx context.Context, conn *pgx.Conn) bool { return setterOf(set)(ctx, conn) == nil }
		})
	}, 0},
	{"pool's PrepareConn", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return pooled(tb, dsn, func(config *pgxpool.Config) {
			config.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
				err := setterOf(set)(ctx, conn)
				return err == nil, err
			}
		})
	}, 0},
	{"pool's PrepareConn and AfterRelease", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return pooled(tb, dsn, func(config *pgxpool.Config) {
			config.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
				err := setterOf(set)(ctx, conn)
				return true, err
			}
			config.AfterRelease = func(conn *pgx.Conn) bool {
				return onConn(context.Background(), conn)("RESET ROLE; RESET search_path; DISCARD TEMP") == nil
			}
			config.BeforeClose = func(*pgx.Conn) {}
		})
	}, 0},
	{"pool's ShouldPing", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return pooled(tb, dsn, func(config *pgxpool.Config) {
			config.AfterConnect = setterOf(set)
			config.ShouldPing = func(ctx context.Context, p pgxpool.ShouldPingParams) bool {
				return setterOf(set)(ctx, p.Conn) != nil
			}
		})
	}, 0},
	{"a pool and OptionResetSession", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		return pooled(tb, dsn, func(config *pgxpool.Config) {
			config.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
				return true, setterOf(set)(ctx, conn)
			}
		}, stdlib.OptionResetSession(setterOf(set)))
	}, 2},
	{"the config's AfterConnect", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		config := harness.ParsedDSN(tb, dsn)
		config.AfterConnect = configHook(set)
		return plainConfig{stdlib.GetConnector(config), config}
	}, 0},
	{"the config's ValidateConnect", func(tb testing.TB, dsn string, set func(context.Context, func(string) error) error) driver.Connector {
		config := harness.ParsedDSN(tb, dsn)
		config.ValidateConnect = configHook(set)
		return plainConfig{stdlib.GetConnector(config), config}
	}, 0},
}

func configHook(set func(context.Context, func(string) error) error) func(context.Context, *pgconn.PgConn) error {
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		if tenantOf(ctx) == "" {
			return nil
		}
		return set(ctx, func(sql string) error { return conn.Exec(ctx, sql).Close() })
	}
}

// plainConfig is for NewConnector and not for WrapConnector.
type plainConfig struct {
	driver.Connector
	config pgx.ConnConfig
}

// tenants makes two databases with the same contents, and says how to open them:
// the first with our driver, the other with pgx.
func tenants(t *testing.T) (roles string, dsn [2]string) {
	t.Helper()
	dsn[0], dsn[1] = pgtest.Database(t), pgtest.Database(t)
	roles = "tenant_" + strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(harness.ParsedDSN(t, dsn[0]).Database))
	for _, tenant := range []string{"_a", "_b"} {
		role := roles + tenant
		pgtest.Exec(t, dsn[0], "CREATE ROLE "+role)
		t.Cleanup(func() {
			for _, dsn := range dsn {
				pgtest.Exec(t, dsn, "DROP OWNED BY "+role)
			}
			pgtest.Exec(t, dsn[0], "DROP ROLE "+role)
		})
	}
	for _, dsn := range dsn {
		pgtest.Exec(t, dsn, fmt.Sprintf(tenantSchemas, roles))
	}
	return roles, dsn
}

func openHooked(t *testing.T, c driver.Connector, config cachedpg.Config, idle int) *sql.DB {
	t.Helper()
	var err error
	if plain, ok := c.(plainConfig); ok {
		c, err = cachedpg.NewConnector(plain.config, config)
	} else {
		c, err = cachedpg.WrapConnector(c, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	return openIdle(t, c, idle)
}

func openIdle(t *testing.T, c driver.Connector, idle int) *sql.DB {
	db := sql.OpenDB(c)
	t.Cleanup(func() { db.Close() })
	db.SetMaxIdleConns(idle)
	return db
}

// Whatever a program does whose hooks set the tenant of the context, it sees what
// it sees with pgx: rows, errors, and what others find that it has written.
func TestHooksSetTheTenantOfTheContext(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"memory", "redis"} {
		for _, h := range everyHook {
			for _, how := range tenancies {
				if how.name != "role" && (store == "redis" || h.idle == 0) {
					continue // which differs in what a key is made of, and no store sees that
				}
				t.Run(store+"/"+h.name+"/"+how.name, func(t *testing.T) {
					t.Parallel()
					p := newTenantProgram(t, store, h, how)
					rounds := 50
					if h.idle == 0 {
						rounds = 25 // each statement dials
					}
					for p.round = range rounds {
						p.step(p.random)
					}
					if hits := cachedpg.StatsOf(p.dbs[0]).Hits; hits == 0 {
						t.Error("no read was a hit")
					}
				})
			}
		}
	}
}

// tenantProgram runs the same on two databases, with our driver and with pgx.
type tenantProgram struct {
	*testing.T
	dbs    [2]*sql.DB // ours, pgx's
	names  [2]string  // of their databases
	others *sql.DB    // ours, on the first database, without hooks
	past   *sql.DB    // pgx, on the first database, without hooks
	random *rand.Rand
	round  int
}

func newTenantProgram(t *testing.T, store string, h hooks, how tenancy) *tenantProgram {
	roles, dsn := tenants(t)
	names := [2]string{harness.ParsedDSN(t, dsn[0]).Database, harness.ParsedDSN(t, dsn[1]).Database}
	set := func(ctx context.Context, exec func(string) error) error {
		if tenantOf(ctx) == "nobody" {
			return errNoTenant
		}
		return how.set(ctx, exec, roles)
	}
	var config cachedpg.Config
	if store == "redis" {
		config.Store = pgtest.Redis(t)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	p := &tenantProgram{T: t, names: names, random: rand.New(rand.NewPCG(seed, 0))}
	p.dbs[0] = openHooked(t, h.open(t, dsn[0], set), config, h.idle)
	p.dbs[1] = openIdle(t, h.open(t, dsn[1], set), h.idle)
	others, err := cachedpg.NewConnector(harness.ParsedDSN(t, dsn[0]), config)
	if err != nil {
		t.Fatal(err)
	}
	p.others = openIdle(t, others, 2)
	p.past = openIdle(t, stdlib.GetConnector(harness.ParsedDSN(t, dsn[0])), 2)
	if store == "redis" {
		f := &harness.Fixture{T: t, Ctx: t.Context()}
		f.Live(p.others)
	}
	for _, db := range p.dbs { // the schema is known from here on
		harness.OwnerOf(asTenant(t.Context(), "a"), db, "SELECT owner FROM a.items WHERE id = $1", 1)
	}
	return p
}

// step does one thing on both, in the place of one of the tenants.
func (p *tenantProgram) step(random *rand.Rand) {
	p.Helper()
	tenant := string("ab"[random.IntN(2)])
	if random.IntN(12) == 0 {
		tenant = "nobody"
	}
	ctx, id, kind := asTenant(p.Context(), tenant), 1+random.IntN(3), random.IntN(8)
	what := fmt.Sprintf("round %d: %s does %d with %d", p.round, tenant, kind, id)
	var got [2]string
	for i, db := range p.dbs {
		got[i] = strings.ReplaceAll(act(ctx, db, kind, id, fmt.Sprintf("%s %d", tenant, p.round)), p.names[i], "the database")
	}
	if got[0] != got[1] {
		p.Fatalf("%s: got %s, pgx %s", what, got[0], got[1])
	}
	for _, query := range []string{"SELECT owner FROM a.items WHERE id = $1", "SELECT owner FROM b.items WHERE id = $1"} {
		if got, want := harness.OwnerOf(p.Context(), p.others, query, id), harness.OwnerOf(p.Context(), p.past, query, id); got != want {
			p.Fatalf("%s: others read %s, pgx %s\nin: %s", what, got, want, query)
		}
	}
}

func act(ctx context.Context, db *sql.DB, kind, id int, value string) string {
	const read, write = "SELECT owner FROM items WHERE id = $1", "UPDATE items SET owner = $2 WHERE id = $1"
	switch kind {
	case 0, 1:
		return harness.OwnerOf(ctx, db, read, id)
	case 2:
		stmt, err := db.PrepareContext(ctx, read)
		if err != nil {
			return err.Error()
		}
		defer stmt.Close()
		var owner [2]string
		for i := range owner {
			if err := stmt.QueryRowContext(ctx, id).Scan(&owner[i]); err != nil {
				return err.Error()
			}
		}
		return fmt.Sprint(owner)
	case 3:
		_, err := db.ExecContext(ctx, write, id, value)
		return fmt.Sprint(err)
	case 4:
		conn, err := db.Conn(ctx)
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		before := harness.OwnerOf(ctx, conn, read, id)
		_, err = conn.ExecContext(ctx, write, id, value)
		return fmt.Sprint(before, err, harness.OwnerOf(ctx, conn, read, id))
	case 5:
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err.Error()
		}
		defer tx.Rollback()
		_, err = tx.ExecContext(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
		if err != nil {
			return err.Error()
		}
		return harness.OwnerOf(ctx, tx, read, id)
	case 6:
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err.Error()
		}
		defer tx.Rollback()
		before := harness.OwnerOf(ctx, tx, read, id)
		_, err = tx.ExecContext(ctx, write, id, value)
		return fmt.Sprint(before, err, tx.Commit())
	}
	return harness.OwnerOf(ctx, db, "SELECT owner FROM b.items WHERE id = $1", id) // which a may not read as a role
}
