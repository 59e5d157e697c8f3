package outages

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// readAside asks in another goroutine.
func readAside(v harness.Via, query string, args ...any) <-chan harness.Answer {
	done := make(chan harness.Answer, 1)
	go func() {
		var a harness.Answer
		a.Err = v.DB.QueryRowContext(v.F.Ctx, query, args...).Scan(&a.Value)
		done <- a
	}()
	return done
}

// Processes that wait for the SELECT of another do not wait for each other when it has
// failed.
func TestEqualQueriesThatFailDoNotWaitForOtherProcesses(t *testing.T) {
	harness.Shared(t, harness.Gated, func(f *harness.Fixture) {
		one, two, three := f.Process("one"), f.Process("two"), f.Process("three")
		g := f.CloseGate()
		led := readAside(one, harness.GatedByID, 1)
		g.Await(1)
		var got []<-chan harness.Answer
		for _, v := range []harness.Via{two, three} {
			got = append(got, readAside(v, harness.GatedByID, 1))
		}
		f.Until("misses", func() bool { return cachedpg.StatsOf(two.DB).Misses == 1 && cachedpg.StatsOf(three.DB).Misses == 1 })
		if _, err := g.Conn.ExecContext(f.Ctx, "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"+
			" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); err != nil {
			f.Fatal(err)
		}
		var refused *pgconn.PgError
		if a := <-led; !errors.As(a.Err, &refused) || refused.Code != "57014" {
			f.Errorf("the first got %q, %v", a.Value, a.Err)
		}
		g.Await(len(got))
		g.Open()
		for _, answer := range got {
			f.Wants(answer, "ann")
		}
	})
}

// Whatever stands in Redis in place of what the driver has written, commits wait for a
// lease at most, and the cache comes back.
func TestGarbageInTheStoresOwnKeysHoldsUpNobody(t *testing.T) {
	schema := string(store.AppendTag(nil, store.Tag{Kind: store.TagSchema}))
	field := func(name, value string) func(f *harness.Fixture, r *redistest.Server, stem string) error {
		return func(f *harness.Fixture, r *redistest.Server, stem string) error {
			return r.Client().HSet(f.Ctx, stem+"d", name, value).Err()
		}
	}
	other := func(key string) func(f *harness.Fixture, r *redistest.Server, stem string) error {
		return func(f *harness.Fixture, r *redistest.Server, stem string) error {
			return errors.Join(r.Client().Del(f.Ctx, stem+key).Err(), r.Client().LPush(f.Ctx, stem+key, "x").Err())
		}
	}
	for name, spoil := range map[string]func(f *harness.Fixture, r *redistest.Server, stem string) error{
		"no hash":         other("d"),
		"no lease":        other("l"),
		"no epoch":        field("e", ""),
		"another epoch":   field("e", strings.Repeat("x", 100)),
		"cold":            field("cold", "x"),
		"cold is nothing": field("cold", ""),
		"born":            field("born", "nan"),
		"a wait of hours": func(f *harness.Fixture, r *redistest.Server, stem string) error {
			return r.Client().Set(f.Ctx, stem+"w", "", time.Hour).Err()
		},
		"no registry": func(f *harness.Fixture, r *redistest.Server, _ string) (err error) {
			for _, name := range r.Client().Keys(f.Ctx, "cachedpg:*:r").Val() {
				err = errors.Join(err, r.Client().Set(f.Ctx, name, "x", 0).Err())
			}
			return err
		},
		"a writer of no length": field("t"+schema, "abc"),
	} {
		t.Run(name, func(t *testing.T) {
			harness.Outage(t, func(f *harness.Fixture, r *redistest.Server) {
				f.Again(harness.UserByID, 1)
				names, err := r.Client().Keys(f.Ctx, "cachedpg:*:d").Result()
				if err != nil || len(names) != 1 {
					f.Fatal(names, err)
				}
				if err := spoil(f, r, strings.TrimSuffix(names[0], "d")); err != nil {
					f.Fatal(err)
				}
				for _, name := range []string{"anna", "ann"} {
					f.Exec("UPDATE users SET name = $1 WHERE id = 1", name)
					f.Fresh(harness.UserByID, 1).Is("1 " + name + " Oslo")
				}
				if name == "a writer of no length" {
					return // what it is about stays with PostgreSQL: nobody can tell that it is over
				}
				f.Again(harness.UserByID, 1).Is("1 ann Oslo")
				f.Process("new").Again(harness.UserByID, 1)
			})
		})
	}
}
