package store

import (
	"runtime"
	"testing"
	"time"
)

func TestMemoryKeepsItsBound(t *testing.T) {
	const max = 1 << 20
	m := NewMemory(Options{Bytes: max})
	for i := range 5000 {
		fill(t, m, testKey(i), testTags(i), testEntry(i%2000), 0)
		if s := m.Stats(); s.Bytes > max {
			t.Fatalf("%d bytes after %d fills", s.Bytes, i)
		}
	}
	s := m.Stats()
	if s.Bytes < max*3/4 || s.Evictions == 0 || uint64(s.Entries)+s.Evictions != s.Fills {
		t.Errorf("stats: %+v", s)
	}

	// Tags that were looked up and never filled with are bounded too.
	stamps := make([]Stamp, 3)
	for i := range 50_000 {
		m.Lookup(ctx, Key{}, testTags(i), stamps)
	}
	if got := m.Stats(); got.Bytes > max || got.Entries < s.Entries/2 {
		t.Errorf("after many bare lookups: %+v, before %+v", got, s)
	}
}

func TestMemoryGrow(t *testing.T) {
	m := NewMemory(Options{Bytes: 10_000})
	fill(t, m, testKey(1), testTags(1), testEntry(5_000), 0)
	if _, outcome := lookup(t, m, testKey(1), testTags(1)); outcome != Miss {
		t.Errorf("half of the store in one entry: %v", outcome)
	}
	m.Grow(100_000)
	m.Grow(50_000)
	fill(t, m, testKey(1), testTags(1), testEntry(20_000), 0)
	if _, outcome := lookup(t, m, testKey(1), testTags(1)); outcome != Hit {
		t.Errorf("after Grow: %v", outcome)
	}
}

func TestMemoryDropsWhatIsTooLarge(t *testing.T) {
	m := NewMemory(Options{Bytes: 1 << 20, EntryBytes: 1 << 10})
	fill(t, m, testKey(1), testTags(1), testEntry(500), 0)
	fill(t, m, testKey(2), testTags(2), testEntry(1500), 0)
	_, small := lookup(t, m, testKey(1), testTags(1))
	_, large := lookup(t, m, testKey(2), testTags(2))
	if small != Hit || large != Miss {
		t.Errorf("small %v, large %v", small, large)
	}
}

// A scan of entries that nobody asks for again does not push out what is in use.
func TestMemoryScanResistance(t *testing.T) {
	m := NewMemory(Options{Bytes: 2 << 20})
	const hot = 500
	next := hot
	missed := 0
	for round := range 20 {
		for i := range hot {
			if _, outcome := lookup(t, m, testKey(i), testTags(i)); outcome != Hit {
				if round > 3 {
					missed++
				}
				fill(t, m, testKey(i), testTags(i), testEntry(1000), 0)
			}
		}
		for range 2000 {
			fill(t, m, testKey(next), testTags(next), testEntry(1000), 0)
			next++
		}
	}
	if total := hot * 16; missed > total/10 {
		t.Errorf("%d of %d lookups of hot entries missed", missed, total)
	}
}

// What was hit twice while it was new stays through a scan, without being
// missed once.
func TestMemoryKeepsWhatWasHit(t *testing.T) {
	m := NewMemory(Options{Bytes: 2 << 20})
	const used = 50
	for i := range used {
		fill(t, m, testKey(i), testTags(i), testEntry(1000), 0)
		lookup(t, m, testKey(i), testTags(i))
		lookup(t, m, testKey(i), testTags(i))
	}
	for i := used; i < 5000; i++ {
		fill(t, m, testKey(i), testTags(i), testEntry(1000), 0)
	}
	for i := range used {
		if _, outcome := lookup(t, m, testKey(i), testTags(i)); outcome != Hit {
			t.Errorf("entry %d: %v", i, outcome)
		}
	}
}

// The stamp of the schema tag stays under pressure, also while no entry uses
// it: a new one would have every catalog loaded again.
func TestMemoryKeepsTheSchemaStamp(t *testing.T) {
	m := NewMemory(Options{Bytes: 20_000})
	stamps := make([]Stamp, 1)
	m.Lookup(ctx, Key{}, []Tag{{}}, stamps)
	want := stamps[0]
	for i := range 2000 {
		m.Lookup(ctx, Key{}, testTags(i)[2:], stamps)
	}
	if m.Lookup(ctx, Key{}, []Tag{{}}, stamps); stamps[0] != want {
		t.Errorf("stamp %x, was %x", stamps[0], want)
	}
}

// A tag that is looked up again and again keeps its stamp while others come that are looked
// up once: somebody is about to fill with it.
func TestMemoryKeepsTheStampsOfWhatIsLookedUp(t *testing.T) {
	m := NewMemory(Options{Bytes: 20_000})
	stamps := make([]Stamp, 1)
	wanted := []Tag{{Relation: 1, Kind: TagTable}}
	m.Lookup(ctx, Key{}, wanted, stamps)
	want := stamps[0]
	for i := range 5000 {
		m.Lookup(ctx, Key{}, testTags(i)[2:], stamps)
		if m.Lookup(ctx, Key{}, wanted, stamps); stamps[0] != want {
			t.Fatalf("another stamp after %d others", i)
		}
	}
	if s := m.Stats(); s.Bytes > 20_000 || s.Tags > 1000 {
		t.Errorf("%+v", s)
	}
}

// Tables shrink again when a few large entries have pushed out many small ones.
func TestMemoryTablesShrink(t *testing.T) {
	m := NewMemory(Options{Bytes: 4 << 20})
	buckets := func() (n int) {
		for i := range m.shards {
			if table := m.shards[i].table.Load(); table != nil {
				n += len(table.buckets)
			}
		}
		return n
	}
	for i := range 8000 {
		fill(t, m, testKey(i), testTags(i), testEntry(1), 0)
	}
	many := buckets()
	for i := range 400 {
		fill(t, m, testKey(10_000+i), testTags(i), testEntry(30_000), 0)
	}
	if few := buckets(); few > many/8 {
		t.Errorf("%d buckets for %d entries, were %d", few, m.Stats().Entries, many)
	}
}

// heapOf is what is alive after f more than before, in bytes.
func heapOf(f func() (alive any)) int64 {
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	alive := f()
	after := heap()
	runtime.KeepAlive(alive)
	return after - before
}

// Bytes is what the process really holds of entries, within a tenth, and those are small.
func TestMemoryOfEntries(t *testing.T) {
	columns := func(n int) (columns []Column) { // shared, as the driver does
		for range n {
			columns = append(columns, Column{Name: "column", Type: 25})
		}
		return columns
	}
	tagged := func(tags int) func(i int) []Tag {
		return func(i int) []Tag {
			all := append(testTags(i), Tag{Relation: 16391, Kind: TagRow, Index: 16396, Value: uint64(i)})
			return all[:tags]
		}
	}
	row := columns(4)
	shapes := []struct {
		name    string
		n       int
		columns []Column
		rows    int
		data    int // bytes of an entry
		tags    func(i int) []Tag
		ttl     time.Duration
		most    int64 // bytes that an entry may take; 0 is no matter
	}{
		{"one row of 50 bytes", 25_000, row, 1, 50, testTags, time.Hour, 300},
		{"one row of 50 bytes, without a TTL", 25_000, row, 1, 50, testTags, 0, 300},
		{"one row of 50 bytes, few", 3_000, row, 1, 50, testTags, time.Hour, 330},
		{"one row of 50 bytes, the table twice as large as it was", 35_000, row, 1, 50, testTags, time.Hour, 300},
		{"one int", 25_000, columns(1), 1, 4 + 4, testTags, time.Hour, 250},
		{"one bigint", 25_000, columns(1), 1, 4 + 8, testTags, time.Hour, 260},
		{"ten rows of three columns", 25_000, columns(3), 10, 10 * 3 * (4 + 8), testTags, time.Hour, 640},
		{"wide rows", 2_500, columns(200), 1, 200 * (4 + 20), testTags, time.Hour, 5_700},
		{"one tag", 25_000, row, 1, 50, tagged(1), time.Hour, 260},
		{"two tags", 25_000, row, 1, 50, tagged(2), time.Hour, 260},
		{"three tags", 25_000, row, 1, 50, tagged(3), time.Hour, 300},
		{"four tags", 25_000, row, 1, 50, tagged(4), time.Hour, 400},
	}
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			m := NewMemory(Options{Bytes: 1 << 30})
			real := heapOf(func() any {
				for i := range s.n {
					e := &Entry{Columns: s.columns, Rows: s.rows, Data: string(make([]byte, s.data)), Took: 1}
					if s.ttl > 0 {
						e.Expires = Now().Add(s.ttl)
					}
					fill(t, m, testKey(i), s.tags(i), e, s.ttl)
				}
				return m
			})
			n, got := int64(s.n), m.Stats().Bytes
			t.Logf("%d bytes each, accounted %d", real/n, got/n)
			if got < real*90/100 || got > real*110/100 {
				t.Errorf("accounted %d bytes, really %d", got, real)
			}
			if s.most > 0 && real > n*s.most {
				t.Errorf("an entry takes %d bytes, want at most %d", real/n, s.most)
			}
		})
	}
}

// The same of what is not entries, and when entries are gone.
func TestMemoryAccountsHonestly(t *testing.T) {
	stamps := make([]Stamp, 3)
	columns := testEntry(1).Columns
	cases := []struct {
		name string
		n    int
		do   func(m *Memory, i int)
	}{
		{"one row of 50 bytes each, of which half have gone", 50_000, func(m *Memory, i int) {
			e := &Entry{Columns: columns, Rows: 1, Data: string(make([]byte, 50))}
			fill(t, m, testKey(i), testTags(i), e, time.Hour)
			if i%2 == 0 {
				m.Release(ctx, WriterID{1}, testTags(i)[2:])
				_, _, _ = m.Lookup(ctx, testKey(i), testTags(i), stamps)
			}
		}},
		{"large entries", 2_000, func(m *Memory, i int) { fill(t, m, testKey(i), testTags(i), testEntry(10_000), 0) }},
		{"stamps", 20_000, func(m *Memory, i int) { m.Lookup(ctx, Key{}, testTags(i)[2:], stamps) }},
		{"intents", 20_000, func(m *Memory, i int) { m.Intend(ctx, WriterID{1}, testTags(i)[2:]) }},
		{"stale entries", 10_000, func(m *Memory, i int) {
			fill(t, m, testKey(i), testTags(i), testEntry(8), 0)
			m.Release(ctx, WriterID{1}, testTags(i)[2:])
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := NewMemory(Options{Bytes: 1 << 30})
			real := heapOf(func() any {
				for i := range c.n {
					c.do(m, i)
				}
				return m
			})
			got := m.Stats().Bytes
			t.Logf("%d bytes each, accounted %d", real/int64(c.n), got/int64(c.n))
			within := int64(10) // percent
			if m.Stats().Entries == 0 {
				within = 25 // it depends on how full Go's maps are
			}
			if got < real*(100-within)/100 || got > real*(100+within)/100 {
				t.Errorf("accounted %d bytes, really %d", got, real)
			}
		})
	}
}
