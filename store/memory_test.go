package store

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var ctx = context.Background()

func testKey(n int) (k Key) {
	r := rand.NewPCG(uint64(n), 1)
	for i := 0; i < len(k); i += 8 {
		binary.BigEndian.PutUint64(k[i:], r.Uint64())
	}
	return k
}

// testTags are the tags of a typical primary-key read.
func testTags(n int) []Tag {
	return []Tag{{}, {Relation: 16384, Kind: TagRows, Index: 16390}, {Relation: 16384, Kind: TagRow, Index: 16390, Value: uint64(n)}}
}

func testEntry(size int) *Entry {
	return &Entry{
		Columns: []Column{{Name: "id", Type: 23}, {Name: "name", Type: 25}},
		Rows:    1,
		Data:    string(AppendValue(AppendValue(nil, []byte("1234")), []byte(strings.Repeat("x", size)))),
	}
}

// fill misses and fills, as a reader does, and fails the test if it cannot.
func fill(tb testing.TB, m *Memory, key Key, tags []Tag, e *Entry, ttl time.Duration) {
	tb.Helper()
	stamps := make([]Stamp, len(tags))
	_, outcome, err := m.Lookup(ctx, key, tags, stamps)
	if err != nil || outcome != Miss && outcome != Stale {
		tb.Fatalf("Lookup before a fill: %v, %v", outcome, err)
	}
	if err := m.Fill(ctx, key, tags, stamps, e, ttl); err != nil {
		tb.Fatal(err)
	}
}

func lookup(tb testing.TB, m *Memory, key Key, tags []Tag) (*Entry, Outcome) {
	tb.Helper()
	e, outcome, err := m.Lookup(ctx, key, tags, make([]Stamp, len(tags)))
	if err != nil {
		tb.Fatal(err)
	}
	return e, outcome
}

func TestMemoryHitDoesNotAllocate(t *testing.T) {
	m := NewMemory(Options{})
	key, tags := testKey(1), testTags(1)
	fill(t, m, key, tags, testEntry(100), time.Minute)
	stamps := make([]Stamp, len(tags))
	allocs := testing.AllocsPerRun(100, func() {
		if _, outcome, _ := m.Lookup(ctx, key, tags, stamps); outcome != Hit {
			t.Fatal(outcome)
		}
	})
	if allocs != 0 {
		t.Errorf("a hit allocates %v times", allocs)
	}
}

func TestMemoryExpiry(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	m := NewMemory(Options{Now: func() time.Time { return now }})
	for i, ttl := range []time.Duration{time.Second, 0, time.Hour, 1<<63 - 1, -1} {
		fill(t, m, testKey(i), testTags(i), testEntry(10), ttl)
	}
	steps := []struct {
		after time.Duration
		want  string
	}{
		{0, "hit hit hit hit miss"},
		{time.Second - 1, "hit hit hit hit miss"},
		{time.Second, "miss hit hit hit miss"},
		{time.Hour, "miss hit miss hit miss"},
		{-time.Hour, "miss hit miss hit miss"}, // the clock jumped back: what is gone is gone
		{100 * 365 * 24 * time.Hour, "miss hit miss hit miss"},
	}
	for _, s := range steps {
		now = time.Unix(1_000_000, 0).Add(s.after)
		var got []string
		for i := range 5 {
			_, outcome := lookup(t, m, testKey(i), testTags(i))
			got = append(got, outcome.String())
		}
		if got := strings.Join(got, " "); got != s.want {
			t.Errorf("after %v: %s, want %s", s.after, got, s.want)
		}
	}
	if s := m.Stats(); s.Expirations != 2 || s.Entries != 2 || s.Dropped != 1 {
		t.Errorf("stats: %+v", s)
	}
}

// An entry ends when it says, if that is before the TTL.
func TestMemoryExpiryOfTheEntry(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	m := NewMemory(Options{Now: func() time.Time { return now }})
	for i, ends := range []time.Duration{time.Second, time.Minute, 0} {
		e := testEntry(10)
		if ends > 0 {
			e.Expires = MomentOf(now.Add(ends))
		}
		fill(t, m, testKey(i), testTags(i), e, 2*time.Second)
		if got, _ := lookup(t, m, testKey(i), testTags(i)); got == nil || got.Expires.Sub(MomentOf(now)) != []time.Duration{time.Second, 2 * time.Second, 2 * time.Second}[i] {
			t.Errorf("entry %d: %+v", i, got)
		}
	}
	now = now.Add(time.Second)
	for i, want := range []Outcome{Miss, Hit, Hit} {
		if _, outcome := lookup(t, m, testKey(i), testTags(i)); outcome != want {
			t.Errorf("entry %d is %v, want %v", i, outcome, want)
		}
	}
}

// I5, I7: what has gone stale is freed when it is met, and a tag that only
// intents used leaves nothing behind.
func TestMemoryFreesWhatIsStale(t *testing.T) {
	m := NewMemory(Options{})
	for i := range 100 {
		fill(t, m, testKey(i), testTags(i), testEntry(1000), 0)
	}
	full := m.Stats()
	w := WriterID{1}
	table := testTags(0)[1:2]
	m.Intend(ctx, w, table)
	if s := m.Stats(); s.DirtyTags != 1 {
		t.Errorf("after Intend: %+v", s)
	}
	m.Release(ctx, w, table)
	for i := range 100 {
		if _, outcome := lookup(t, m, testKey(i), testTags(i)); outcome != Stale {
			t.Fatalf("entry %d is %v", i, outcome)
		}
	}
	s := m.Stats()
	if s.Entries != 0 || s.Invalidations != 100 || s.DirtyTags != 0 {
		t.Errorf("after all were met: %+v", s)
	}
	if s.Bytes > full.Bytes/4 {
		t.Errorf("%d bytes of %d are still in use", s.Bytes, full.Bytes)
	}

	before := m.Stats()
	for i := range 1000 {
		tags := []Tag{{Relation: 7, Kind: TagRow, Value: uint64(i)}}
		m.Intend(ctx, w, tags)
		m.Release(ctx, w, tags)
	}
	if after := m.Stats(); after != before {
		t.Errorf("writes of tags that nobody reads left something:\n%+v\n%+v", before, after)
	}
}

// The account is zero when everything is gone, whatever happened before.
func TestMemoryAccountsBalance(t *testing.T) {
	m := NewMemory(Options{Bytes: 200_000})
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 2))
			stamps := make([]Stamp, 3)
			for range 5000 {
				i := r.IntN(300)
				key, tags := testKey(i), testTags(i)
				w := WriterID{byte(g)}
				switch r.IntN(10) {
				case 0:
					m.Intend(ctx, w, tags[r.IntN(3):])
				case 1, 2:
					m.Release(ctx, w, tags)
				default:
					if _, outcome, _ := m.Lookup(ctx, key, tags, stamps); outcome != Hit {
						m.Fill(ctx, key, tags, stamps, testEntry(r.IntN(1000)), time.Duration(r.IntN(2))*time.Millisecond)
					}
				}
			}
		})
	}
	group.Wait()
	for g := range 4 {
		for i := range 300 {
			m.Release(ctx, WriterID{byte(g)}, testTags(i))
		}
	}
	if s := m.Stats(); s.DirtyTags != 0 || s.Fills == 0 || s.Invalidations == 0 {
		t.Errorf("stats: %+v", s)
	}
	m.Close()
	for m.evictTag() {
	}
	m.Release(ctx, WriterID{}, []Tag{{}})
	if s := m.Stats(); s.Bytes != 0 || s.Entries != 0 || s.Tags != 0 || m.idleTags.Load() != 0 {
		t.Errorf("not balanced: %+v, %d idle", s, m.idleTags.Load())
	}
}

// Two lookups may find the same stale entry; one of them frees it.
func TestMemoryFreesOnce(t *testing.T) {
	m := NewMemory(Options{})
	key := testKey(1)
	fill(t, m, key, testTags(1), testEntry(1), 0)
	h := key.hash()
	s := m.shard(h)
	n := s.find(&key, h)
	if first, second := m.free(s, n, h), m.free(s, n, h); first != 1 || second != 0 {
		t.Errorf("freed %d and %d times", first, second)
	}
	if got := m.Stats().Entries; got != 0 {
		t.Errorf("%d entries", got)
	}
}

// Readers without locks find what is there, or nothing, while the table grows
// and shrinks.
func TestMemoryLookupDuringResize(t *testing.T) {
	m := NewMemory(Options{Bytes: 4 << 20})
	for i := range 50 {
		fill(t, m, testKey(i), testTags(i), testEntry(i), 0)
	}
	var stop atomic.Bool
	var found, lost atomic.Int64
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			stamps := make([]Stamp, 3)
			for !stop.Load() {
				for i := range 50 {
					e, outcome, _ := m.Lookup(ctx, testKey(i), testTags(i), stamps)
					if outcome != Hit {
						lost.Add(1)
					} else if e.Data != testEntry(i).Data {
						t.Errorf("the entry of %d is another's", i)
						return
					} else {
						found.Add(1)
					}
				}
			}
		})
	}
	for i := 50; i < 8000; i++ {
		fill(t, m, testKey(i), testTags(i), testEntry(10), 0)
	}
	stop.Store(true)
	group.Wait()
	if found.Load() == 0 || lost.Load() > found.Load()/10 {
		t.Errorf("found %d, lost %d", found.Load(), lost.Load())
	}
}

func TestMemoryClosed(t *testing.T) {
	m := NewMemory(Options{})
	fill(t, m, testKey(1), testTags(1), testEntry(1), 0)
	m.Close()
	if _, outcome, err := m.Lookup(ctx, testKey(1), testTags(1), make([]Stamp, 3)); err != ErrClosed {
		t.Errorf("Lookup after Close: %v, %v", outcome, err)
	}
	if err := m.Fill(ctx, testKey(1), nil, nil, testEntry(1), 0); err != nil {
		t.Error(err)
	}
	if err := m.Intend(ctx, WriterID{}, testTags(1)); err != nil {
		t.Error(err)
	}
	if err := m.Release(ctx, WriterID{}, testTags(1)); err != nil {
		t.Error(err)
	}
	if s := m.Stats(); s.Entries != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestMemoryRejectsUnequalLengths(t *testing.T) {
	m := NewMemory(Options{})
	if _, _, err := m.Lookup(ctx, Key{}, testTags(1), nil); err == nil {
		t.Error("Lookup without room for stamps")
	}
	if err := m.Fill(ctx, Key{}, testTags(1), nil, testEntry(1), 0); err == nil {
		t.Error("Fill without stamps")
	}
}
