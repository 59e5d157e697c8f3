package redis

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// reborn waits until a lease stands again, whatever happened.
func (u *user) reborn() {
	u.Helper()
	var err error
	defer func() {
		if u.Failed() {
			u.Logf("the last renewal says: %v; Check: %v", err, u.Check(background))
		}
	}()
	u.until("a working store", func() bool {
		var live bool
		live, err = u.Renew(background, yes)
		return err == nil && live
	})
}

// cold is a PostgreSQL in which a write of before is still under way.
func cold(_ context.Context, fresh store.Fresh) (bool, error) { return fresh.Epoch == "", nil }

// What loses an intent ends its epoch (I12), and the next one is cold until
// PostgreSQL says that every write of before is over (I14).
func TestLostIntents(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(r *redistest.Server, u *user){
		"flushed": func(r *redistest.Server, u *user) { r.Client().FlushAll(background) },
		"D evicted": func(r *redistest.Server, u *user) {
			r.Client().Del(background, u.inUse.Load().partitions[0].keys[0])
		},
		"restarted empty": func(r *redistest.Server, u *user) { r.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := redistest.Start(t)
			u, other := openURL(t, r.URL(), Options{Identity: t.Name()}), openURL(t, r.URL(), Options{Identity: t.Name()})
			u.renew()
			key, table, row := fresh()
			u.cache(key, "old", schema, row)
			other.hits(key, "old", schema, row)
			w := store.NewTransactionWriter(1)
			other.mark(w, row, table)
			lose(r, u)

			// The write is under way: nobody hits or stores what depends on it.
			u.until("an answer", func() bool {
				u.never(key, schema, row)
				live, err := u.Renew(background, cold)
				if live {
					t.Fatal("a lease while a write of before is under way")
				}
				return err == nil
			})
			for _, v := range []*user{u, other} {
				v.until("no hit but an answer", func() bool {
					v.never(key, schema, row)
					_, _, err := v.Lookup(background, key, []store.Tag{schema, row}, make([]store.Stamp, 2))
					return errors.Is(err, store.ErrCold)
				})
			}
			u.reborn()
			u.never(key, schema, row)
			other.never(key, schema, row)
			u.cache(key, "new", schema, row)
			other.hits(key, "new", schema, row)
			if n := u.SharedStats().Epochs; n == 0 {
				t.Error("no end of an epoch was counted")
			}
		})
	}
}

// A mark that finds D lost begins an epoch: the lease of the old one ends with it.
func TestMarkAfterLossEndsTheLease(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.renew()
	key, table, row := fresh()
	u.cache(key, "old", schema, row)
	r.Client().Del(background, u.inUse.Load().partitions[0].keys[0])
	u.hits(key, "old", schema, row) // nobody has marked anything that counts
	another, _, _ := fresh()
	if _, _, err := u.Lookup(background, another, []store.Tag{schema, table}, make([]store.Stamp, 2)); !errors.Is(err, store.ErrCold) {
		t.Fatalf("a stamp was minted, or %v, though intents may be lost", err)
	}
	u.mark(store.NewWriter(), table)
	u.never(key, schema, row)
	u.reborn()
	u.never(key, schema, row)
	// Its intent is in the new epoch.
	u.want(store.Dirty, key, schema, table)
}

// A server that begins with what it had on disk does not know what it has
// forgotten.
func TestOldSnapshot(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.renew()
	key, table, row := fresh()
	u.cache(key, "old", schema, row)
	r.Save()
	rdb := r.CopyRDB()
	w := store.NewTransactionWriter(1)
	u.mark(w, row, table)
	u.release(w, row, table)
	u.cache(key, "new", schema, row)
	r.RestoreRDB(rdb)
	u.never(key, schema, row)
	u.reborn()
	u.never(key, schema, row)
}

// I12: a database that was swapped away and back within its lease shows an epoch that has
// ended, with entries that commits meanwhile have made old.
func TestASwappedDatabaseDoesNotReviveItsEpoch(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u, other := openURL(t, r.URL(), Options{}), openURL(t, r.URL(), Options{})
	u.renew()
	key, table, row := fresh()
	u.cache(key, "old", schema, row)
	other.hits(key, "old", schema, row)
	swap := func() {
		if err := r.Client().Do(background, "SWAPDB", 0, 1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	swap()
	u.renew() // begins another epoch
	w := store.NewTransactionWriter(1)
	u.mark(w, row, table)
	u.release(w, row, table)
	swap()
	left, err := r.Client().PTTL(background, u.inUse.Load().partitions[0].lease).Result()
	if err != nil || left <= 0 {
		t.Fatalf("the old lease stands for %v, %v: the test shows nothing", left, err)
	}
	u.never(key, schema, row)
	u.renew() // and ends it for those who have seen nothing
	u.never(key, schema, row)
	other.never(key, schema, row)
	u.cache(key, "new", schema, row)
	other.hits(key, "new", schema, row)
}

// Nobody renews: hits end with the lease (I13), and do not come back.
func TestLeaseRunsOut(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.renew()
	key, _, row := fresh()
	begin := time.Now()
	u.renew()
	u.cache(key, "old", schema, row)
	u.until("the end of the lease", func() bool {
		after := time.Since(begin)
		_, outcome, err := u.Lookup(background, key, []store.Tag{schema, row}, make([]store.Stamp, 2))
		if err == nil && outcome == store.Hit && after > store.Lease+time.Second {
			t.Fatalf("a hit %v after the last renewal", after)
		}
		return errors.Is(err, store.ErrCold)
	})
	if live, err := u.Renew(background, func(context.Context, store.Fresh) (bool, error) { return false, nil }); live || err != nil {
		t.Fatalf("live %v, %v though PostgreSQL does not agree", live, err)
	}
	u.renew()
	u.never(key, schema, row)
}

// An extension that was asked for before the lease ran out arrives late: it
// extends nothing.
func TestLateExtension(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.renew()
	lease := u.inUse.Load().partitions[0].lease
	r.Client().PExpire(background, lease, 100*time.Millisecond)
	live, err := u.Renew(background, func(ctx context.Context, fresh store.Fresh) (bool, error) {
		if fresh.Epoch != "" {
			t.Error("asked about a new epoch while the old one stands")
		}
		u.until("the end of the lease", func() bool { return r.Client().Exists(background, lease).Val() == 0 })
		return true, nil
	})
	if live || err != nil {
		t.Errorf("live %v, %v after the lease ran out", live, err)
	}
	if r.Client().Exists(background, lease).Val() != 0 {
		t.Error("a lease that ran out was extended")
	}
}

// The name changes with the epoch, and only with it; sure is not asked while most
// of the lease is left.
func TestFreshNamesThePendingEpoch(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	var asked []string
	ask := func(answer bool) func(context.Context, store.Fresh) (bool, error) {
		return func(_ context.Context, fresh store.Fresh) (bool, error) {
			asked = append(asked, fresh.Epoch)
			return answer, nil
		}
	}
	for _, step := range []struct {
		answer bool
		before func()
	}{{answer: false}, {answer: false}, {answer: false, before: func() { r.Client().FlushAll(background) }}, {answer: true}, {answer: true}} {
		if step.before != nil {
			step.before()
		}
		live, err := u.Renew(background, ask(step.answer))
		if live != step.answer || err != nil {
			t.Fatalf("live %v, %v where sure says %v", live, err, step.answer)
		}
	}
	if len(asked) != 4 || asked[0] == "" || asked[0] != asked[1] || asked[1] == asked[2] || asked[2] != asked[3] {
		t.Errorf("asked about %q", asked)
	}
}

// A master becomes a replica, and a master again: what it held is not found.
func TestDemotionAndBack(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	u := openURL(t, a.URL(), Options{})
	u.renew()
	key, table, row := fresh()
	u.cache(key, "old", schema, row)
	a.Follow(b)
	u.never(key, schema, row)
	if live, err := u.Renew(background, yes); live || err == nil {
		t.Fatalf("live %v, %v on a replica", live, err)
	}
	if err := u.Intend(background, store.NewWriter(), []store.Tag{table}); err == nil {
		t.Fatal("a mark on a replica")
	}
	if err := u.Check(background); err == nil || !strings.Contains(err.Error(), "role") {
		t.Errorf("Check of a replica: %v", err)
	}
	a.Promote()
	u.reborn()
	u.never(key, schema, row)
	u.cache(key, "new", schema, row)
}

// I16: the marks of those who find a young epoch on a server that has replicated
// make commits wait for the rest of a lease. On one that never did they do not, nor
// on one that was a master a lease ago and has only been emptied.
func TestYoungEpoch(t *testing.T) {
	t.Parallel()
	a := redistest.Start(t)
	b := redistest.Replica(t, a)
	b.Promote()
	u := openURL(t, b.URL(), Options{})
	_, table, _ := fresh()
	marked, err := u.Mark(background, store.NewWriter(), []store.Tag{table}, 0)
	if err != nil || marked.Wait <= 0 || marked.Wait > store.Lease || !marked.Schema {
		t.Errorf("after a promotion: %+v, %v", marked, err)
	}
	u.until("the end of the wait", func() bool {
		later, err := u.Mark(background, store.NewWriter(), []store.Tag{table}, 0)
		if err != nil || later.Wait > marked.Wait {
			t.Fatalf("%+v after %+v, %v", later, marked, err)
		}
		return later.Wait == 0
	})
	if err := b.Client().FlushAll(background).Err(); err != nil {
		t.Fatal(err)
	}
	if marked, err := u.Mark(background, store.NewWriter(), []store.Tag{table}, 0); err != nil || marked.Wait != 0 {
		t.Errorf("on a server known for longer than a lease that was emptied: %+v, %v", marked, err)
	}

	v := openURL(t, redistest.Start(t).URL(), Options{})
	if marked, err := v.Mark(background, store.NewWriter(), []store.Tag{table}, 0); err != nil || marked.Wait != 0 {
		t.Errorf("on a server of its own: %+v, %v", marked, err)
	}
}

// A Redis that hangs costs one time-out, and nothing afterwards; when it answers
// again it is used again.
func TestHungRedis(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	const timeout = 300 * time.Millisecond
	u := openURL(t, r.URL(), Options{Timeout: timeout})
	u.renew()
	key, _, row := fresh()
	u.cache(key, "v", schema, row)
	r.Pause()
	u.never(key, schema, row)
	if !u.SharedStats().Down {
		t.Error("not down")
	}
	if _, _, err := u.Lookup(background, key, []store.Tag{row}, make([]store.Stamp, 1)); !errors.Is(err, store.ErrDown) {
		t.Errorf("while it is down: %v", err)
	}
	if err := u.Fill(background, key, []store.Tag{row}, []store.Stamp{1}, entryOf("x"), time.Minute); err != nil {
		t.Errorf("Fill: %v", err)
	}
	if n := u.SharedStats().Timeouts; n == 0 {
		t.Error("no time-out was counted")
	}
	r.Resume()
	u.reborn()
	if u.SharedStats().Down {
		t.Error("down though it answers")
	}
}

// A caller whose time is up leaves, and that says nothing of Redis.
func TestImpatientCaller(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	p := r.Proxy()
	u := openURL(t, r.URLThrough(p), Options{Timeout: 10 * time.Second})
	u.renew()
	key, _, row := fresh()
	p.Cut()
	ctx, cancel := context.WithTimeout(background, 20*time.Millisecond)
	defer cancel()
	_, _, err := u.Lookup(ctx, key, []store.Tag{row}, make([]store.Stamp, 1))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if s := u.SharedStats(); s.Down || s.Timeouts != 0 {
		t.Errorf("%+v", s)
	}
	p.Restore()
	u.reborn()
}

// A full Redis takes no entries, and all intents.
func TestFullRedis(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
	u := openURL(t, r.URL(), Options{})
	u.keep()
	key, table, row := fresh()
	u.cache(key, "old", schema, row)
	if err := r.Client().ConfigSet(background, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	u.hits(key, "old", schema, row)
	other, _, _ := fresh()
	if _, _, err := u.Lookup(background, other, []store.Tag{schema, table}, make([]store.Stamp, 2)); err == nil {
		t.Error("a stamp was minted in a full Redis")
	}
	w := store.NewTransactionWriter(1)
	u.mark(w, row)
	u.never(key, schema, row)
	u.release(w, row)
	u.never(key, schema, row)
	if writers, err := u.Writers(background); err != nil || len(writers) != 0 {
		t.Errorf("writers %v, %v", writers, err)
	}
	if err := u.Check(background); err != nil {
		t.Errorf("Check: %v", err)
	}
	if u.SharedStats().Down {
		t.Error("full is not down")
	}
}

// Redis evicts what it likes: every outcome is legal but a hit of what a writer
// has touched.
func TestEviction(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--maxmemory", "2mb", "--maxmemory-policy", "allkeys-random", "--maxmemory-samples", "10")
	u := openURL(t, r.URL(), Options{})
	big := strings.Repeat("x", 20_000)
	for range 200 {
		u.reborn()
		key, table, row := fresh()
		stamps := make([]store.Stamp, 2)
		if _, outcome, err := u.Lookup(background, key, []store.Tag{table, row}, stamps); err == nil && outcome == store.Miss {
			u.fill(key, entryOf(big), stamps, table, row)
		}
		w := store.NewTransactionWriter(1)
		if u.Intend(background, w, []store.Tag{row}) == nil {
			u.never(key, table, row)
		}
		if u.Release(background, w, []store.Tag{row}) == nil {
			u.never(key, table, row)
		}
	}
	if n := u.SharedStats().Trips; n == 0 {
		t.Error("no trips")
	}
}

// A client that Sentinel or a name leads to another server does not mix the two.
func TestAnotherServerBehindTheAddress(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	p := a.Proxy()
	u := openURL(t, a.URLThrough(p), Options{})
	u.renew()
	key, _, row := fresh()
	u.cache(key, "a", schema, row)
	p.SwitchTo(b.Addr())
	u.never(key, schema, row)
	u.reborn()
	u.never(key, schema, row)
	u.cache(key, "b", schema, row)
}

// A server gives up its replication id and closes no connection: the next
// renewal finds out.
func TestReplicationIDChanges(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--enable-debug-command", "yes")
	u := openURL(t, r.URL(), Options{})
	u.renew()
	key, _, row := fresh()
	u.cache(key, "old", schema, row)
	if err := r.Client().Do(background, "DEBUG", "CHANGE-REPL-ID").Err(); err != nil {
		t.Fatal(err)
	}
	u.reborn()
	u.never(key, schema, row)
}
