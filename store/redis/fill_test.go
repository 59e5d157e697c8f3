package redis

import (
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// pair is two processes with one store.
func pair(t *testing.T) (*user, *user) {
	t.Helper()
	r := redistest.Start(t)
	u, v := openURL(t, r.URL(), Options{}), openURL(t, r.URL(), Options{})
	u.keep()
	return u, v
}

func TestFillLock(t *testing.T) {
	t.Parallel()
	u, v := pair(t)
	key, table, row := fresh()
	_, outcome, stamps := u.lookup(key, schema, row, table)
	if outcome != store.Miss {
		t.Fatalf("%v", outcome)
	}
	v.want(store.Busy, key, schema, row, table)
	u.want(store.Busy, key, schema, row, table)

	// Given up: the next is not Busy.
	u.GiveUp(key, stamps)
	v.until("the lock", func() bool {
		_, outcome, _ := v.lookup(key, schema, row, table)
		return outcome == store.Miss
	})
	u.want(store.Busy, key, schema, row, table)

	// A fill with fewer tags ends it too, and is a hit.
	v.fill(key, entryOf("v"), stamps[:2], schema, row)
	v.hits(key, "v", schema, row, table)
	u.hits(key, "v", schema, row, table)

	// Other stamps, another lock.
	w := store.NewTransactionWriter(1)
	u.want(store.Hit, key, schema, row, table)
	u.mark(w, row)
	u.release(w, row)
	u.want(store.Stale, key, schema, row, table)
	v.want(store.Busy, key, schema, row, table)
	u.mark(w, row)
	u.release(w, row)
	v.want(store.Stale, key, schema, row, table)
}

// Who died holding the lock is waited for until it ends, and who holds it
// renews it.
func TestFillLockEndsAndHolds(t *testing.T) {
	t.Parallel()
	u, v := pair(t)
	key, _, row := fresh()
	_, _, stamps := u.lookup(key, row)
	begin := time.Now()
	for time.Since(begin) < 2*store.FillLock {
		asked := time.Now()
		if err := u.Hold(background, key, stamps); err != nil {
			t.Fatal(err)
		}
		if _, outcome, _ := v.lookup(key, row); outcome != store.Busy && time.Since(asked) < store.FillLock {
			t.Fatalf("%v though the lock is held", outcome)
		}
		time.Sleep(store.FillLock / 10)
	}
	held := time.Now()
	v.until("the end of the lock", func() bool {
		after := time.Since(held)
		_, outcome, _ := v.lookup(key, row)
		if outcome == store.Busy && after > store.FillLock+time.Second {
			t.Fatalf("the lock outlives its holder by %v", after)
		}
		return outcome == store.Miss
	})
}

// A fill that comes late does not take the place of a valid entry.
func TestLateFillLeavesTheEntry(t *testing.T) {
	t.Parallel()
	u, v := pair(t)
	key, _, row := fresh()
	_, _, old := u.lookup(key, schema, row)
	w := store.NewTransactionWriter(1)
	v.mark(w, row)
	v.release(w, row)
	v.cache(key, "new", schema, row)
	u.fill(key, entryOf("old"), old, schema, row)
	u.hits(key, "new", schema, row)
	v.hits(key, "new", schema, row)
}

// The entry is filled between the two round trips of a lookup that found none, or
// an old one: it is told to look again, and does not run the SELECT.
func TestFilledMeanwhile(t *testing.T) {
	t.Parallel()
	u, v := pair(t)
	key, _, row := fresh()
	tags, stamps := []store.Tag{schema, row}, make([]store.Stamp, 2)
	u.lookup(store.Key{}, tags...)
	for range 2 {
		q := question{in: u.inUse.Load(), key: key, tags: tags}
		q.split()
		if err := q.read(background); err != nil {
			t.Fatal(err)
		}
		if leased, _ := q.leased(); !leased {
			t.Fatal("no lease")
		}
		_, outcome := q.entry()
		v.cache(key, "v", tags...)
		if _, filled, err := q.mint(background, outcome, stamps); !filled || err != nil {
			t.Errorf("%v after %v: %v", filled, outcome, err)
		}
		u.hits(key, "v", tags...)
		w := store.NewTransactionWriter(1)
		u.mark(w, row)
		u.release(w, row)
	}
}

// More fills than fit are dropped and counted, and nobody waits for them.
func TestFillsAreBounded(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	p := r.Proxy()
	u := openURL(t, r.URLThrough(p), Options{Timeout: 3 * time.Second})
	u.renew()
	_, _, row := fresh()
	_, _, stamps := u.lookup(store.Key{}, row)
	p.Cut()
	for range 3 * maxFills {
		key, _, _ := fresh()
		u.fill(key, entryOf("v"), stamps, row)
	}
	if u.SharedStats().Dropped < maxFills {
		t.Errorf("%+v", u.SharedStats())
	}
	p.Restore()
}

// Close waits for what has been filled, and nothing is a hit after it.
func TestClose(t *testing.T) {
	t.Parallel()
	u, v := pair(t)
	key, _, row := fresh()
	_, _, stamps := u.lookup(key, row)
	w := openURL(t, "redis://"+u.target.Options.Addr, Options{Identity: u.identity})
	w.lookup(key, row)
	w.fill(key, entryOf("v"), stamps, row)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	v.hits(key, "v", row)
	if _, outcome, err := w.Lookup(background, key, []store.Tag{row}, stamps); err != store.ErrClosed || outcome == store.Hit {
		t.Errorf("after Close: %v, %v", outcome, err)
	}
	if err := w.Intend(background, store.NewWriter(), []store.Tag{row}); err != store.ErrClosed {
		t.Errorf("after Close: %v", err)
	}
	w.fill(key, entryOf("w"), stamps, row)
}

// Who waited for one that failed waits for nobody else: nobody has the lock then.
func TestNobodyIsBusyAfterASelectThatFailed(t *testing.T) {
	t.Parallel()
	u, v := pair(t)
	key, table, row := fresh()
	_, _, stamps := u.lookup(key, schema, row, table)
	v.want(store.Busy, key, schema, row, table)
	u.Abandon(key, stamps)
	v.until("the lock", func() bool {
		_, outcome, _ := v.lookup(key, schema, row, table)
		return outcome == store.Miss
	})
	for _, w := range []*user{u, v, u} {
		w.want(store.Miss, key, schema, row, table)
		if err := w.Hold(background, key, stamps); err != nil { // they run it, at the same time
			t.Fatal(err)
		}
	}

	// One that succeeds is everybody's, and with other stamps it begins anew.
	v.fill(key, entryOf("v"), stamps, schema, row, table)
	u.until("the entry", func() bool {
		_, outcome, _ := u.lookup(key, schema, row, table)
		return outcome == store.Hit
	})
	w := store.NewTransactionWriter(1)
	u.mark(w, row)
	u.release(w, row)
	u.want(store.Stale, key, schema, row, table)
	v.want(store.Busy, key, schema, row, table)
	u.Abandon(key, stamps) // those of before are another lock's
	v.want(store.Busy, key, schema, row, table)
}

// A lock that does not end by itself, soon, is none: who could have set it?
func TestALockThatDoesNotEndIsNone(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u, v := openURL(t, r.URL(), Options{}), openURL(t, r.URL(), Options{})
	u.keep()
	for name, change := range map[string]func(lock string) error{
		"for ever": func(lock string) error { return r.Client().Persist(background, lock).Err() },
		"an hour":  func(lock string) error { return r.Client().PExpire(background, lock, time.Hour).Err() },
	} {
		for _, abandoned := range []bool{false, true} {
			key, _, row := fresh()
			_, _, stamps := u.lookup(key, schema, row)
			p := u.inUse.Load().partitions[0]
			lock := p.lockName(p.current(), key)
			if abandoned {
				u.Abandon(key, stamps)
				u.until("the lock", func() bool { return r.Client().StrLen(background, lock).Val()%8 == 1 })
			}
			if err := change(lock); err != nil {
				t.Fatal(err)
			}
			v.want(store.Miss, key, schema, row)
			if left := r.Client().PTTL(background, lock).Val(); left <= 0 || left > store.FillLock {
				t.Errorf("%s: the lock that was taken instead ends in %v", name, left)
			}
			u.want(store.Busy, key, schema, row)
		}
	}
}
