package outages

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/keying"
)

// problemOf waits until Stats tells of a problem with the work.
func problemOf(v harness.Via, work string) (found cachedpg.Problem) {
	v.F.Helper()
	v.F.Until("a problem with the "+work, func() bool {
		all := cachedpg.StatsOf(v.DB).Problems
		i := slices.IndexFunc(all, func(p cachedpg.Problem) bool { return p.Work == work })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// A right that is missing is told by name: in Stats, by Ping and by Explain, with
// SQLSTATE and words of PostgreSQL, until it is granted.
func TestARightThatPostgreSQLDeniesIsTold(t *testing.T) {
	for _, test := range []struct {
		work   string
		denied string // what REVOKE and GRANT take
		reason keying.Reason
		says   string
	}{
		{"session", "EXECUTE ON FUNCTION pg_catalog.current_schemas(boolean)", keying.SessionUnknown, "function current_schemas"},
		{"catalog", "SELECT ON pg_catalog.pg_proc", keying.CatalogUnavailable, "table pg_proc"},
	} {
		t.Run(test.work, func(t *testing.T) {
			harness.InBothStores(t, func(t *testing.T, keys ...string) {
				database := pgtest.Database(t)
				f := harness.New(t, database, "cache_statement", harness.People, keys...)
				role := f.NewRole(database)
				f.Past("REVOKE " + test.denied + " FROM public")
				f.DB.Close() // or its role's catalog would do
				f.DSN = harness.WithKey(f.DSN, "user", role)
				v := f.With()
				v.Truth = f.Open("pgx", f.DSN)
				v.Bypass(test.reason, harness.UserByID, 1)

				problem := problemOf(v, test.work)
				ping := v.DB.PingContext(f.Ctx)
				if !errors.Is(ping, cachedpg.ErrWithheld) {
					t.Errorf("Ping gives %v, want ErrWithheld", ping)
				}
				x, err := cachedpg.Explain(f.Ctx, v.DB, harness.UserByID, 1)
				if err != nil {
					t.Fatal(err)
				}
				for where, text := range map[string]string{"Stats": problem.Text, "Ping": ping.Error(), "Explain": strings.Join(x.Notes, " ")} {
					if !strings.Contains(text, "permission denied for "+test.says) || !strings.Contains(text, "42501") {
						t.Errorf("%s says %q", where, text)
					}
				}
				if x.Cacheable || x.Reason != test.reason.String() || !strings.Contains(x.Remedy, "Stats.Problems") {
					t.Errorf("Explain: cacheable %v, %s, %q", x.Cacheable, x.Reason, x.Remedy)
				}

				pgtest.Exec(t, database, "GRANT "+test.denied+" TO public")
				f.Until("Ping tries again", func() bool { return v.DB.PingContext(f.Ctx) == nil })
				f.Until("no problem", func() bool { return len(cachedpg.StatsOf(v.DB).Problems) == 0 })
				v.Again(harness.UserByID, 1)
			})
		})
	}
}

// A store that answers and refuses is not warming up, and one that was never there is
// told of with what the dial said.
func TestAStoreThatCannotBeUsedIsToldOf(t *testing.T) {
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	server := redistest.Start(t)
	if err := server.Client().Do(context.Background(), "ACL", "SETUSER", "weak", "on", ">s3cret", "~*", "+@read", "+ping", "+info", "+hello", "+client").Err(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, url, says string
		reason          keying.Reason
	}{
		{"a right is missing", "redis://weak:s3cret@" + server.Addr() + "/0", "NOPERM", keying.StoreError},
		{"the password is wrong", "redis://weak:sesame@" + server.Addr() + "/0", "WRONGPASS", keying.StoreDown},
		{"nobody is there", "redis://127.0.0.1:1/0", "127.0.0.1:1: connect: connection refused", keying.StoreDown},
	} {
		f.Step(test.name, func(f *harness.Fixture) {
			f.Keys = []string{"cache_store=" + test.url}
			v := f.With()
			v.Fresh(harness.UserByID, 1)
			problem := problemOf(v, "store")
			v.Bypass(test.reason, harness.UserByID, 1)
			ping := v.DB.PingContext(f.Ctx)
			if ping == nil {
				t.Fatal("Ping finds nothing wrong")
			}
			for where, text := range map[string]string{"Stats": problem.Text, "Ping": ping.Error()} {
				if !strings.Contains(text, test.says) || strings.Contains(text, "s3cret") || strings.Contains(text, "sesame") {
					f.Errorf("%s says %q", where, text)
				}
			}
		})
	}
}
