package cachedpg

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/keying"
)

// Of all functions of the server that are not cached by themselves, a TTL excuses
// those of this list.
func TestTheFunctionsThatATTLExcuses(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		rows, err := f.plain.QueryContext(f.ctx, `SELECT DISTINCT proname::text, pronargs - pronargdefaults FROM pg_proc
			WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND proname ~ '^[a-z][a-z0-9_]*$' ORDER BY 1, 2`)
		if err != nil {
			f.Fatal(err)
		}
		defer rows.Close()
		excused := make(map[string]bool)
		seen := 0
		for rows.Next() {
			var name string
			var args int
			if err := rows.Scan(&name, &args); err != nil {
				f.Fatal(err)
			}
			seen++
			x := f.ttl(time.Hour).explain("SELECT pg_catalog." + name + "(" + strings.TrimSuffix(strings.Repeat("NULL,", max(0, args)), ",") + ")")
			for _, what := range x.ByAge {
				if _, function, ok := strings.Cut(what, "-function ("); ok {
					excused[strings.TrimSuffix(function, ")")] = true
				}
			}
		}
		if err := rows.Err(); err != nil || seen < 2000 {
			f.Fatalf("%d functions, %v", seen, err)
		}
		var got []string
		for name := range excused {
			got = append(got, name)
		}
		slices.Sort(got)
		const want = "age clock_timestamp col_description enum_first enum_last enum_range format_type gen_random_uuid now obj_description " +
			"pg_column_size pg_conf_load_time pg_database_size pg_encoding_to_char pg_get_constraintdef pg_get_expr pg_get_functiondef pg_get_indexdef " +
			"pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_indexes_size pg_postmaster_start_time pg_relation_size pg_table_is_visible pg_table_size " +
			"pg_tablespace_size pg_total_relation_size pg_typeof random shobj_description statement_timestamp timeofday to_regclass to_regnamespace to_regtype " +
			"transaction_timestamp version"
		newer := []string{"random_normal", "uuidv4", "uuidv7"} // 16 and 18
		got = slices.DeleteFunc(got, func(name string) bool { return slices.Contains(newer, name) })
		if got := strings.Join(got, " "); got != want {
			f.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// now() stands still in a transaction, and the catalog shows it its own changes.
func TestWhatIsExcusedRunsInsideATransaction(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		const query = "/* cachedpg: ttl=1h */ SELECT now() > 'epoch'"
		f.known(query)
		for _, opts := range []*sql.TxOptions{nil, {ReadOnly: true}} {
			tx, conn := f.begin(opts)
			tx.bypass(keying.StableFunction, query)
			f.rollback(conn)
		}
		f.hit(query)
	})
}

// A user-defined function in the way of a built-in one may be the one that is meant.
func TestAFunctionThatHidesAnExcusedOne(t *testing.T) {
	const setup = people + `CREATE FUNCTION random(int) RETURNS int LANGUAGE sql AS 'SELECT 4';
		CREATE FUNCTION now() RETURNS int LANGUAGE sql AS 'INSERT INTO users VALUES (9, '''') ON CONFLICT DO NOTHING; SELECT 1';`
	scenarioOnce(t, setup, func(f *fixture) {
		f.runs(keying.WritingFunction, "/* cachedpg: ttl=1h */ SELECT random(1)")
		for range 2 {
			if x := f.explain("/* cachedpg: ttl=1h */ SELECT now()"); x.Cacheable {
				f.Errorf("explained as:\n%s", x)
			}
			f.read(f.db, "/* cachedpg: ttl=1h */ SELECT now()", nil)
		}
		if s := StatsOf(f.db); s.Lookups != 0 {
			f.Errorf("the cache was asked %d times", s.Lookups)
		}
		f.expect("miss", false, "/* cachedpg: ttl=1h */ SELECT random()", nil)
	})
}
