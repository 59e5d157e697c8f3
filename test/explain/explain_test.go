package explain

import (
	"context"
	"database/sql"
	jsontext "encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/keying"
)

// What only the moment tells is left out: a store that is away, a cache that warms up.
func TestExplainNeedsNoStore(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		gone := limits(f, limited{}, "cache_store=redis://127.0.0.1:1/0")
		x := outside.Explain(gone, harness.UserByID, 1)
		if !x.Cacheable || len(x.Reads) < 3 {
			f.Errorf("without its Redis:\n%s", x)
		}
		tx, err := f.Plain.BeginTx(f.Ctx, nil)
		if err != nil {
			f.Fatal(err)
		}
		defer f.Rollback(tx)
		if _, err := tx.ExecContext(f.Ctx, "UPDATE users SET name = 'x'"); err != nil {
			f.Fatal(err)
		}
		cold := limits(f, limited{})
		if x := outside.Explain(cold, harness.UserByID, 1); !x.Cacheable {
			f.Errorf("with a transaction under way:\n%s", x)
		}
		cold.Bypass(keying.Warming, harness.UserByID, 1)
	})
}

func TestExplainRunsNothing(t *testing.T) {
	harness.ScenarioOnce(t, explainable, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		before := inside.Counted(f.DB)
		for _, query := range []string{
			"DELETE FROM users", "DROP TABLE users", "SELECT bump()", "SELECT nextval('seq')", "BEGIN", "SET work_mem = '1GB'",
			"DO 'BEGIN DELETE FROM users; END'", "TRUNCATE users CASCADE", "COPY users FROM STDIN",
		} {
			outside.Explain(f.Via, query)
		}
		if met := harness.Difference(before, inside.Counted(f.DB)); met != "" {
			f.Errorf("counted as %s", met)
		}
		f.Hit(harness.UserByID, 1)
		f.Fresh("SELECT is_called FROM seq").Is("false")
		f.Fresh("SHOW work_mem")
	})
}

func TestWhatExplainSays(t *testing.T) {
	harness.ScenarioOnce(t, explainable, func(f *harness.Fixture) {
		const s = "cache_statement."
		byKey := []string{"schema", "rows " + s + "users(id)", "row " + s + "users(id = $1)", "new " + s + "users(id), if no row is found"}
		for _, test := range []struct {
			name, sql          string
			args               []any
			reads, invalidates []string
			asks               bool
			notes              string
		}{
			{name: "rows are named by parameter", sql: "SELECT * FROM users WHERE id = $1", args: []any{1}, reads: byKey},
			{name: "without arguments too", sql: "SELECT * FROM users WHERE id = $1", reads: byKey},
			{name: "an argument that is no key", sql: "SELECT * FROM users WHERE id = $1", args: []any{1.5}, reads: []string{"schema", "table " + s + "users"}},
			{name: "several values are rows if all are found", sql: "SELECT * FROM users WHERE id IN ($1, $2)", reads: []string{"schema", "rows " + s + "users(id)",
				"row " + s + "users(id = $1)", "row " + s + "users(id = $2)", "new " + s + "users(id), if fewer than 2 rows are found"}},
			{name: "several literals have one name", sql: "SELECT * FROM users WHERE id IN (1, 2, 3)", reads: []string{"schema", "rows " + s + "users(id)",
				"row " + s + "users(id = $int)", "new " + s + "users(id), if fewer than 3 rows are found"}},
			{name: "literals are not shown", sql: "SELECT * FROM users WHERE id = -7", reads: []string{
				"schema", "rows " + s + "users(id)", "row " + s + "users(id = -$int)", "new " + s + "users(id), if no row is found"}},
			{name: "views name their tables", sql: "SELECT * FROM big", reads: []string{"schema", "rows there of " + s + "users", "table " + s + "orders"},
				notes: "View " + s + "big reads " + s + "users, " + s + "orders."},
			{name: "a write by key", sql: "UPDATE users SET name = 'x' WHERE id = $1", invalidates: []string{"table " + s + "users", "rows there of " + s + "users", "row " + s + "users(id = $1)"}},
			{name: "a write of several keys", sql: "UPDATE users SET name = $3 WHERE id IN ($2, $1)",
				invalidates: []string{"table " + s + "users", "rows there of " + s + "users", "row " + s + "users(id = $2)", "row " + s + "users(id = $1)"}},
			{name: "literals are one row", sql: "DELETE FROM orders WHERE id IN (1, 2, 3)", invalidates: []string{"table " + s + "orders", "values " + s + "orders(user_id)", "row " + s + "orders(id = $int)"}, notes: "for which it reads user_id: results with other values stay"},
			{name: "an array", sql: "DELETE FROM orders WHERE id = ANY($1)", invalidates: []string{"table " + s + "orders", "values " + s + "orders(user_id)", "row " + s + "orders(id = ANY ($1))"}, notes: "for which it reads user_id: results with other values stay"},
			{name: "an array of two", sql: "DELETE FROM orders WHERE id = ANY($1)", args: []any{[]int64{1, 2}}, invalidates: []string{"table " + s + "orders", "values " + s + "orders(user_id)", "row " + s + "orders(id = ANY ($1))"}, notes: "for which it reads user_id: results with other values stay"},
			{name: "an insert", sql: "INSERT INTO log VALUES ('a')", invalidates: []string{"table " + s + "log"}},
			{name: "a foreign key", sql: "DELETE FROM users WHERE id = $1", invalidates: []string{
				"table " + s + "users", "rows there of " + s + "users", "table " + s + "orders", "rows " + s + "orders(id)", "row " + s + "users(id = $1)", "values " + s + "orders(user_id = $1)"}},
			{name: "a trigger that is understood", sql: "INSERT INTO orders VALUES (1, 1, 1)", invalidates: []string{"table " + s + "orders", "table " + s + "log", "row " + s + "orders(id = $int)", "values " + s + "orders(user_id = $int)"}},
			{name: "a trigger that is not", sql: "UPDATE stock SET n = 1 WHERE id = $1", invalidates: []string{"table " + s + "stock", "row " + s + "stock(id = $1)"}, asks: true},
			{name: "DDL", sql: "DROP TABLE log", invalidates: []string{"everything"}, notes: "change the schema"},
			{name: "COPY", sql: "COPY log FROM STDIN", invalidates: []string{"table " + s + "log"}},
			{name: "SET", sql: "SET TimeZone = 'UTC'", notes: "It changes the session's settings: what is read after it has entries of its own."},
			{name: "a setting of no key", sql: "SET work_mem = '1MB'"},
			{name: "a setting by a function", sql: "SELECT set_config($1, 'x', false)", args: []any{"TimeZone"}, notes: "they are read again after it"},
			{name: "COMMIT", sql: "COMMIT", notes: "what that has written is invalidated"},
			{name: "a typo", sql: "SELEC 1", asks: true, notes: "PostgreSQL's grammar does not accept the text"},
			{name: "a name that is not there", sql: "INSERT INTO nowhere VALUES (1)", asks: true, notes: "not in the schema"},
		} {
			f.Step(test.name, func(f *harness.Fixture) {
				x := outside.Explain(f.Via, test.sql, test.args...)
				if !slices.Equal(x.Reads, test.reads) {
					f.Errorf("reads:\ngot  %q\nwant %q", x.Reads, test.reads)
				}
				if !slices.Equal(x.Invalidates, test.invalidates) {
					f.Errorf("invalidates:\ngot  %q\nwant %q", x.Invalidates, test.invalidates)
				}
				if x.Asks != test.asks || (x.Asking != "") != test.asks {
					f.Errorf("asks: got %v %q, want %v", x.Asks, x.Asking, test.asks)
				}
				if notes := strings.Join(x.Notes, "\n"); !strings.Contains(notes, test.notes) || test.notes == "" && notes != "" {
					f.Errorf("notes: got %q, want %q among them", notes, test.notes)
				}
			})
		}
	})
}

func TestExplainSaysHowLong(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		short := f.With("cache_ttl=10m", "cache_policy=users:cache-aside:5m")
		minute := func(ctx context.Context) context.Context { return cachedpg.WithTTL(ctx, time.Minute) }
		for name, test := range map[string]struct {
			x    *cachedpg.Explanation
			want string
		}{
			"by default":           {outside.Explain(f.Via, harness.UserByID), "1h0m0s"},
			"by cache_ttl":         {outside.Explain(short, "SELECT 1"), "10m0s"},
			"by a policy":          {outside.Explain(short, harness.UserByID), "5m0s"},
			"by a comment":         {outside.Explain(short, "/* cachedpg: ttl=30s */ "+harness.UserByID), "30s"},
			"by a context":         {outside.Explain(short.In(minute), harness.UserByID), "1m0s"},
			"what is never cached": {outside.Explain(short, "SELECT now()"), ""},
		} {
			if test.x.TTL != test.want {
				f.Errorf("%s: got %q, want %q", name, test.x.TTL, test.want)
			}
		}
	})
}

// A row is named by parameter without arguments exactly where it is with some.
func TestExplainWithoutArguments(t *testing.T) {
	harness.ScenarioOnce(t, harness.People+`
		CREATE TABLE members (team uuid, person bigint, admin bool, handle text UNIQUE, PRIMARY KEY (team, person), UNIQUE (admin, person));`, func(f *harness.Fixture) {
		id := [16]byte{1}
		for query, args := range map[string][]any{
			"SELECT * FROM members WHERE team = $1 AND person = $2":                                               {id, 5},
			"SELECT * FROM members WHERE person = $1 AND admin = $2":                                              {5, true},
			"SELECT * FROM members WHERE handle = $1":                                                             {"ann"},
			"SELECT * FROM members m JOIN users u ON u.id = $1 WHERE m.handle = $2":                               {1, "ann"},
			"SELECT * FROM members a, members b WHERE a.handle = $1 AND b.handle = $2":                            {"ann", "bob"},
			"DELETE FROM members WHERE handle = ANY($1)":                                                          {[]string{"ann"}},
			"UPDATE members SET admin = $3 WHERE team = $1 AND person = ANY($2)":                                  {id, []int64{1, 2}, true},
			"INSERT INTO users (id, name) VALUES ($1, $2), ($3, $4) ON CONFLICT (id) DO UPDATE SET name = 'x'":    {1, "a", 2, "b"},
			"SELECT * FROM users WHERE city = $1 LIMIT $2":                                                        {"Oslo", 3},
			"INSERT INTO users (id, name) SELECT $1::int, $2 ON CONFLICT (id) DO UPDATE SET name = excluded.name": {1, "a"},
			"SELECT * FROM users WHERE id = $1 UNION SELECT * FROM users WHERE id = $2":                           {1, 2},
		} {
			without, with := outside.Explain(f.Via, query), outside.Explain(f.Via, query, args...)
			if !slices.Equal(without.Reads, with.Reads) || !slices.Equal(without.Invalidates, with.Invalidates) {
				f.Errorf("%s:\nwithout arguments %q, %q\nwith arguments    %q, %q", query, without.Reads, without.Invalidates, with.Reads, with.Invalidates)
			}
			if without.Key.Digest != "" || (with.Key.Digest != "") != with.Cacheable {
				f.Errorf("%s: digests %q and %q", query, without.Key.Digest, with.Key.Digest)
			}
		}
	})
}

// The parts are what the digest is made of: a change of one changes it.
func TestExplainShowsTheKey(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		conn := f.Conn(f.DB)
		x := outside.ExplainOn(f.Via, conn, "SELECT  name /* for ann */ FROM users WHERE id=1")
		if got := x.Key; got.Text != "select name from users where id = $int" || got.Literals != 1 || len(got.Arguments) != 0 ||
			got.ExecMode != "cache_statement" || got.Role != "postgres" || !slices.Contains(got.SearchPath, "cache_statement") ||
			got.Database == "" || len(got.Settings) != len(keying.Settings)+3 || got.Settings["DateStyle"] == "" {
			f.Errorf("got key %+v", got)
		}
		for name, got := range x.Key.Settings {
			var want string
			if err := f.Plain.QueryRowContext(f.Ctx, "SELECT coalesce(current_setting($1, true), '')", name).Scan(&want); err != nil || got != want {
				f.Errorf("setting %s: got %q, want %q, %v", name, got, want, err)
			}
		}
		if got := outside.Explain(f.Via, "SELECT $1::text, $2::timestamptz", "a", time.Now()).Key.Arguments; !slices.Equal(got, []string{"string", "time.Time"}) {
			f.Errorf("got arguments %q", got)
		}
		digests := map[string]bool{x.Key.Digest: true}
		for _, set := range []string{"SET TIME ZONE 'Asia/Tokyo'", "SET bytea_output = escape", "SET search_path = cache_statement, public", "SET SESSION AUTHORIZATION postgres"} {
			f.On(conn).Exec(set)
			y := outside.ExplainOn(f.Via, conn, "SELECT name FROM users WHERE id = 1")
			same := y.Key.Role == x.Key.Role && slices.Equal(y.Key.SearchPath, x.Key.SearchPath) && maps.Equal(y.Key.Settings, x.Key.Settings)
			if digests[y.Key.Digest] != same {
				f.Errorf("%s: the digest is the same: %v, the parts are: %v", set, !same, same)
			}
			digests[y.Key.Digest] = true
			x = y
		}
	})
}

// Nothing that Explain returns holds a value.
func TestExplainShowsNoValues(t *testing.T) {
	harness.ScenarioOnce(t, explainable, func(f *harness.Fixture) {
		for _, query := range []string{
			"SELECT * FROM users WHERE name = 's3cret' AND city = $1", "UPDATE users SET name = 's3cret' WHERE city = $1",
			"SELECT 's3cret' FORM users WHERE name = $1", "DO 'BEGIN PERFORM ''s3cret''; END'", "SELECT nothing('s3cret', $1)",
			"INSERT INTO users (id, name) VALUES (1, 's3cret') ON CONFLICT (id) DO UPDATE SET name = $1", "SET application_name = 's3cret'",
		} {
			args := []any{"s3cret"}
			if !strings.Contains(query, "$1") {
				args = nil
			}
			x, err := cachedpg.Explain(f.Ctx, f.DB, query, args...)
			if err != nil {
				f.Errorf("%s: %v", query, err)
				continue
			}
			text, err := jsontext.Marshal(x)
			if err != nil {
				f.Fatal(err)
			}
			if strings.Contains(string(text)+x.String(), "s3cret") {
				f.Errorf("%s: %s", query, text)
			}
		}
	})
}

func TestExplainsErrors(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		for name, test := range map[string]struct {
			db   *sql.DB
			args []any
			want string
		}{
			"another driver":     {f.Plain, nil, "cachedpg: not a database opened with the cachedpg driver"},
			"too many arguments": {f.DB, []any{1, 2}, "cachedpg: the statement has 1 parameter, but 2 arguments given"},
			"no server":          {f.Open("cachedpg", "postgres://u:s3cret@127.0.0.1:1/d?sslmode=disable"), nil, "connection refused"},
		} {
			_, err := cachedpg.Explain(f.Ctx, test.db, "SELECT * FROM users WHERE id = $1", test.args...)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") {
				f.Errorf("%s: got %v, want %s", name, err, test.want)
			}
		}
	})
}
