package core

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/questions"
	"github.com/cachedpg/cachedpg/internal/outbox"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/internal/setup"
	"github.com/cachedpg/cachedpg/store"
)

// The driver asks on the caller's connections, under a search_path that it must not
// change. A name without a schema in a text of its own means what some schema on that
// path says it means, and runs as the application's role. So every name stands with
// pg_catalog or cachedpg, operators and types too. These tests run each feature and look
// at what went over the wire. A new feature is a new line here.

// questioned is a database with all that the features need, behind a wire. What the
// application sends has app in the middle of it.
type questioned struct {
	*harness.Fixture
	wire  *pgtest.Wire
	redis *redistest.Server
}

const app = questions.App

var askingFeatures = []struct {
	name string
	keys []string // of the DSN
	run  func(q *questioned)
}{
	{"memory", nil, (*questioned).everyStatement},
	{"memory, simple protocol", []string{"default_query_exec_mode=simple_protocol"}, (*questioned).everyStatement},
	{"no store", []string{"cache_store=off"}, (*questioned).everyStatement},
	{"explain", nil, (*questioned).explains},
	{"redis", []string{"cache_store=redis"}, (*questioned).everyStatement},
	{"redis, eventual", []string{"cache_store=redis", "cache_consistency=eventual"}, (*questioned).everyStatement},
	{"the keeper", []string{"cache_store=redis"}, (*questioned).keeps},
	{"outbox", []string{"cache_store=redis", "cache_outbox=always"}, (*questioned).relaysEvents},
	{"outbox, simple protocol", []string{"cache_store=redis", "cache_outbox=always", "default_query_exec_mode=simple_protocol"}, (*questioned).everyStatement},
	{"write-ahead log", []string{"cache_external=wal"}, (*questioned).follows},
	{"write-ahead log and redis", []string{"cache_store=redis", "cache_external=wal"}, (*questioned).follows},
	{"write-through", []string{"cache_policy=app.users:write-through"}, (*questioned).everyStatement},
	{"write-behind", []string{"cache_store=redis", "cache_policy=app.hits:write-behind"}, (*questioned).queues},
	{"redis is lost", []string{"cache_store=redis", "cache_outbox=auto"}, (*questioned).losesRedis},
}

const questionedSchema = `
	CREATE SCHEMA app;
	CREATE TABLE app.users (id int PRIMARY KEY, name text, city text COLLATE "C");
	CREATE TABLE app.hits (id int PRIMARY KEY, n int);
	CREATE TABLE app.notes (id int PRIMARY KEY, of int REFERENCES app.users DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE app.log (line text);
	INSERT INTO app.users SELECT i, 'u', 'Oslo' FROM generate_series(1, 50) i;
	INSERT INTO app.hits SELECT i, 0 FROM generate_series(1, 9) i;
	CREATE FUNCTION app.logs() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
		EXECUTE 'INSERT INTO app.log VALUES (''x'')'; RETURN NULL; END $$;
	CREATE TRIGGER logs AFTER INSERT OR UPDATE ON app.notes FOR EACH ROW EXECUTE FUNCTION app.logs();
	CREATE PROCEDURE app.commits() LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
		INSERT INTO app.log VALUES ('y'); END $$;`

// ask runs every feature against databases that prepare makes. path is the
// applications' search_path.
func askEverything(t *testing.T, path string, prepare func(database string), look func(t *testing.T, w *pgtest.Wire)) {
	t.Helper()
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, questionedSchema)
	if prepare != nil {
		prepare(database)
	}
	wire := pgtest.Listen(t, harness.WithKey(database, "search_path", path))
	ctx, cancel := context.WithTimeout(context.Background(), 5*harness.Timeout)
	t.Cleanup(cancel)
	// Setup, as all the others, is sent by the application's role.
	installer, err := sql.Open("pgx", wire.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer installer.Close()
	if err := errors.Join(setup.Tables(ctx, installer, "postgres"), setup.Tables(ctx, installer), setup.WAL(ctx, installer), setup.WAL(ctx, installer)); err != nil {
		t.Fatal(err)
	}
	for _, feature := range askingFeatures {
		if !t.Run(feature.name, func(t *testing.T) {
			q := &questioned{Fixture: &harness.Fixture{T: t, Ctx: ctx, DSN: wire.DSN}, wire: wire}
			q.Plain = q.Open("pgx", database)
			for _, key := range feature.keys {
				if key == "cache_store=redis" {
					q.redis = redistest.Start(t)
					key = "cache_store=" + q.redis.URL()
				}
				q.Keys = append(q.Keys, key)
			}
			q.DB = q.Open("cachedpg", harness.WithKeys(q.DSN, q.Keys))
			q.Via = harness.Via{F: q.Fixture, DB: q.DB, Ask: q.DB, Truth: q.Plain}
			if err := q.DB.PingContext(ctx); err != nil {
				t.Fatal(err)
			}
			if q.redis != nil {
				q.Live(q.DB)
			}
			feature.run(q)
			if err := q.DB.Close(); err != nil {
				t.Error(err)
			}
			look(t, wire)
		}) {
			return
		}
	}
}

const (
	appRead   = "SELECT " + app + " u.name FROM app.users u WHERE u.id OPERATOR(pg_catalog.=) $1"
	appUpdate = "UPDATE " + app + " app.users SET city = 'Rome' WHERE id OPERATOR(pg_catalog.=) $1"
	appNote   = "INSERT INTO " + app + " app.notes VALUES ($1, $2)"
	appCount  = "UPDATE " + app + " app.hits SET n = 1 WHERE id OPERATOR(pg_catalog.=) $1"
)

// sends executes the application's texts.
func (q *questioned) sends(x harness.Asker, texts ...string) {
	q.Helper()
	for _, text := range texts {
		if _, err := x.ExecContext(q.Ctx, text); err != nil {
			q.Fatalf("%v\nin: %s", err, text)
		}
	}
}

// reads reads all rows of the application's question.
func (q *questioned) reads(x harness.Asker, query string, args ...any) {
	q.Helper()
	rows, err := x.QueryContext(q.Ctx, query, args...)
	if err != nil {
		q.Fatalf("%v\nin: %s", err, query)
	}
	for rows.Next() {
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		q.Fatalf("%v\nin: %s", err, query)
	}
}

func (q *questioned) writes(x harness.Asker, query string, args ...any) {
	q.Helper()
	if _, err := x.ExecContext(q.Ctx, query, args...); err != nil {
		q.Fatalf("%v\nin: %s", err, query)
	}
}

// everyStatement is every way into the driver.
func (q *questioned) everyStatement() { q.everyStatementOf(q.DB) }

func (q *questioned) everyStatementOf(db *sql.DB) {
	for range 3 {
		q.reads(db, appRead, 1)
		q.writes(db, appUpdate, 1)
	}
	q.reads(db, appUpdate+" RETURNING id", 2)
	q.sends(db, "DELETE FROM "+app+" app.notes", "INSERT INTO "+app+" app.notes VALUES (1, 1), (2, 1)")
	q.writes(db, appNote, 3, 1)
	q.reads(db, appNote+" RETURNING id", 4, 1) // runs code that PostgreSQL is asked about
	for _, text := range []string{"CALL " + app + " app.commits()", "CREATE " + app + " TABLE app.t (id pg_catalog.int4)", "DROP TABLE " + app + " app.t",
		"CREATE INDEX " + app + " CONCURRENTLY users_name ON app.users (name)", "DROP INDEX " + app + " app.users_name", "VACUUM " + app + " app.users"} {
		q.sends(db, text)
		q.reads(db, appRead, 1)
	}
	for _, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
		for _, options := range []*sql.TxOptions{nil, {ReadOnly: true}, {Isolation: sql.LevelSerializable}} {
			tx, err := db.BeginTx(q.Ctx, options)
			if err != nil {
				q.Fatal(err)
			}
			q.reads(tx, appRead, 1)
			if options == nil {
				q.writes(tx, appUpdate, 1)
				q.writes(tx, "DELETE FROM "+app+" app.notes")
				q.writes(tx, appNote, 9, 1)
				q.reads(tx, appRead, 1)
				q.sends(tx, "CLOSE "+app+" ALL", "DECLARE "+app+" c CURSOR WITH HOLD FOR SELECT name FROM app.users", "SET LOCAL timezone = "+app+" 'UTC'")
			}
			if err := end(tx); err != nil {
				q.Fatal(err)
			}
		}
	}
	conn := q.Conn(db)
	defer conn.Close()
	q.sends(conn, "SET timezone = "+app+" 'Europe/Oslo'", "PREPARE "+app+" p AS SELECT 1", "BEGIN; "+strings.Replace(appUpdate, "$1", "1", 1)+"; COMMIT", "LISTEN "+"c_app",
		"CREATE "+app+" TEMP TABLE own_app (id pg_catalog.int4); SELECT")
	q.reads(conn, appRead, 1)
	q.sends(conn, "SET default_transaction_isolation = "+app+" 'repeatable read'")
	tx, err := conn.BeginTx(q.Ctx, nil)
	if err != nil {
		q.Fatal(err)
	}
	q.reads(tx, appRead, 1)
	q.sends(tx, "SAVEPOINT s_app", "CREATE "+app+" TABLE app.t (id pg_catalog.int4)", "ROLLBACK TO SAVEPOINT s_app")
	q.reads(tx, appRead, 1)
	q.Rollback(tx)
	q.sends(conn, "DISCARD ALL")
	statement, err := db.PrepareContext(q.Ctx, appRead)
	if err != nil {
		q.Fatal(err)
	}
	defer statement.Close()
	q.reads(harness.Prepared{Stmt: statement}, appRead, 3)
	if err := invalidate(q.Ctx, db, "app.users"); err != nil && !errors.Is(err, store.ErrDown) {
		q.Fatal(err)
	}
	if err := db.PingContext(q.Ctx); err != nil {
		q.Fatal(err)
	}
}

func (q *questioned) explains() {
	for _, text := range []string{appRead, appUpdate, "CREATE TABLE " + app + " app.t ()", appNote} {
		explain(q.Via, text)
	}
}

// keeps asks what is asked of PostgreSQL for writers that died, and for a new epoch.
func (q *questioned) keeps() {
	q.everyStatement()
	c, err := dbOf(q.DB).dial(q.Ctx)
	if err != nil {
		q.Fatal(err)
	}
	defer c.Close()
	conn := dbOf(q.DB).newConn(usedByTracer)
	conn.inner, conn.pid = c, c.PID()
	byPID, byID := conn.d.ended(conn.d.space(), 1, "", backend.CommitSync), conn.d.ended(conn.d.space(), 0, "3", backend.CommitAsync)
	for i, ended := range []func(context.Context) (bool, error){byPID, byPID, byID} {
		if over, err := ended(q.Ctx); err != nil || over != (i > 0) {
			q.Errorf("a writer is over: %t, %v", over, err)
		}
	}
	if w := conn.backendWriter(q.Ctx); conn.started == 0 {
		q.Errorf("the start of the backend is not known: %v", w)
	}
}

func (q *questioned) relaysEvents() {
	q.everyStatement()
	stop := relays(q.Via)
	defer stop()
	q.Until("an empty outbox", func() bool { return q.OutboxSize() == 0 })
}

func (q *questioned) follows() {
	q.Until("the feed", func() bool { return dbOf(q.DB).space().Feed.Load().Live() })
	q.everyStatement()
	q.Past("UPDATE app.users SET city = 'Bonn' WHERE id = 1")
	q.Until("the change of another", func() bool { return statsOf(q.DB).Feed.Transactions > 0 })
}

func (q *questioned) queues() {
	for range 3 {
		q.writes(q.DB, appCount, 1)
	}
	q.Drained()
	q.sends(q.DB, "SET timezone = "+app+" 'UTC'")
	q.writes(q.DB, appCount, 2)
	q.everyStatement()
}

// losesRedis commits past a store that cannot be reached: by a relay that reaches
// it, and under a notice.
func (q *questioned) losesRedis() {
	p := q.redis.Proxy()
	writer := q.Process("writer", "cache_store="+q.redis.URLThrough(p))
	stop := relays(q.Via)
	defer stop()
	q.Until("the relay", func() bool {
		announced, err := dbOf(q.DB).space().Keeper.Guard.Yes(q.Ctx, "SELECT "+guard.Held(guard.LockRelay))
		return err == nil && announced
	})
	q.reads(writer.DB, appRead, 1)
	p.Cut()
	q.writes(writer.DB, appUpdate, 1)
	if s := statsOf(writer.DB).Outbox; s.Asked == 0 {
		q.Errorf("the relay was not asked: %+v", s)
	}
	stop()
	q.everyStatementOf(writer.DB)
	p.Restore()
}

func TestEveryQuestionOfTheDriverNamesItsSchemas(t *testing.T) {
	seen := map[string]bool{}
	q := questions.NewQualification()
	askEverything(t, "app,public", nil, func(t *testing.T, w *pgtest.Wire) {
		for _, problem := range q.Unqualified(w.Texts()) {
			if !seen[problem] {
				t.Error(problem)
			}
			seen[problem] = true
		}
	})
}

// relays runs a relay until the test ends, or stop is called.
func relays(v harness.Via) (stop func()) {
	return v.F.Meanwhile("the relay", func(ctx context.Context) error {
		return dbOf(v.DB).Relay(ctx, outbox.RelayOptions{Interval: time.Millisecond})
	})
}
