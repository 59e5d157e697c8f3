package core

import (
	"context"
	"database/sql"
	encodingjson "encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pg_query "github.com/pganalyze/pg_query_go/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/outbox"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/internal/setup"
	"github.com/cachedpg/cachedpg/internal/space"
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

const app = "/*app*/"

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
	k := keeperOf(q.Via)
	writers := []store.WriterID{store.NewTransactionWriter(3), store.NewBackendWriter(1, time.Unix(1, 0)), store.NewWriter()}
	if over := k.Guard.Over(q.Ctx, writers); len(over) != 2 {
		q.Errorf("%d writers of two are over", len(over))
	}
	ours := &space.Keeper{Store: k.Store, Log: k.Log}
	ours.Guard.ID = k.Guard.ID
	for _, d := range k.Guard.All() {
		ours.Guard.Add(d)
	}
	ours.Watch.Guard, ours.Life = &ours.Guard, q.Ctx
	ours.Peers = peers.New(&ours.Guard, "", k.Peers.Self, "", nil)
	defer ours.Guard.Close()
	for range 2 {
		ours.Orphaned(q.Ctx, writers)
	}
	if _, err := ours.Sure(q.Ctx, store.Fresh{Epoch: "a new epoch", Marked: writers}); err != nil {
		q.Error(err)
	}
	if _, err := ours.Sure(q.Ctx, store.Fresh{Epoch: "another", Kept: true}); err != nil {
		q.Error(err)
	}
	ours.Notice.Guard = &ours.Guard
	ours.Notice.Enter()
	posted, err := ours.Notice.Post(q.Ctx)
	if err != nil {
		q.Fatal(err)
	}
	if !ours.Notice.Hold(q.Ctx, posted) {
		q.Error("the notice is gone")
	}
	ours.Notice.Leave()
	ours.Notice.Lift()
	c, err := k.Guard.Dial(q.Ctx)
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
	q := newQualification()
	askEverything(t, "app,public", nil, func(t *testing.T, w *pgtest.Wire) {
		for _, problem := range q.unqualified(w.Texts()) {
			if !seen[problem] {
				t.Error(problem)
			}
			seen[problem] = true
		}
	})
}

// qualification is what is known of texts that were looked at. Most are sent again and again.
type qualification struct {
	looked int          // how many
	alone  map[int]bool // connections on whose path is pg_catalog alone, in a transaction
	own    map[int]bool // those of which that is so for the whole session, which nobody else uses
	parsed map[string]*pg_query.ParseResult
	named  map[string][]string // what names says of a statement
}

func newQualification() *qualification {
	return &qualification{alone: map[int]bool{}, own: map[int]bool{}, parsed: map[string]*pg_query.ParseResult{}, named: map[string][]string{}}
}

// unqualified says of every name without a schema in the texts that are new what it is, but for
// those of the application.
func (q *qualification) unqualified(texts []pgtest.Text) (problems []string) {
	for _, text := range texts[q.looked:] {
		if slices.ContainsFunc([]string{"IDENTIFY_SYSTEM", "CREATE_REPLICATION_SLOT ", "START_REPLICATION "}, func(command string) bool {
			return strings.HasPrefix(text.SQL, command)
		}) {
			continue // no SQL
		}
		tree := q.parsed[text.SQL]
		if tree == nil {
			var err error
			if tree, err = pg_query.Parse(text.SQL); err != nil {
				problems = append(problems, fmt.Sprintf("%v\nin: %s", err, text.SQL))
				continue
			}
			q.parsed[text.SQL] = tree
		}
		for _, statement := range tree.Stmts {
			start, end := int(statement.StmtLocation), int(statement.StmtLocation+statement.StmtLen)
			if statement.StmtLen == 0 {
				end = len(text.SQL)
			}
			sql := text.SQL[start:end]
			if set := statement.Stmt.GetVariableSetStmt(); set != nil && set.Name == "search_path" && !set.IsLocal {
				q.own[text.Client] = sql == "SET search_path = pg_catalog, pg_temp"
			} else if set != nil && set.Name == "search_path" {
				q.alone[text.Client] = sql == "\nSET LOCAL search_path = pg_catalog, pg_temp" || sql == "SET LOCAL search_path = pg_catalog, pg_temp"
			}
			if statement.Stmt.GetTransactionStmt() != nil {
				delete(q.alone, text.Client)
			}
			if strings.Contains(sql, app) || q.alone[text.Client] || q.own[text.Client] {
				continue
			}
			if _, known := q.named[sql]; !known {
				q.named[sql] = names(sql)
			}
			for _, problem := range q.named[sql] {
				problems = append(problems, problem+"\nin: "+sql)
			}
		}
	}
	q.looked = len(texts)
	return problems
}

// names returns what the statement names without a schema.
func names(sql string) (problems []string) {
	text, err := pg_query.ParseToJSON(sql)
	if err != nil {
		return []string{err.Error()}
	}
	var tree any
	if err := encodingjson.Unmarshal([]byte(text), &tree); err != nil {
		return []string{err.Error()}
	}
	w := nameWalk{ctes: map[string]bool{}}
	w.collect(tree)
	w.walk(tree)
	return w.problems
}

type nameWalk struct {
	ctes     map[string]bool
	problems []string
}

func (w *nameWalk) collect(node any) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			w.collect(child)
		}
	case map[string]any:
		if name, ok := node["ctename"].(string); ok {
			w.ctes[name] = true
		}
		for _, child := range node {
			w.collect(child)
		}
	}
}

// parts are the parts of a name.
func parts(list any) (parts []string) {
	items, _ := list.([]any)
	for _, item := range items {
		if s, ok := item.(map[string]any)["String"].(map[string]any); ok {
			part, _ := s["sval"].(string)
			parts = append(parts, part)
		}
	}
	return parts
}

func (w *nameWalk) name(what string, list any) {
	if p := parts(list); len(p) < 2 || !slices.Contains([]string{"pg_catalog", config.OwnSchema}, p[0]) {
		w.problems = append(w.problems, fmt.Sprintf("the %s %q is found by the search_path", what, strings.Join(p, ".")))
	}
}

func (w *nameWalk) walk(node any) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			w.walk(child)
		}
	case map[string]any:
		w.look(node)
		for _, child := range node {
			w.walk(child)
		}
	}
}

func (w *nameWalk) look(node map[string]any) {
	if list, ok := node["funcname"]; ok {
		w.name("function", list)
	}
	_, typmod := node["typemod"]
	if list, ok := node["names"]; ok && typmod {
		w.name("type", list)
	}
	if name, ok := node["relname"].(string); ok {
		schema, _ := node["schemaname"].(string)
		if schema != "pg_catalog" && schema != config.OwnSchema && !(schema == "" && w.ctes[name]) {
			w.problems = append(w.problems, fmt.Sprintf("the relation %q is found by the search_path", name))
		}
	}
	if e, ok := node["A_Expr"].(map[string]any); ok {
		switch kind := e["kind"]; kind {
		case "AEXPR_OP", "AEXPR_OP_ANY", "AEXPR_OP_ALL":
			w.name("operator", e["name"])
		default:
			w.problems = append(w.problems, fmt.Sprintf("the operators of %v are found by the search_path", kind))
		}
	}
	if s, ok := node["SubLink"].(map[string]any); ok && s["testexpr"] != nil {
		w.name("operator before a SELECT", s["operName"])
	}
	if e, ok := node["CaseExpr"].(map[string]any); ok && e["arg"] != nil {
		w.problems = append(w.problems, "the = of CASE x WHEN is found by the search_path")
	}
	if j, ok := node["JoinExpr"].(map[string]any); ok && (j["usingClause"] != nil || j["isNatural"] == true) {
		w.problems = append(w.problems, "the = of USING is found by the search_path")
	}
	if s, ok := node["SortBy"].(map[string]any); ok && s["useOp"] != nil {
		w.name("operator of ORDER BY", s["useOp"])
	}
	if f, ok := node["CreateFunctionStmt"].(map[string]any); ok {
		if options, _ := encodingjson.Marshal(f["options"]); !strings.Contains(string(options), `"name":"search_path"`) {
			w.problems = append(w.problems, fmt.Sprintf("the body of %q has the search_path of whoever calls it", strings.Join(parts(f["funcname"]), ".")))
		}
	}
	if d, ok := node["DoStmt"].(map[string]any); ok {
		w.body(d)
	}
}

// body looks into the SQL of a DO.
func (w *nameWalk) body(do map[string]any) {
	args, _ := do["args"].([]any)
	for _, arg := range args {
		option, _ := arg.(map[string]any)["DefElem"].(map[string]any)
		if option["defname"] != "as" {
			continue
		}
		source := option["arg"].(map[string]any)["String"].(map[string]any)["sval"].(string)
		text, err := pg_query.ParsePlPgSqlToJSON("CREATE FUNCTION cachedpg.do() RETURNS pg_catalog.void LANGUAGE plpgsql AS $do$" + source + "$do$")
		if err != nil {
			w.problems = append(w.problems, err.Error())
			continue
		}
		var tree any
		if err := encodingjson.Unmarshal([]byte(text), &tree); err != nil {
			w.problems = append(w.problems, err.Error())
			continue
		}
		w.expressions(tree)
	}
}

func (w *nameWalk) expressions(node any) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			w.expressions(child)
		}
	case map[string]any:
		if e, ok := node["PLpgSQL_expr"].(map[string]any); ok {
			query, _ := e["query"].(string)
			if _, err := pg_query.Parse(query); err != nil {
				query = "SELECT " + query
			}
			w.problems = append(w.problems, names(query)...)
		}
		for _, child := range node {
			w.expressions(child)
		}
	}
}

func TestNamesWithoutSchemasAreFound(t *testing.T) {
	for text, want := range map[string]int{
		"SELECT pg_catalog.now(), coalesce(1, 2), CASE WHEN true THEN 1 END, current_user, extract(epoch FROM pg_catalog.now())": 0,
		"SELECT now()": 1, "SELECT 1 = 2": 1, "SELECT 1 OPERATOR(pg_catalog.=) 2": 0, "SELECT 1 OPERATOR(public.=) 2": 1,
		"SELECT 'x'::text": 1, "SELECT 'x'::pg_catalog.text": 0, "SELECT 'x'::bigint": 0, "SELECT ARRAY['x']::text[]": 1,
		"SELECT 1 FROM pg_class": 1, "WITH x AS (SELECT 1) SELECT FROM x": 0, "SELECT 1 IN (1, 2)": 1, "SELECT 1 IN (SELECT 1)": 1,
		"SELECT 1 OPERATOR(pg_catalog.=) ANY (SELECT 1)": 0, "SELECT 'a' LIKE 'b'": 1, "SELECT 1 BETWEEN 1 AND 2": 1, "SELECT 1 IS DISTINCT FROM 2": 1,
		"SELECT NULLIF(1, 2)": 1, "SELECT CASE 1 WHEN 2 THEN 3 END": 1, "SELECT FROM cachedpg.outbox a JOIN cachedpg.outbox b USING (id)": 1,
		"SELECT FROM cachedpg.outbox ORDER BY id USING <": 1, "UPDATE cachedpg.outbox SET local = true": 0, "CREATE TABLE cachedpg.t (a bytea)": 1,
		"DO $$ BEGIN IF 1 = 2 THEN PERFORM now(); END IF; END $$":                 2,
		"CREATE FUNCTION cachedpg.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$": 1,
	} {
		if got := newQualification().unqualified([]pgtest.Text{{SQL: text}}); len(got) != want {
			t.Errorf("%s: got %q, want %d problems", text, got, want)
		}
	}
}

// relays runs a relay until the test ends, or stop is called.
func relays(v harness.Via) (stop func()) {
	return v.F.Meanwhile("the relay", func(ctx context.Context) error {
		return dbOf(v.DB).Relay(ctx, outbox.RelayOptions{Interval: time.Millisecond})
	})
}

func keeperOf(v harness.Via) *space.Keeper { return dbOf(v.DB).space().Keeper }
