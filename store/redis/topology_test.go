package redis

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/storetest"
)

func TestClusterContract(t *testing.T) {
	t.Parallel()
	servers := redistest.Cluster(t, 3, 0)
	storetest.Run(t, func(t *testing.T) store.Store { return leased(t, redistest.ClusterURL(servers), nil) })
}

// An entry may depend on tags of several nodes: the schema and two relations.
func TestClusterSpreadsTags(t *testing.T) {
	t.Parallel()
	servers := redistest.Cluster(t, 3, 0)
	u, v := openURL(t, redistest.ClusterURL(servers), Options{}), openURL(t, redistest.ClusterURL(servers), Options{})
	u.keep()
	if err := u.Check(background); err != nil {
		t.Fatal(err)
	}
	used := make(map[int]bool)
	for range 50 {
		key, a, _ := fresh()
		_, b, row := fresh()
		tags := []store.Tag{schema, a, b, row}
		for _, tag := range tags {
			used[u.inUse.Load().partitionOf(tag)] = true
		}
		u.cache(key, "v", tags...)
		v.hits(key, "v", tags...)
		for _, tag := range tags {
			w := store.NewTransactionWriter(1)
			u.mark(w, tag)
			v.want(store.Dirty, key, tags...)
			if writers, err := v.Writers(background); err != nil || len(writers) != 1 || writers[0] != w {
				t.Fatalf("writers %v, %v", writers, err)
			}
			if err := v.Resolve(background, []store.WriterID{w}); err != nil {
				t.Fatal(err)
			}
			_, _, stamps := u.lookup(key, tags...)
			v.want(store.Busy, key, tags...)
			u.fill(key, entryOf("v"), stamps, tags...)
			u.hits(key, "v", tags...)
		}
	}
	if len(used) < clusterPartitions/2 {
		t.Errorf("only %d partitions are used", len(used))
	}
	_, _, catalog := u.lookup(store.Key{}, schema, store.Tag{Kind: store.TagCatalog})
	_, table, _ := fresh()
	for _, tc := range []struct {
		stamp store.Stamp
		want  bool
	}{{catalog[1], false}, {catalog[0], true}, {0, true}} {
		w := store.NewTransactionWriter(1)
		marked, err := v.Mark(background, w, []store.Tag{table}, tc.stamp)
		if err != nil || marked.Schema != tc.want {
			t.Errorf("%+v, %v, want schema %v", marked, err, tc.want)
		}
		v.release(w, table, schema)
	}
}

// A node goes and its replica takes over: cold, never stale.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	servers := redistest.Cluster(t, 3, 1)
	u := openURL(t, redistest.ClusterURL(servers), Options{})
	u.renew()
	key, _, row := fresh()
	u.cache(key, "old", schema, row)
	owner := u.inUse.Load().partitions[u.inUse.Load().partitionOf(row)].client.Options().Addr
	for _, s := range servers {
		if s.Addr() == owner {
			s.Kill()
		}
	}
	u.never(key, schema, row)
	u.reborn()
	u.never(key, schema, row)
	u.cache(key, "new", schema, row)
}

func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := redistest.Replica(t, master)
	s := redistest.Sentinel(t, master, replica)
	u := openURL(t, s.URL(), Options{})
	u.renew()
	key, table, row := fresh()
	u.cache(key, "old", schema, row)
	master.Kill()
	u.never(key, schema, row)
	s.AwaitFailover(master.Addr())
	u.until("a mark", func() bool {
		marked, err := u.Mark(background, store.NewTransactionWriter(1), []store.Tag{table}, 0)
		if err == nil && marked.Wait == 0 {
			t.Error("a mark right after a failover need not wait")
		}
		return err == nil
	})
	u.reborn()
	u.never(key, schema, row)
	other, _, row2 := fresh()
	if err := u.Resolve(background, mustWriters(u)); err != nil {
		t.Fatal(err)
	}
	u.cache(other, "new", schema, row2)
}

func mustWriters(u *user) []store.WriterID {
	u.Helper()
	writers, err := u.Writers(background)
	if err != nil {
		u.Fatal(err)
	}
	return writers
}
