package beside

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// circumstance is what an application lives in.
type circumstance struct {
	store    string // "memory", "redis" or "off"
	hardened bool   // a right is taken away that the driver has a use for
	hook     bool   // stdlib.OptionResetSession sets the tenant of the context
	stalls   string // "redis", "gone" (killed) or "catalog" (a lock on a table of PostgreSQL's own), for a third of the steps
	pool     int    // connections at most
	mode     pgx.QueryExecMode
}

func (c circumstance) String() string {
	return fmt.Sprintf("-- store %s, hardened %v, hook %v, stalls %q, %d connections, %v", c.store, c.hardened, c.hook, c.stalls, c.pool, c.mode)
}

var circumstances = []circumstance{
	{store: "memory", pool: 3, mode: pgx.QueryExecModeCacheStatement},
	{store: "redis", pool: 3, mode: pgx.QueryExecModeCacheStatement, stalls: "redis"},
	{store: "memory", pool: 1, mode: pgx.QueryExecModeCacheStatement, hardened: true},
	{store: "redis", pool: 2, mode: pgx.QueryExecModeExec, hardened: true},
	{store: "memory", pool: 3, mode: pgx.QueryExecModeCacheStatement, hook: true},
	{store: "redis", pool: 3, mode: pgx.QueryExecModeCacheDescribe, hook: true, stalls: "gone"},
	{store: "memory", pool: 3, mode: pgx.QueryExecModeDescribeExec, stalls: "catalog"},
	{store: "redis", pool: 1, mode: pgx.QueryExecModeSimpleProtocol, stalls: "catalog", hardened: true},
	{store: "off", pool: 2, mode: pgx.QueryExecModeCacheStatement},
}

// schema is that of both databases. Tenants have tables of the same names.
const schema = `
	CREATE SCHEMA a; CREATE SCHEMA b;
	CREATE TABLE public.items (id int PRIMARY KEY, owner int, name text, at timestamptz NOT NULL DEFAULT '2024-01-01Z');
	CREATE TABLE public.lines (id int, item int REFERENCES public.items, n int CHECK (n < 1000), PRIMARY KEY (item, id));
	CREATE TABLE public.logs (id bigserial PRIMARY KEY, what text);
	CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.logs (what) VALUES (TG_OP); RETURN NULL; END $$;
	CREATE TRIGGER noted AFTER UPDATE ON public.lines FOR EACH STATEMENT EXECUTE FUNCTION public.noted();
	CREATE TABLE a.items (LIKE public.items INCLUDING ALL); CREATE TABLE b.items (LIKE public.items INCLUDING ALL);
	INSERT INTO public.items SELECT i, i %% 3, 'p' || i FROM generate_series(1, 9) i;
	INSERT INTO a.items SELECT i, i %% 3, 'a' || i FROM generate_series(1, 9) i;
	INSERT INTO b.items SELECT i, i %% 3, 'b' || i FROM generate_series(1, 9) i;
	INSERT INTO public.lines SELECT i, 1 + i %% 9, i FROM generate_series(1, 20) i;
	GRANT ALL ON SCHEMA public, a, b TO %[1]s;
	GRANT ALL ON ALL TABLES IN SCHEMA public, a, b TO %[1]s;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO %[1]s;
	GRANT CREATE, TEMPORARY ON DATABASE %[2]s TO %[1]s;`

// denied is what a careful administrator takes away, and what some services never
// give: one of these, which the driver has a use for.
var denied = []string{"pg_current_wal_lsn()", "pg_current_wal_flush_lsn()", "pg_current_wal_insert_lsn()", "pg_walfile_name(pg_lsn)", "pg_control_system()",
	"pg_control_checkpoint()", "pg_collation_actual_version(oid)", "pg_current_xact_id()", "pg_current_xact_id_if_assigned()", "pg_xact_status(xid8)",
	"pg_current_snapshot()", "pg_try_advisory_lock_shared(bigint)", "pg_advisory_xact_lock_shared(bigint)", "pg_stat_get_activity(int)", "pg_lock_status()",
	"current_schemas(bool)", "pg_snapshot_xip(pg_snapshot)", "pg_prepared_xact()"}

// tenantKey is of the tenant in a context.
type tenantKey struct{}

// world is both applications, and what may stall.
type world struct {
	t           *testing.T
	c           circumstance
	pgx, cached *app
	redis       *redistest.Server
	database    string // that of cached, for a superuser
	end         func() // of the stall under way
}

// app is an application on one of the drivers: a pool, at most one connection that it
// keeps, with at most one transaction on it.
type app struct {
	db     *sql.DB
	super  *sql.DB // the same database, as a superuser and with pgx
	name   string  // of the database
	conn   *sql.Conn
	tx     *sql.Tx
	ctx    context.Context
	cancel func()
}

func newWorld(t *testing.T, g *generator, c circumstance, script *strings.Builder) *world {
	w := &world{t: t, c: c}
	role := "beside_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, pgtest.DSN(t), "CREATE ROLE "+role+" LOGIN; CREATE ROLE "+role+"_else")
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role+", "+role+"_else") })
	g.role = role + "_else"
	config := cachedpg.Config{Store: c.store}
	if c.store == "redis" {
		w.redis = redistest.Start(t)
		config.Store = w.redis.URL()
	}
	var without string
	if c.hardened {
		without = g.one(denied...)
		fmt.Fprintf(script, "-- without %s\n", without)
	}
	w.pgx = w.app(role, without, nil)
	w.cached = w.app(role, without, &config)
	return w
}

// app makes a database and an application on it, with pgx if there is no config.
func (w *world) app(role, denied string, config *cachedpg.Config) *app {
	w.t.Helper()
	dsn := pgtest.Database(w.t)
	parsed, err := pgx.ParseConfig(dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	pgtest.Exec(w.t, dsn, fmt.Sprintf(schema, role, parsed.Database)+"GRANT "+role+"_else TO "+role+"; GRANT USAGE ON SCHEMA a TO "+role+"_else; GRANT SELECT ON a.items TO "+role+"_else;")
	if denied != "" {
		pgtest.Exec(w.t, dsn, "REVOKE EXECUTE ON FUNCTION pg_catalog."+denied+" FROM public")
	}
	w.t.Cleanup(func() { pgtest.Exec(w.t, dsn, "DROP OWNED BY "+role+", "+role+"_else") })
	parsed.User, parsed.DefaultQueryExecMode = role, w.c.mode
	var options []stdlib.OptionOpenDB
	if w.c.hook {
		options = append(options, stdlib.OptionResetSession(func(ctx context.Context, conn *pgx.Conn) error {
			if tenant, ok := ctx.Value(tenantKey{}).(string); ok {
				_, err := conn.Exec(ctx, "SET search_path TO "+tenant+", public")
				return err
			}
			return nil
		}))
	}
	connector := stdlib.GetConnector(*parsed, options...)
	if config != nil {
		w.database = dsn
		if connector, err = cachedpg.WrapConnector(connector, *config); err != nil {
			w.t.Fatal(err)
		}
	}
	a := &app{db: sql.OpenDB(connector), name: parsed.Database}
	a.db.SetMaxOpenConns(w.c.pool)
	if a.super, err = sql.Open("pgx", dsn); err != nil {
		w.t.Fatal(err)
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	w.t.Cleanup(func() {
		a.cancel()
		if a.tx != nil {
			_ = a.tx.Rollback()
		}
		if a.conn != nil {
			_ = a.conn.Close()
		}
		endPrepared(w.t, dsn)
		if denied != "" {
			pgtest.Exec(w.t, dsn, "GRANT EXECUTE ON FUNCTION pg_catalog."+denied+" TO public")
		}
		for config != nil && cachedpg.StatsOf(a.db).Unresolved > 0 { // the driver asks for their outcomes until it knows
			time.Sleep(time.Millisecond)
		}
		_ = a.db.Close()
		_ = a.super.Close()
	})
	return a
}

// stall begins or ends what stalls: it does so from a third to two thirds of the steps.
func (w *world) stall(step int) {
	switch {
	case step == 2*stepsOf/3:
		w.unstall()
	case step != stepsOf/3:
	case w.c.stalls == "redis":
		w.redis.Pause()
		w.end = w.redis.Resume
	case w.c.stalls == "gone":
		w.redis.Kill()
		w.end = w.redis.Restart
	case w.c.stalls == "catalog":
		conn := pgtest.Connect(w.t, w.database)
		for _, sql := range []string{"BEGIN", "COMMENT ON TABLE public.items IS 'it changes'", "COMMIT", "BEGIN", "LOCK TABLE pg_catalog.pg_depend"} {
			if _, err := conn.Exec(context.Background(), sql); err != nil {
				w.t.Fatal(err)
			}
		}
		w.end = func() {
			if err := conn.Close(context.Background()); err != nil {
				w.t.Error(err)
			}
		}
	}
}

func (w *world) unstall() {
	if w.end != nil {
		w.end()
		w.end = nil
	}
}

// endPrepared rolls back what the application has prepared and not ended.
func endPrepared(t *testing.T, dsn string) {
	conn := pgtest.Connect(t, dsn)
	rows, err := conn.Query(context.Background(), "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if _, err := conn.Exec(context.Background(), "ROLLBACK PREPARED '"+id+"'"); err != nil {
			t.Error(err)
		}
	}
}
