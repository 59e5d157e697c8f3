package session

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

var settingSeed = flag.Uint64("setting-seed", 0, "replay the random settings of this seed")

// settingSteps are what TestSettingsAtRandom chooses from. Those behind the first blank line change
// what was known of the settings, or fail.
var settingSteps = strings.Split(strings.TrimSpace(`
SET search_path = a, public
SET search_path = b, public
SET search_path = "$user", c, public
SET LOCAL search_path = a
SET LOCAL search_path TO DEFAULT
RESET search_path
RESET ALL
SET TIME ZONE 'Asia/Tokyo'
SET LOCAL timezone = 'Europe/Oslo'
RESET TimeZone
SET datestyle = 'German'
SET datestyle = 'MDY'
SET LOCAL datestyle = 'SQL'
RESET datestyle
SET extra_float_digits = -10
SET LOCAL extra_float_digits = -5
RESET extra_float_digits
SET bytea_output = escape
RESET bytea_output
SET ROLE pg_read_all_data
SET LOCAL ROLE pg_read_all_data
RESET ROLE
SET ROLE NONE
SET SESSION AUTHORIZATION pg_read_all_data
RESET SESSION AUTHORIZATION
SET app.tenant = 'x'
SELECT set_config('search_path', 'b', true)
SELECT set_config('search_path', 'a', false)
SELECT set_config('timezone', 'UTC', false)
SELECT public.sets('search_path', 'b')
SELECT public.tries('search_path', 'b')
INSERT INTO public.log VALUES ('Asia/Tokyo')
BEGIN
BEGIN
BEGIN
COMMIT
COMMIT
ROLLBACK
COMMIT AND CHAIN
ROLLBACK AND CHAIN
SAVEPOINT s
SAVEPOINT s
ROLLBACK TO s
RELEASE s
BEGIN; SET LOCAL search_path = a
SET search_path = b; SELECT 1
SET LOCAL search_path = b; COMMIT
DISCARD ALL
DISCARD PLANS
SET TimeZone = 'nowhere'
SET ROLE nobody
SELECT 1 / 0
ALTER SCHEMA c RENAME TO d
ALTER SCHEMA d RENAME TO c
`), "\n")

func inTransaction(t *testing.T, conn *sql.Conn) (in bool) {
	t.Helper()
	if err := conn.Raw(func(c any) error {
		in = c.(*stdlib.Conn).Conn().PgConn().TxStatus() != 'I'
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return in
}

// One session through the driver and one through pgx are sent the same, at random. Both give
// the same whatever was set, undone, or failed.
func TestSettingsAtRandom(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, settingSchema+`;
		CREATE SCHEMA c; CREATE TABLE c.tenant_users AS SELECT 1 AS id, 'of c'::text AS name;
		GRANT USAGE ON SCHEMA a TO pg_read_all_data;
		CREATE TABLE log (line text);
		GRANT ALL ON log TO PUBLIC;
		CREATE FUNCTION sets(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SET %I = %I', $1, $2); RETURN ''; END $$;
		CREATE FUNCTION tries(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
			PERFORM set_config($1, $2, false); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN RETURN ''; END $$;
		CREATE FUNCTION by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SET TimeZone = %L', NEW.line); RETURN NULL; END $$;
		CREATE TRIGGER sets BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION by_trigger();`)
	seeds := make([]uint64, 6)
	for i := range seeds {
		seeds[i] = rand.Uint64()
	}
	if *settingSeed != 0 {
		seeds = []uint64{*settingSeed}
	}
	for _, seed := range seeds {
		settingsAtRandom(t, database, seed)
	}
}

func settingsAtRandom(t *testing.T, database string, seed uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
	defer cancel()
	f := &harness.Fixture{T: t, Ctx: ctx, DSN: harness.WithKey(database, "default_query_exec_mode", "simple_protocol")}
	f.DB, f.Plain = f.Open("cachedpg", f.DSN), f.Open("pgx", f.DSN)
	f.Via = harness.Via{F: f, DB: f.DB, Ask: f.DB, Truth: f.Plain}
	f.Caches("SELECT name FROM public.tenant_users WHERE id = $1", 1) // when what the seed before left under way is over
	ours, theirs := f.Conn(f.DB), f.Conn(f.Plain)
	var sent []string
	random := rand.New(rand.NewPCG(seed, 0))
	for range 250 {
		text := settingSteps[random.IntN(len(settingSteps))]
		for name := range settingReads {
			if random.IntN(3) == 0 {
				text = name
			}
		}
		sent = append(sent, text)
		var got, want string
		switch query, reads := settingReads[text]; {
		case reads:
			got, want = settingRead(t, ctx, ours, query), settingRead(t, ctx, theirs, query)
		case strings.HasPrefix(text, "ALTER"): // by another session, while this one has no locks
			if inTransaction(t, theirs) {
				continue
			}
			_, _ = f.DB.ExecContext(ctx, text)
		case random.IntN(2) == 0:
			_, err := ours.ExecContext(ctx, text)
			_, wantErr := theirs.ExecContext(ctx, text)
			got, want = fmt.Sprint(err), fmt.Sprint(wantErr)
		default:
			got, want = settingRead(t, ctx, ours, text), settingRead(t, ctx, theirs, text)
		}
		if got != want {
			t.Fatalf("got  %s\nwant %s\nafter %s\nreplay with -run %s -setting-seed %d", got, want, strings.Join(sent, "\n      "), t.Name(), seed)
		}
	}
	if s := cachedpg.StatsOf(f.DB); s.Hits < 5 {
		t.Errorf("%d hits of %d lookups", s.Hits, s.Lookups)
	}
}
