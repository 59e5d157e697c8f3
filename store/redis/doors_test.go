package redis

import (
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// shuts takes a relation through the doors until it is closed.
func (u *user) shuts(relation uint32) {
	u.Helper()
	u.sets(map[uint32]store.Door{relation: store.Closing})
	if err := u.Sweep(background, []uint32{relation}); err != nil {
		u.Fatalf("Sweep: %v", err)
	}
	u.sets(map[uint32]store.Door{relation: store.Closed})
}

func (u *user) sets(relations map[uint32]store.Door) {
	u.Helper()
	if _, err := u.Count(background, nil); err != nil {
		u.Fatalf("Count: %v", err)
	}
	version := ""
	if list := u.Doors(); list != nil {
		version = list.Version
	}
	if ok, err := u.SetDoors(background, version, relations); err != nil || !ok {
		u.Fatalf("SetDoors: %v, %v", ok, err)
	}
}

// marks returns how many of a writer's tags get its intent, and releases them.
func (u *user) marks(w store.WriterID, tags ...store.Tag) int {
	u.Helper()
	m, err := u.Mark(background, w, tags, 0)
	if err != nil {
		u.Fatalf("Mark: %v", err)
	}
	u.release(w, append(m.Tags, schema)...) // no catalog was compared with
	return len(m.Tags)
}

// doorsWorld is a server and two processes.
func doorsWorld(t *testing.T) (a, b *user, redis *goredis.Client) {
	t.Parallel()
	r := redistest.Start(t)
	a, b = openURL(t, r.URL(), Options{}), openURL(t, r.URL(), Options{})
	a.keep()
	options, err := goredis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	redis = goredis.NewClient(options)
	t.Cleanup(func() { _ = redis.Close() })
	return a, b, redis
}

// I26: of a relation that is not open nobody mints.
func TestNobodyMintsOfARelationThatIsNotOpen(t *testing.T) {
	a, b, _ := doorsWorld(t)
	key, table, row := fresh()
	tags := []store.Tag{schema, table, row}
	a.cache(key, "v", tags...)
	for _, door := range []store.Door{store.Closing, store.Closed, store.Opening} {
		a.sets(map[uint32]store.Door{table.Relation: door})
		other, _, otherRow := fresh()
		otherRow.Relation = table.Relation
		for _, u := range []*user{a, b} {
			_, outcome, stamps := u.lookup(other, schema, otherRow)
			if outcome != store.Dirty || stamps[0] == 0 || stamps[1] != 0 {
				t.Errorf("door %d: got %v with stamps %x, want none of the relation", door, outcome, stamps)
			}
		}
		open, _, openRow := fresh()
		a.cache(open, "v", schema, openRow)
	}
	a.sets(nil)
	a.want(store.Miss, store.Key{1}, schema, table)
}

// I26: what was there before is gone when it is closed, and nothing else is.
func TestASweepDropsTheStampsOfWhatCloses(t *testing.T) {
	a, b, _ := doorsWorld(t)
	key, table, row := fresh()
	other, otherTable, otherRow := fresh()
	a.cache(key, "v", schema, row)
	a.cache(store.Key{2}, "v", schema, table)
	a.cache(other, "v", schema, otherTable, otherRow)
	for i := range 3 * sweepStep {
		tag := row
		tag.Value = uint64(i)
		b.lookup(store.Key{}, tag)
	}
	_, _, stamps := a.lookup(store.Key{3}, schema, row) // a SELECT is under way
	a.shuts(table.Relation)
	a.fill(store.Key{3}, entryOf("late"), stamps, schema, row)
	if err := a.Stored(t.Context(), store.Key{3}); err != nil {
		t.Fatal(err)
	}
	for _, u := range []*user{a, b} {
		u.never(key, schema, row)
		u.never(store.Key{2}, schema, table)
		u.never(store.Key{3}, schema, row)
		u.hits(other, "v", schema, otherTable, otherRow)
	}
	a.sets(nil)
	a.never(key, schema, row)
	a.never(store.Key{3}, schema, row)
}

// I26: commits leave out intents by what the list says when they mark.
func TestACommitLeavesOutWhatIsClosed(t *testing.T) {
	a, b, redis := doorsWorld(t)
	_, table, row := fresh()
	key, open, _ := fresh()
	tags := []store.Tag{table, row, open}
	commit := store.NewTransactionWriter
	a.cache(key, "v", schema, open)

	a.sets(map[uint32]store.Door{table.Relation: store.Closing})
	if n := b.marks(commit(1), tags...); n != 3 {
		t.Errorf("closing: %d tags are marked, want all", n)
	}
	a.shuts(table.Relation)
	for i, u := range []*user{b, b, a} { // b learns of it
		if n := u.marks(commit(2+uint64(i)), tags...); n != 1 {
			t.Errorf("closed: %d tags are marked, want that of the other relation", n)
		}
	}
	a.want(store.Stale, key, schema, open)
	for what, w := range map[string]store.WriterID{"a statement alone": store.NewBackendWriter(1, time.Unix(1, 0)), "a commit that does not wait for the disk": store.NewAsyncWriter(9),
		"who has no id": store.NewWriter()} {
		if n := b.marks(w, tags...); n != 3 {
			t.Errorf("%s: %d tags are marked, want all", what, n)
		}
	}
	b.mark(commit(10), tags...) // what does not compare the catalog
	if writers, err := b.Writers(t.Context()); err != nil || len(writers) != 1 {
		t.Errorf("%d writers, %v", len(writers), err)
	}
	b.release(commit(10), tags...)

	a.sets(map[uint32]store.Door{table.Relation: store.Opening}) // b has not heard of it
	if n := b.marks(commit(11), tags...); n != 3 {
		t.Errorf("opening: %d tags are marked, want all", n)
	}
	a.shuts(table.Relation)
	if n := b.marks(commit(12), tags...); n != 1 {
		t.Errorf("closed again: %d tags are marked", n)
	}
	if err := redis.FlushAll(t.Context()).Err(); err != nil { // the list goes with the epoch
		t.Fatal(err)
	}
	if n := b.marks(commit(13), tags...); n != 3 {
		t.Errorf("after the list was lost: %d tags are marked, want all", n)
	}
}

// I26: a commit sets no intent at all only where marking would have left out each, and found the catalog as it was.
func TestAllClosedIsWhatMarkingWouldFind(t *testing.T) {
	a, b, redis := doorsWorld(t)
	_, table, row := fresh()
	_, open, _ := fresh()
	at := a.before()[1]
	closed := func(what string, want bool, catalog store.Stamp, tags ...store.Tag) {
		t.Helper()
		if got, err := b.AllClosed(t.Context(), tags, catalog); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	closed("never closed", false, at, table, row)
	a.sets(map[uint32]store.Door{table.Relation: store.Closing})
	b.marks(store.NewTransactionWriter(1), table) // b learns of it
	closed("closing", false, at, table, row)
	a.shuts(table.Relation)
	closed("closed, of which it has not heard", false, at, table, row)
	b.marks(store.NewTransactionWriter(2), table)
	closed("closed", true, at, table, row)
	closed("another relation too", false, at, table, open)
	closed("the schema too", false, at, table, schema)
	closed("planned with another catalog", false, at+1, table, row)
	closed("planned with none", false, 0, table, row)

	ddl := store.NewTransactionWriter(3)
	a.mark(ddl, store.Tag{Kind: store.TagCatalog})
	closed("while the catalog changes", false, at, table, row)
	a.release(ddl, store.Tag{Kind: store.TagCatalog})
	at = a.before()[1]
	closed("after it has changed", true, at, table, row)

	a.sets(map[uint32]store.Door{table.Relation: store.Opening})
	closed("opening, of which it has not heard", false, at, table, row)
	a.shuts(table.Relation)
	b.marks(store.NewTransactionWriter(4), table)
	closed("closed again", true, at, table, row)
	if err := redis.Del(t.Context(), b.inUse.Load().partitions[0].lease).Err(); err != nil {
		t.Fatal(err)
	}
	closed("without a lease", false, at, table, row)
	if err := redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	closed("after the list was lost", false, at, table, row)
}

// Of two who change the list at once one finds it changed.
func TestTheListIsChangedByOneAtATime(t *testing.T) {
	a, b, _ := doorsWorld(t)
	_, table, _ := fresh()
	a.sets(map[uint32]store.Door{table.Relation: store.Closing})
	old := a.Doors().Version
	b.sets(map[uint32]store.Door{table.Relation: store.Closed})
	if ok, err := a.SetDoors(background, old, nil); ok || err != nil {
		t.Errorf("an old version was replaced: %v, %v", ok, err)
	}
	if got := a.Doors().Of(table.Relation); got != store.Closed {
		t.Errorf("who was refused knows door %d", got)
	}
	if a.SharedStats().Closed != 1 {
		t.Errorf("stats: %+v", a.SharedStats())
	}
}

// The traffic of all is told to one of them, once a window.
func TestTrafficIsAddedUp(t *testing.T) {
	a, b, redis := doorsWorld(t)
	count := func(u *user, traffic map[uint32]store.Traffic) map[uint32]store.Traffic {
		t.Helper()
		window, err := u.Count(background, traffic)
		if err != nil {
			t.Fatal(err)
		}
		return window
	}
	for _, u := range []*user{a, b, a} {
		if w := count(u, map[uint32]store.Traffic{7: {Commits: 2, Lookups: 1}, 8: {Lookups: 1 << 40}}); w != nil {
			t.Errorf("in the window: %v", w)
		}
	}
	var p *partition
	if err := a.use(t.Context(), func(in *incarnation) error { p = in.partitions[0]; return nil }); err != nil {
		t.Fatal(err)
	}
	began := redis.HGet(t.Context(), p.prefix+"t", "began")
	if began.Err() != nil || redis.HSet(t.Context(), p.prefix+"t", "began", 1).Err() != nil { // long ago
		t.Fatal(began.Err())
	}
	w := count(b, map[uint32]store.Traffic{7: {Commits: 1}})
	if len(w) != 2 || w[7] != (store.Traffic{Commits: 7, Lookups: 3}) || w[8] != (store.Traffic{Lookups: 3 << 40}) {
		t.Errorf("the window's traffic: %v", w)
	}
	if w := count(a, nil); w != nil {
		t.Errorf("the next window: %v", w)
	}
}
