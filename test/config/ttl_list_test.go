package config

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/keying"
)

// Of all functions of the server that are not cached by themselves, a TTL excuses
// those of this list.
func TestTheFunctionsThatATTLExcuses(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		rows, err := f.Plain.QueryContext(f.Ctx, `SELECT DISTINCT proname::text, pronargs - pronargdefaults FROM pg_proc
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
			x := outside.Explain(withTTL(f.Via, time.Hour), "SELECT pg_catalog."+name+"("+strings.TrimSuffix(strings.Repeat("NULL,", max(0, args)), ",")+")")
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
		const want = "age clock_timestamp col_description format_type gen_random_uuid json_populate_record json_populate_recordset " +
			"json_to_record json_to_recordset jsonb_populate_record jsonb_populate_recordset jsonb_to_record jsonb_to_recordset now " +
			"obj_description pg_conf_load_time pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_size " +
			"pg_get_constraintdef pg_get_expr pg_get_functiondef pg_get_indexdef pg_get_triggerdef pg_get_userbyid pg_get_viewdef " +
			"pg_indexes_size pg_is_in_recovery pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp " +
			"pg_postmaster_start_time pg_relation_size pg_table_size pg_tablespace_size pg_total_relation_size random " +
			"shobj_description statement_timestamp timeofday transaction_timestamp version"
		newer := []string{"random_normal", "uuidv4", "uuidv7"} // 16 and 18
		got = slices.DeleteFunc(got, func(name string) bool { return slices.Contains(newer, name) })
		if got := strings.Join(got, " "); got != want {
			f.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// now() stands still in a transaction, and the catalog shows it its own changes.
func TestWhatIsExcusedRunsInsideATransaction(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		const query = "/* cachedpg: ttl=1h */ SELECT now() > 'epoch'"
		f.Known(query)
		for _, opts := range []*sql.TxOptions{nil, {ReadOnly: true}} {
			tx, conn := f.Begin(opts)
			tx.Bypass(keying.StableFunction, query)
			f.Rollback(conn)
		}
		f.Hit(query)
	})
}

// A user-defined function in the way of a built-in one may be the one that is meant.
func TestAFunctionThatHidesAnExcusedOne(t *testing.T) {
	const setup = harness.People + `CREATE FUNCTION random(int) RETURNS int LANGUAGE sql AS 'SELECT 4';
		CREATE FUNCTION now() RETURNS int LANGUAGE sql AS 'INSERT INTO users VALUES (9, '''') ON CONFLICT DO NOTHING; SELECT 1';`
	harness.ScenarioOnce(t, setup, func(f *harness.Fixture) {
		f.Runs(keying.WritingFunction, "/* cachedpg: ttl=1h */ SELECT random(1)")
		for range 2 {
			if x := outside.Explain(f.Via, "/* cachedpg: ttl=1h */ SELECT now()"); x.Cacheable {
				f.Errorf("explained as:\n%s", x)
			}
			f.Read(f.DB, "/* cachedpg: ttl=1h */ SELECT now()", nil)
		}
		if s := cachedpg.StatsOf(f.DB); s.Lookups != 0 {
			f.Errorf("the cache was asked %d times", s.Lookups)
		}
		f.Expect("miss", false, "/* cachedpg: ttl=1h */ SELECT random()", nil)
	})
}

// What is excused is the clock in the texts, not what their types call.
func TestATTLDoesNotExcuseWhatStandsBeside(t *testing.T) {
	const setup = harness.People + `
		CREATE FUNCTION noted(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO users VALUES (9, '''') ON CONFLICT DO NOTHING; RETURN true; END';
		CREATE DOMAIN checked AS int CHECK (noted(VALUE)); CREATE TYPE pair AS (a checked, b date);
		CREATE FUNCTION spy(pg_stat_activity) RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE EXTENSION IF NOT EXISTS file_fdw SCHEMA pg_catalog; DROP SERVER IF EXISTS files CASCADE;
		CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
		CREATE FOREIGN TABLE version (v checked) SERVER files OPTIONS (filename 'PG_VERSION');`
	harness.ScenarioOnce(t, setup, func(f *harness.Fixture) {
		for _, query := range []string{
			"SELECT * FROM json_to_record('{}') AS x(a checked)",
			"SELECT * FROM json_populate_record(NULL::pair, '{}')",
			"SELECT * FROM json_to_recordset('[]') AS x(a pair)",
			"SELECT v FROM version",
			"SELECT now(), 1::checked",
			"SELECT a.spy FROM pg_stat_activity a",
			"SELECT spy(a) FROM pg_stat_activity a",
			"SELECT random() FROM users FOR UPDATE",
			"WITH d AS (DELETE FROM users WHERE id = 7 RETURNING 1) SELECT now() FROM d",
			"SELECT now() FROM (SELECT * FROM users FOR SHARE) u",
			"SELECT now(); SELECT now()",
		} {
			if x := outside.Explain(withTTL(f.Via, time.Hour), query); x.Cacheable || len(x.ByAge) > 0 {
				f.Errorf("%s: explained as\n%s", query, x)
			}
		}
	})
}
