package redis

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// kinds of Redis in which namespaces meet.
func everyRedis(t *testing.T, story func(t *testing.T, url string)) {
	t.Helper()
	t.Parallel()
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		story(t, redistest.Start(t).URL())
	})
	t.Run("a Cluster", func(t *testing.T) {
		t.Parallel()
		story(t, redistest.ClusterURL(redistest.Cluster(t, 3, 0)))
	})
}

// gone is a PostgreSQL that is not the one any more that it was.
func gone(context.Context, store.Fresh) (bool, error) { return false, fmt.Errorf("it is another one") }

// lives is an Identity of a database, in a family or two.
func lives(t *testing.T, life int, families ...string) Options {
	return Options{Identity: fmt.Sprint(t.Name(), life), Families: families}
}

// I18: the first mark finds no lease of the server before any more.
func TestTheFirstMarkInANamespaceEndsTheOneBefore(t *testing.T) {
	everyRedis(t, func(t *testing.T, url string) {
		old := openURL(t, url, lives(t, 1, "name", "oid"))
		old.renew()
		key, table, row := fresh()
		old.cache(key, "old", schema, table, row)
		stranger := openURL(t, url, lives(t, 2, "another name", "another oid"))
		stranger.mark(store.NewTransactionWriter(1), row, schema)
		old.hits(key, "old", schema, table, row)

		byName := openURL(t, url, lives(t, 3, "name", "yet another oid"))
		byName.mark(store.NewTransactionWriter(1), row, schema)
		old.never(key, schema, table, row)
		if live, _ := old.Renew(background, gone); live {
			t.Error("a namespace that was replaced has a lease by itself")
		}
		old.never(key, schema, table, row)

		old.renew() // its server is alive
		old.cache(key, "new", schema, table, row)
		byName.mark(store.NewTransactionWriter(2), row, schema) // it was registered before
		old.hits(key, "new", schema, table, row)
		byOID := openURL(t, url, lives(t, 4, "a third name", "oid"))
		byOID.renew()
		old.never(key, schema, table, row)
	})
}

// A renewal that has asked before does not bring back what was ended since.
func TestARenewalUnderWayDoesNotReviveANamespaceThatWasReplaced(t *testing.T) {
	everyRedis(t, func(t *testing.T, url string) {
		old := openURL(t, url, lives(t, 1, "name"))
		old.renew()
		key, table, row := fresh()
		old.cache(key, "old", schema, table, row)
		next := openURL(t, url, lives(t, 2, "name"))
		old.until("a renewal", func() bool {
			asked := false
			_, err := old.Renew(background, func(context.Context, store.Fresh) (bool, error) {
				asked = true
				next.mark(store.NewTransactionWriter(1), row, schema)
				return true, nil
			})
			return asked && err == nil
		})
		old.never(key, schema, table, row)
	})
}

// Two that are alive make each other cold once.
func TestNamespacesOfLivingServersDoNotEndEachOtherForEver(t *testing.T) {
	everyRedis(t, func(t *testing.T, url string) {
		one, two := openURL(t, url, lives(t, 1, "name", "oid")), openURL(t, url, lives(t, 2, "name", "oid"))
		one.renew()
		two.renew()
		one.renew()
		key, table, row := fresh()
		one.cache(key, "one", schema, table, row)
		two.cache(key, "two", schema, table, row)
		for range 3 {
			one.renew()
			two.renew()
			two.mark(store.NewTransactionWriter(1), table)
			one.hits(key, "one", schema, table, row)
		}
		again := openURL(t, url, lives(t, 2, "name", "oid")) // another process
		again.mark(store.NewTransactionWriter(2), table)
		one.hits(key, "one", schema, table, row)
	})
}

// Who may have replaced somebody that nobody knows of any more waits for his lease.
func TestARegistryThatWasEvictedIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	old := openURL(t, r.URL(), lives(t, 1, "name"))
	old.renew()
	key, table, row := fresh()
	old.cache(key, "old", schema, table, row)
	fresh := openURL(t, r.URL(), lives(t, 2, "another"))
	if marked, err := fresh.Mark(background, store.NewTransactionWriter(1), []store.Tag{row}, 1); err != nil || marked.Wait != 0 {
		t.Fatalf("the first commit on a Redis that has evicted nothing waits: %+v, %v", marked, err)
	}
	if err := r.Client().Do(background, "CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
	old.until("an eviction", func() bool {
		r.Client().Set(background, "victim", "x", time.Hour) // refused, once there is nothing to evict
		keys, err := r.Client().Exists(background, old.inUse.Load().partitions[0].keys[2]).Result()
		return err == nil && keys == 0
	})
	if err := r.Client().ConfigSet(background, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"the first", "another process"} {
		next := openURL(t, r.URL(), lives(t, 3, "name"))
		marked, err := next.Mark(background, store.NewTransactionWriter(1), []store.Tag{row}, 1)
		if err != nil || marked.Wait <= 0 || marked.Wait > store.Lease {
			t.Errorf("%s: %+v, %v, want a wait of at most a lease", who, marked, err)
		}
	}
}

// Of one server's databases only one has the name: whichever PostgreSQL has proved to, or writes.
func TestANameThatIsGivenBackEndsTheNamespaceThatHadIt(t *testing.T) {
	everyRedis(t, func(t *testing.T, url string) {
		of := func(life int) Options {
			o := lives(t, life, "name")
			o.Server = "server"
			return o
		}
		first := openURL(t, url, of(1))
		first.renew()
		key, table, row := fresh()
		first.cache(key, "first", schema, table, row)
		second := openURL(t, url, of(2))
		one, two := store.NewTransactionWriter(1), store.NewTransactionWriter(2)
		second.mark(one, row, schema)
		first.never(key, schema, table, row)
		second.release(one, row, schema)
		second.renew()
		second.cache(key, "second", schema, table, row)

		first.mark(two, row, schema) // it knows nothing of the second
		second.never(key, schema, table, row)
		first.release(two, row, schema)
		second.renew()
		second.cache(key, "second", schema, table, row)
		first.renew()
		second.never(key, schema, table, row)
		if live, _ := second.Renew(background, gone); live {
			t.Error("a namespace that was replaced has a lease by itself")
		}
	})
}

// What is marked only after its commit ends the namespace before as well.
func TestAReleaseInANamespaceEndsTheOneBefore(t *testing.T) {
	everyRedis(t, func(t *testing.T, url string) {
		old := openURL(t, url, lives(t, 1, "name"))
		old.renew()
		key, table, row := fresh()
		old.cache(key, "old", schema, table, row)
		next := openURL(t, url, lives(t, 2, "name"))
		if err := next.Release(background, store.NewWriter(), []store.Tag{schema}); err != nil {
			t.Fatal(err)
		}
		old.never(key, schema, table, row)
	})
}

// What Redis says of a wait is believed up to a lease: none is longer.
func TestNoCommitWaitsForLongerThanALease(t *testing.T) {
	for wait, want := range map[int64]time.Duration{-1: 0, 0: 0, 1: time.Millisecond, 2000: store.Lease, 2001: store.Lease, 1 << 62: store.Lease} {
		if got := leaseOf(wait); got != want {
			t.Errorf("of %d ms: %v, want %v", wait, got, want)
		}
	}
}
