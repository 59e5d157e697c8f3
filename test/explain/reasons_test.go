package explain

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// explainable is a schema with one of everything that there is a reason for.
const explainable = harness.People + `
	CREATE TABLE orders (id bigint PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE, total numeric);
	CREATE TABLE stock (id int PRIMARY KEY, n int);
	CREATE TABLE log (what text);
	CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
	CREATE SEQUENCE seq;
	CREATE TABLE secrets (id int PRIMARY KEY, note text); ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
	CREATE TABLE shifts (id int PRIMARY KEY, at timetz);
	CREATE VIEW spending AS SELECT u.id, sum(o.total) AS total FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.id;
	CREATE VIEW big AS SELECT * FROM spending WHERE total > 100;
	CREATE FUNCTION vat(numeric) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT $1 * 0.2';
	CREATE FUNCTION half(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 / 2';
	CREATE FUNCTION bump() RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE stock SET n = n + 1; RETURN 1; END';
	CREATE FUNCTION same(int, int) RETURNS bool LANGUAGE sql STABLE AS 'SELECT $1 = $2';
	CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = same);
	CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (TG_OP); RETURN NEW; END';
	CREATE TRIGGER logged AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION logged();
	CREATE FUNCTION elsewhere() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN EXECUTE ''INSERT INTO log VALUES (TG_OP)''; RETURN NEW; END';
	CREATE TRIGGER elsewhere AFTER UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION elsewhere();
	CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
	CREATE FOREIGN TABLE remote (id int) SERVER nowhere;`

// explained are statements that explain themselves, without a situation. What
// is cacheable has no reason.
var explained = []struct {
	reason keying.Reason
	sql    string
	args   []any
}{
	{keying.NoReason, "SELECT * FROM users WHERE id = $1", []any{1}},
	{keying.NoReason, "SELECT * FROM users WHERE id = $1", []any{"1"}},
	{keying.NoReason, "SELECT * FROM users WHERE id = 2", nil},
	{keying.NoReason, "SELECT * FROM users WHERE id IN (1, 2)", nil},
	{keying.NoReason, "SELECT * FROM users WHERE id = ANY($1)", []any{[]int32{3}}},
	{keying.NoReason, "SELECT * FROM users WHERE id = ANY($1::int[])", []any{[]int32{2, 3}}},
	{keying.NoReason, "SELECT * FROM users WHERE city = $1 ORDER BY id LIMIT 10", []any{"Oslo"}},
	{keying.NoReason, "SELECT count(*), max(id) FROM users", nil},
	{keying.NoReason, "SELECT u.name, o.total FROM orders o JOIN users u ON u.id = o.user_id WHERE o.id = $1", []any{int64(1)}},
	{keying.NoReason, "SELECT * FROM spending", nil},
	{keying.NoReason, "SELECT * FROM big WHERE id = $1", []any{1}},
	{keying.NoReason, "SELECT half(total), current_user, lower($1) FROM orders", []any{"A"}},
	{keying.NoReason, "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n", nil},
	{keying.NoReason, "SELECT id, rank() OVER (ORDER BY name) FROM users", nil},
	{keying.NoReason, "VALUES (1), (2)", nil},
	{keying.NoReason, "TABLE users", nil},
	{keying.NoReason, "/* cachedpg: ttl=30s */ SELECT name FROM users WHERE id = 1", nil},

	{keying.NotRead, "UPDATE users SET name = 'x' WHERE id = $1", []any{1}},
	{keying.NotRead, "DELETE FROM users WHERE id = $1", []any{9}},
	{keying.NotRead, "INSERT INTO users VALUES (4, 'dan') RETURNING id", nil},
	{keying.NotRead, "INSERT INTO stock VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = 2", nil},
	{keying.NotRead, "UPDATE stock SET n = 3", nil},
	{keying.NotRead, "MERGE INTO stock s USING (VALUES (1)) v(id) ON s.id = v.id WHEN MATCHED THEN UPDATE SET n = 0", nil},
	{keying.NotRead, "WITH gone AS (DELETE FROM stock RETURNING id) SELECT * FROM gone", nil},
	{keying.NotRead, "SELECT * INTO copied FROM users", nil},
	{keying.NotRead, "TRUNCATE log", nil},
	{keying.NotRead, "CREATE TABLE made (id int)", nil},
	{keying.NotRead, "ALTER TABLE users ADD age int", nil},
	{keying.NotRead, "GRANT SELECT ON users TO PUBLIC", nil},
	{keying.NotRead, "REFRESH MATERIALIZED VIEW nothing", nil},
	{keying.NotRead, "BEGIN", nil},
	{keying.NotRead, "COMMIT", nil},
	{keying.NotRead, "SET TIME ZONE 'Asia/Tokyo'", nil},
	{keying.NotRead, "SET LOCAL work_mem = '8MB'", nil},
	{keying.NotRead, "DISCARD ALL", nil},
	{keying.NotRead, "SHOW work_mem", nil},
	{keying.NotRead, "EXPLAIN SELECT * FROM users", nil},
	{keying.NotRead, "EXPLAIN ANALYZE UPDATE stock SET n = 4", nil},
	{keying.NotRead, "DO 'BEGIN UPDATE stock SET n = 1; END'", nil},
	{keying.NotRead, "LOCK TABLE users", nil},
	{keying.NotRead, "NOTIFY something", nil},
	{keying.NotRead, "PREPARE p AS SELECT 1", nil},
	{keying.NotRead, "VACUUM log", nil},
	{keying.NotRead, "", nil},
	{keying.SeveralStatements, "SELECT 1; SELECT 2", nil},
	{keying.Unparsed, "SELEC 1", nil},
	{keying.RowLock, "SELECT * FROM users WHERE id = 1 FOR UPDATE", nil},
	{keying.RowLock, "SELECT * FROM users FOR KEY SHARE", nil},
	{keying.Sample, "SELECT * FROM users TABLESAMPLE system (50)", nil},
	{keying.UnknownRelation, "SELECT * FROM nowhere", nil},
	{keying.SystemCatalog, "SELECT relname FROM pg_class", nil},
	{keying.UnloggedTable, "SELECT * FROM fast", nil},
	{keying.ForeignTable, "SELECT * FROM remote", nil},
	{keying.SequenceRead, "SELECT last_value FROM seq", nil},
	{keying.RowSecurity, "SELECT * FROM secrets", nil},
	{keying.SystemColumn, "SELECT ctid FROM users", nil},
	{keying.UnknownFunction, "SELECT nothing_like_it(1)", nil},
	{keying.VolatileFunction, "SELECT random()", nil},
	{keying.VolatileFunction, "SELECT nextval('seq')", nil},
	{keying.StableFunction, "SELECT * FROM users WHERE now() > '2020-01-01'", nil},
	{keying.UserFunction, "SELECT vat(total) FROM orders", nil},
	{keying.WritingFunction, "SELECT bump()", nil},
	{keying.SessionFunction, "SELECT set_config('work_mem', '4MB', false)", nil},
	{keying.UnknownOperator, "SELECT * FROM users WHERE id @#@ 1", nil},
	{keying.UserOperator, "SELECT * FROM users WHERE id === 1", nil},
	{keying.UnknownType, "SELECT '1'::nothing", nil},
	{keying.CatalogType, "SELECT 'users'::regclass", nil},
	{keying.ClockType, "SELECT * FROM shifts", nil},
	{keying.ClockKeyword, "SELECT current_date", nil},
	{keying.ClockCast, "SELECT name::date FROM users WHERE false", nil},
	{keying.SessionKeyword, "SELECT current_schema", nil},
	{keying.ClockInput, "SELECT * FROM users WHERE name = 'today'", nil},
	{keying.ClockInput, "SELECT * FROM users WHERE name = $1", []any{"now"}},
	{keying.Argument, "SELECT $1", []any{struct{}{}}},
	{keying.NamedArgument, "SELECT $1", []any{sql.Named("id", 1)}},
	{keying.HintBypass, "/* cachedpg: bypass */ SELECT * FROM users", nil},
	{keying.ResultFormats, "SELECT id FROM users", []any{pgx.QueryResultFormats{1}}},
}

// What Explain says of a statement is what the stats count when it then runs.
func TestExplainAgreesWithWhatHappens(t *testing.T) {
	t.Parallel()
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", explainable, keys...)
		f.Warm(harness.UserByID, 1)
		for _, s := range explained {
			x := outside.Explain(f.Via, s.sql, s.args...)
			if want := reasonName(s.reason); x.Reason != want || x.Cacheable != (want == "") {
				t.Errorf("%s: got reason %q, want %q", s.sql, x.Reason, want)
			}
			f.Released()
			before := inside.Counted(f.DB)
			runOnce(f, s.sql, s.args)
			got, want := harness.Difference(before, inside.Counted(f.DB)), "bypass "+x.Reason
			if x.Cacheable && (got == "hit" || got == "miss") {
				if got == "miss" && f.InMemory() {
					stored(f, s.sql, x)
				}
				continue
			}
			if got != want {
				t.Errorf("%s: counted as %q, explained as %q", s.sql, got, want)
			}
		}
	})
}

// runOnce runs a statement, which may fail, on a connection of its own.
func runOnce(f *harness.Fixture, query string, args []any) {
	f.Helper()
	conn := f.Conn(f.DB)
	defer conn.Close()
	if rows, err := conn.QueryContext(f.Ctx, query, args...); err == nil {
		for rows.Next() {
		}
		rows.Close()
	}
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // not to the pool again
}

// stored: there is an entry under the key that was explained. The store in
// memory knows by itself which tags it has.
func stored(f *harness.Fixture, query string, x *cachedpg.Explanation) {
	f.Helper()
	var key store.Key
	if n, err := hex.Decode(key[:], []byte(x.Key.Digest)); n != len(key) || err != nil {
		f.Fatalf("%s: digest %q", query, x.Key.Digest)
	}
	var stamps [1]store.Stamp
	if _, outcome, err := inside.Store(f.DB).Lookup(f.Ctx, key, []store.Tag{{Kind: store.TagSchema}}, stamps[:]); outcome != store.Hit {
		f.Errorf("%s: under the key is a %s, %v", query, outcome, err)
	}
}

func reasonName(r keying.Reason) string {
	if r == keying.NoReason {
		return ""
	}
	return r.String()
}

// limited is a connection to a database that keeps something to itself.
type limited struct {
	*backend.Pgx
	standby, noSession, noCatalog bool
}

func (in *limited) Learn(ctx context.Context) (*backend.Session, uint32, error) {
	s, pid, err := in.Pgx.Learn(ctx)
	if err == nil && in.noSession {
		return nil, 0, errors.New("permission denied")
	}
	if err == nil && in.standby {
		s.Standby = true
	}
	return s, pid, err
}

func (in *limited) LoadCatalog(ctx context.Context, before *catalog.Snapshot) (*catalog.Snapshot, error) {
	if in.noCatalog {
		return nil, errors.New("permission denied")
	}
	return in.Pgx.LoadCatalog(ctx, before)
}

// limits opens a database on which every connection is limited.
func limits(f *harness.Fixture, how limited, keys ...string) harness.Via {
	f.Helper()
	c, err := (&cachedpg.Driver{}).OpenConnector(harness.WithKeys(f.DSN, keys))
	if err != nil {
		f.Fatal(err)
	}
	inside.Process(c, "limited "+rand.Text())
	inside.Dialled(c, func(in backend.Conn) backend.Conn {
		own := how
		own.Pgx = in.(*backend.Pgx)
		return &own
	})
	db := sql.OpenDB(c)
	f.Cleanup(func() { db.Close() })
	return f.Asking(db)
}

// explainedSituations are reasons that a text alone does not give.
var explainedSituations = map[keying.Reason]func(f *harness.Fixture) *cachedpg.Explanation{
	keying.TemporaryTable: func(f *harness.Fixture) *cachedpg.Explanation {
		v, conn := ownSession(f.With(), "CREATE TEMPORARY TABLE mine (id int)")
		return outside.ExplainOn(v, conn, "SELECT * FROM mine")
	},
	keying.TemporaryObjects: func(f *harness.Fixture) *cachedpg.Explanation {
		v, conn := ownSession(f.With(), "CREATE TEMPORARY TABLE mine (id int)", "SET search_path = cache_statement, pg_temp")
		return outside.ExplainOn(v, conn, "SELECT * FROM users")
	},
	keying.UnreadableView: func(f *harness.Fixture) *cachedpg.Explanation {
		tx, err := f.Plain.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer f.Rollback(tx)
		if _, err := tx.ExecContext(f.Ctx, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"); err != nil {
			f.Fatal(err)
		}
		return outside.Explain(limits(f, limited{}), "SELECT * FROM spending")
	},
	keying.UserType: func(f *harness.Fixture) *cachedpg.Explanation {
		f.Exec("CREATE FUNCTION fits(int) RETURNS bool LANGUAGE sql STABLE AS 'SELECT $1 > 0'; CREATE DOMAIN size AS int CHECK (fits(VALUE))")
		f.Exec("CREATE TABLE shoes (id int PRIMARY KEY, of size)")
		return outside.Explain(f.Via, "SELECT * FROM shoes")
	},
	keying.UserCast: func(f *harness.Fixture) *cachedpg.Explanation {
		f.Exec("CREATE TYPE celsius AS (d int); CREATE FUNCTION degrees(celsius) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'; CREATE CAST (celsius AS int) WITH FUNCTION degrees(celsius)")
		f.Exec("CREATE TABLE weather (id int PRIMARY KEY, c celsius)")
		return outside.Explain(f.Via, "SELECT c::int FROM weather")
	},
	keying.InTransactionAfterWrite: func(f *harness.Fixture) *cachedpg.Explanation {
		_, conn := ownSession(f.Via, "BEGIN", "UPDATE users SET name = 'x' WHERE id = 1")
		if x := outside.ExplainOn(f.Via, conn, "SELECT * FROM users WHERE id = 2"); !x.Cacheable || strings.Contains(x.String(), "only a result with rows") {
			f.Errorf("another row: %s", x)
		}
		return outside.ExplainOn(f.Via, conn, "SELECT * FROM users WHERE id = 1")
	},
	keying.Isolation: func(f *harness.Fixture) *cachedpg.Explanation {
		_, conn := ownSession(f.Via, "BEGIN ISOLATION LEVEL REPEATABLE READ")
		return outside.ExplainOn(f.Via, conn, "SELECT * FROM users")
	},
	keying.FailedTransaction: func(f *harness.Fixture) *cachedpg.Explanation {
		_, conn := ownSession(f.Via, "BEGIN")
		if _, err := conn.ExecContext(f.Ctx, "SELECT 1/0"); err == nil {
			f.Fatal("1/0 is no error")
		}
		return outside.ExplainOn(f.Via, conn, "SELECT * FROM users")
	},
	keying.ContextBypass: func(f *harness.Fixture) *cachedpg.Explanation {
		return explainUsers(f.In(cachedpg.WithBypass))
	},
	keying.PolicyOff: func(f *harness.Fixture) *cachedpg.Explanation {
		x := outside.Explain(f.With("cache_policy=orders:off"), "SELECT * FROM big")
		if x.Policy != "off" || !slices.ContainsFunc(x.Reads, func(tag string) bool { return strings.HasSuffix(tag, ".orders") }) {
			f.Errorf("policy %q, reads %q", x.Policy, x.Reads)
		}
		return x
	},
	keying.CacheOff: func(f *harness.Fixture) *cachedpg.Explanation {
		return explainUsers(limits(f, limited{}, "cache_store=off"))
	},
	keying.WriteOnly: func(f *harness.Fixture) *cachedpg.Explanation {
		return explainUsers(f.Beside("write-only", "cache_mode=write-only", "cache_store="+pgtest.Redis(f.T)))
	},
	keying.OtherStore: func(f *harness.Fixture) *cachedpg.Explanation {
		f.Fresh("SELECT * FROM users") // whose store counts
		return explainUsers(f.With("cache_store=" + pgtest.Redis(f.T)))
	},
	keying.OtherWriter: func(f *harness.Fixture) *cachedpg.Explanation {
		reader := f.Beside("reader")
		reader.Fresh("SELECT * FROM users")
		f.Exec("UPDATE users SET name = name")
		f.Until("the writer to be seen", func() bool { return errors.Is(reader.DB.PingContext(f.Ctx), cachedpg.ErrWithheld) })
		return explainUsers(reader)
	},
	keying.HotStandby: func(f *harness.Fixture) *cachedpg.Explanation { return explainUsers(limits(f, limited{standby: true})) },
	keying.SessionUnknown: func(f *harness.Fixture) *cachedpg.Explanation {
		return explainUsers(limits(f, limited{noSession: true}))
	},
	keying.CatalogUnavailable: func(f *harness.Fixture) *cachedpg.Explanation {
		return explainUsers(limits(f, limited{noCatalog: true}))
	},
}

func explainUsers(v harness.Via) *cachedpg.Explanation {
	v.F.Helper()
	return outside.CountedAs(v, outside.Explain(v, "SELECT * FROM users"), "SELECT * FROM users")
}

// ownSession takes a connection and executes statements on it.
func ownSession(v harness.Via, statements ...string) (harness.Via, *sql.Conn) {
	v.F.Helper()
	conn := v.F.Conn(v.DB)
	for _, s := range statements {
		v.On(conn).Exec(s)
	}
	return v.On(conn), conn
}

// notExplained are the reasons that Explain never gives: those that pass by
// themselves, and what only the result or the failure of a call can tell.
var notExplained = map[keying.Reason]string{
	keying.Unwatched:   "passes by itself",
	keying.Warming:     "passes by itself",
	keying.StoreError:  "passes by itself",
	keying.StoreDown:   "passes by itself",
	keying.FeedDown:    "passes by itself, or is a note",
	keying.NotFollowed: "needs version 18, see TestATableWithoutAnIdentityIsLeftOutOfTheCache",
	keying.DirtyTag:    "passes by itself",
	keying.TooLarge:    "known when the result is",
	keying.NoGain:      "passes by itself; in the notes while it lasts",
	keying.Rewriter:    "the call fails",
}

// Every reason that the stats count has a statement or a situation in which
// Explain gives it.
func TestExplainGivesEveryReason(t *testing.T) {
	harness.ScenarioOnce(t, explainable, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		shown := make(map[keying.Reason]bool)
		for _, s := range explained {
			shown[s.reason] = true
		}
		for _, reason := range slices.Sorted(maps.Keys(explainedSituations)) {
			f.Step(reason.String(), func(f *harness.Fixture) {
				x := explainedSituations[reason](f)
				if x.Cacheable || x.Reason != reason.String() || x.Because != reason.Words() || x.Remedy != reason.Remedy() {
					f.Errorf("got:\n%s", x)
				}
			})
			shown[reason] = true
		}
		for _, reason := range keying.Reasons() {
			if _, never := notExplained[reason]; never == shown[reason] {
				f.Errorf("%s: shown %v, not explained %v", reason, shown[reason], never)
			}
		}
	})
}
