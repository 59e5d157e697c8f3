package cachedpg

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// aside asks in another goroutine.
func (v via) aside(query string, args ...any) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		var a answer
		a.err = v.db.QueryRowContext(v.f.ctx, query, args...).Scan(&a.value)
		done <- a
	}()
	return done
}

// Processes that wait for the SELECT of another do not wait for each other when it has
// failed.
func TestEqualQueriesThatFailDoNotWaitForOtherProcesses(t *testing.T) {
	shared(t, gated, func(f *fixture) {
		one, two, three := f.process("one"), f.process("two"), f.process("three")
		g := f.closeGate()
		led := one.aside(gatedByID, 1)
		g.await(1)
		var got []<-chan answer
		for _, v := range []via{two, three} {
			got = append(got, v.aside(gatedByID, 1))
		}
		f.until("misses", func() bool { return StatsOf(two.db).Misses == 1 && StatsOf(three.db).Misses == 1 })
		if _, err := g.conn.ExecContext(f.ctx, "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"+
			" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); err != nil {
			f.Fatal(err)
		}
		var refused *pgconn.PgError
		if a := <-led; !errors.As(a.err, &refused) || refused.Code != "57014" {
			f.Errorf("the first got %q, %v", a.value, a.err)
		}
		g.await(len(got))
		g.open()
		for _, answer := range got {
			f.wants(answer, "ann")
		}
	})
}

// Commits past a store that is gone ask together whether their notice stands: while one
// question is under way all others come to the next.
func TestCommitsPastTheStoreDoNotWaitForEachOther(t *testing.T) {
	outage(t, func(f *fixture, r *redistest.Server) {
		f.again(userByID, 1)
		r.Kill()
		f.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		n := &f.keeper().notice
		n.mu.Lock()
		held := n.held
		n.mu.Unlock()
		if held == nil {
			f.Fatal("no notice was posted")
		}
		held.mu.Lock() // PostgreSQL answers its questions no more
		const commits = 3
		done := make(chan error, commits)
		for id := range commits {
			go func() {
				_, err := f.db.ExecContext(f.ctx, "UPDATE users SET name = name || '!' WHERE id = $1", id+1)
				done <- err
			}()
		}
		f.until("all of them to ask", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.holders == commits
		})
		held.mu.Unlock()
		for range commits {
			if err := <-done; err != nil {
				f.Error(err)
			}
		}
		f.fresh(userByID, 1)
	})
}

// Whatever stands in Redis in place of what the driver has written, commits wait for a
// lease at most, and the cache comes back.
func TestGarbageInTheStoresOwnKeysHoldsUpNobody(t *testing.T) {
	schema := string(store.AppendTag(nil, store.Tag{Kind: store.TagSchema}))
	field := func(name, value string) func(f *fixture, r *redistest.Server, stem string) error {
		return func(f *fixture, r *redistest.Server, stem string) error {
			return r.Client().HSet(f.ctx, stem+"d", name, value).Err()
		}
	}
	other := func(key string) func(f *fixture, r *redistest.Server, stem string) error {
		return func(f *fixture, r *redistest.Server, stem string) error {
			return errors.Join(r.Client().Del(f.ctx, stem+key).Err(), r.Client().LPush(f.ctx, stem+key, "x").Err())
		}
	}
	for name, spoil := range map[string]func(f *fixture, r *redistest.Server, stem string) error{
		"no hash":         other("d"),
		"no lease":        other("l"),
		"no epoch":        field("e", ""),
		"another epoch":   field("e", strings.Repeat("x", 100)),
		"cold":            field("cold", "x"),
		"cold is nothing": field("cold", ""),
		"born":            field("born", "nan"),
		"a wait of hours": func(f *fixture, r *redistest.Server, stem string) error {
			return r.Client().Set(f.ctx, stem+"w", "", time.Hour).Err()
		},
		"no registry": func(f *fixture, r *redistest.Server, _ string) (err error) {
			for _, name := range r.Client().Keys(f.ctx, "cachedpg:*:r").Val() {
				err = errors.Join(err, r.Client().Set(f.ctx, name, "x", 0).Err())
			}
			return err
		},
		"a writer of no length": field("t"+schema, "abc"),
	} {
		t.Run(name, func(t *testing.T) {
			outage(t, func(f *fixture, r *redistest.Server) {
				f.again(userByID, 1)
				names, err := r.Client().Keys(f.ctx, "cachedpg:*:d").Result()
				if err != nil || len(names) != 1 {
					f.Fatal(names, err)
				}
				if err := spoil(f, r, strings.TrimSuffix(names[0], "d")); err != nil {
					f.Fatal(err)
				}
				for _, name := range []string{"anna", "ann"} {
					f.exec("UPDATE users SET name = $1 WHERE id = 1", name)
					f.fresh(userByID, 1).is("1 " + name + " Oslo")
				}
				if name == "a writer of no length" {
					return // what it is about stays with PostgreSQL: nobody can tell that it is over
				}
				f.again(userByID, 1).is("1 ann Oslo")
				f.process("new").again(userByID, 1)
			})
		})
	}
}
