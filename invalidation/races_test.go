package invalidation

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// stage is where the races of the package comment are played: a store, a
// coordinator, and a database of two tables with one value each.
type stage struct {
	t    *testing.T
	s    *store.Memory
	c    *Coordinator
	a, b int
}

var (
	schema = store.Tag{Kind: store.TagSchema}
	tableA = tag(1)
	tableB = tag(2)
	rowA   = store.Tag{Relation: 1, Kind: store.TagRow, Index: 3, Value: 4}
	query  = store.Key{1}
)

// read is a reader: between lookup and fill the others may act.
type read struct {
	*stage
	tags    []store.Tag
	stamps  []store.Stamp
	outcome store.Outcome
	value   int // of a hit
}

func (s *stage) lookup(tags ...store.Tag) *read {
	s.t.Helper()
	r := &read{stage: s, tags: tags, stamps: make([]store.Stamp, len(tags))}
	e, outcome, err := s.s.Lookup(ctx, query, tags, r.stamps)
	if err != nil {
		s.t.Fatal(err)
	}
	r.outcome = outcome
	if outcome == store.Hit {
		values := e.Values()
		v, _, _ := values.Next()
		r.value = int(v[0])
	}
	return r
}

func (r *read) fill(value int) {
	r.t.Helper()
	e := &store.Entry{Columns: make([]store.Column, 1), Rows: 1, Data: string(store.AppendValue(nil, []byte{byte(value)}))}
	if err := r.s.Fill(ctx, query, r.tags, r.stamps, e, 0); err != nil {
		r.t.Fatal(err)
	}
}

// cache has the value in the cache, as a reader does who is alone.
func (s *stage) cache(value int, tags ...store.Tag) {
	s.t.Helper()
	s.lookup(tags...).fill(value)
	if r := s.lookup(tags...); r.outcome != store.Hit {
		s.t.Fatalf("not cached: %v", r.outcome)
	}
}

// result is what a reader who comes now is given.
func (s *stage) result(database int, tags ...store.Tag) int {
	s.t.Helper()
	if r := s.lookup(tags...); r.outcome == store.Hit {
		return r.value
	}
	return database
}

func (s *stage) begin(tags ...store.Tag) *Write {
	s.t.Helper()
	w := s.c.Begin()
	s.intend(w, tags...)
	return w
}

func (s *stage) intend(w *Write, tags ...store.Tag) {
	s.t.Helper()
	if err := w.Intend(ctx, tags); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) spare(w *Write, tags ...store.Tag) {
	s.t.Helper()
	if err := w.Spare(ctx, tags); err != nil {
		s.t.Fatal(err)
	}
}

// races are the interleavings of doc.go. Each plays one, with the guard or
// without, and returns what the last reader is given and what the database
// says by then.
var races = []struct {
	name string
	play func(s *stage, guard bool) (got, want int)
}{
	{"I1 a load that began before a write stores after it", func(s *stage, guard bool) (int, int) {
		r := s.lookup(tableA)
		old := s.a
		w := s.begin(tableA)
		s.a++
		w.Release()
		if !guard { // the stamps are read after the rows
			r = s.lookup(tableA)
		}
		r.fill(old)
		return s.result(s.a, tableA), s.a
	}},
	{"I2 the commit is visible and the cache does not know yet", func(s *stage, guard bool) (int, int) {
		s.cache(s.a, tableA)
		w := s.c.Begin()
		if guard {
			w = s.begin(tableA)
		}
		s.a++ // reader 1 asks PostgreSQL for something else and sees it
		got := s.result(s.a, tableA)
		w.Release()
		return got, s.a
	}},
	{"I2 the commit is sent when some tags are acknowledged", func(s *stage, guard bool) (int, int) {
		s.cache(s.b, tableB)
		w := s.begin(tableA)
		if guard {
			if err := w.Intend(ctx, []store.Tag{tableB}); err != nil {
				s.t.Fatal(err)
			}
		}
		s.a++
		s.b++
		got := s.result(s.b, tableB)
		w.Release()
		return got, s.b
	}},
	{"I3 a load between intent and commit", func(s *stage, guard bool) (int, int) {
		w := s.begin(tableA)
		r := s.lookup(tableA)
		old := s.a
		s.a++
		w.Release()
		if !guard { // the reader gets a stamp after all
			r = s.lookup(tableA)
		}
		r.fill(old)
		return s.result(s.a, tableA), s.a
	}},
	{"I3 the first of two writers releases", func(s *stage, guard bool) (int, int) {
		first, second := s.begin(tableA), s.begin(tableA)
		s.a++
		first.Release()
		if !guard {
			second.Release()
		}
		r := s.lookup(tableA)
		r.fill(s.a)
		s.a++
		got := s.result(s.a, tableA)
		second.Release()
		return got, s.a
	}},
	{"I4 the answer to COMMIT is lost", func(s *stage, guard bool) (int, int) {
		over := make(chan bool, 1)
		w := s.begin(tableA)
		if guard {
			w.Abandon(func(context.Context) (bool, error) {
				select {
				case <-over:
					return true, nil
				default:
					return false, nil
				}
			})
		} else {
			w.Release()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s.lookup(tableA).fill(s.a)
		s.a++ // PostgreSQL gets to it at last
		over <- true
		got := s.result(s.a, tableA)
		time.Sleep(time.Minute)
		synctest.Wait()
		if r := s.lookup(tableA); guard && r.outcome == store.Dirty {
			s.t.Error("I11: still dirty a minute after the answer")
		}
		return got, s.a
	}},
	{"I6 the same id for two writes", func(s *stage, guard bool) (int, int) {
		first := s.begin(tableA)
		second := s.c.Begin()
		if !guard {
			second.id = first.id
		}
		if err := second.Intend(ctx, []store.Tag{tableA}); err != nil {
			s.t.Fatal(err)
		}
		first.Release() // by the resolver
		s.lookup(tableA).fill(s.a)
		s.a++
		got := s.result(s.a, tableA)
		second.Release()
		return got, s.a
	}},
	{"I8 a flight joined by key", func(s *stage, guard bool) (int, int) {
		first := s.lookup(tableA)
		flight := s.a
		w := s.begin(tableA)
		s.a++
		w.Release()
		second := s.lookup(tableA)
		if !guard || slices.Equal(first.stamps, second.stamps) {
			return flight, s.a
		}
		return s.a, s.a
	}},
	{"I9 a reader that planned with an old catalog", func(s *stage, guard bool) (int, int) {
		catalog := s.lookup(schema).stamps[0]
		planned := []store.Tag{schema, tableA} // the view reads a
		ddl := s.begin(schema)
		ddl.Release() // and now b
		r := s.lookup(planned...)
		if !guard || r.stamps[0] == catalog {
			r.fill(s.b)
		}
		w := s.begin(tableB)
		s.b++
		w.Release()
		return s.result(s.b, planned...), s.b
	}},
	{"I10 a writer that planned with an old catalog", func(s *stage, guard bool) (int, int) {
		g := NewGenerations()
		leave := g.Enter()
		planned := []store.Tag{tableA}

		ddl := s.begin(schema) // a write of a cascades to b from here on
		if guard {
			g.WhenOlderLeft(g.Advance(), ddl.Release)
		} else {
			ddl.Release()
		}
		s.lookup(schema, tableB).fill(s.b)

		w := s.begin(planned...)
		s.a++
		s.b++
		w.Release()
		leave()
		if r := s.lookup(schema, tableB); guard && r.outcome == store.Dirty {
			s.t.Error("the DDL is not released when the writer has left")
		}
		return s.result(s.b, schema, tableB), s.b
	}},
	{"I10 a writer that enters after the DDL plans anew", func(s *stage, guard bool) (int, int) {
		g := NewGenerations()
		at, planned := g.Current(), []store.Tag{tableA}
		ddl := s.begin(schema)
		g.WhenOlderLeft(g.Advance(), ddl.Release)
		s.lookup(schema, tableB).fill(s.b)

		leave := g.Enter()
		if guard && g.Current() != at {
			planned = append(planned, tableB)
		}
		w := s.begin(planned...)
		s.a++
		s.b++
		w.Release()
		leave()
		return s.result(s.b, schema, tableB), s.b
	}},
	{"I27 a coarse intent is spared before the precise one is there", func(s *stage, guard bool) (int, int) {
		s.cache(s.a, tableA, rowA)
		w := s.begin(tableA)
		s.a++
		if guard {
			s.intend(w, rowA)
		}
		s.spare(w, tableA)
		got := s.result(s.a, tableA, rowA)
		w.Release()
		return got, s.a
	}},
	{"I27 one writer spares what another has changed", func(s *stage, guard bool) (int, int) {
		s.cache(s.a, tableA)
		first, second := s.begin(tableA), s.begin(tableA)
		s.a++ // by the first
		if guard {
			first.Release()
		} else {
			s.spare(first, tableA)
		}
		s.spare(second, tableA)
		return s.result(s.a, tableA), s.a
	}},
	{"I27 a reader looks at the precise tag before the coarse one is spared", func(s *stage, guard bool) (int, int) {
		flight := s.lookup(rowA, tableA)
		old := s.a
		w := s.begin(tableA)
		s.a++
		stamps := s.lookup(rowA).stamps
		s.intend(w, rowA)
		s.spare(w, tableA)
		if guard {
			stamps = s.lookup(rowA, tableA).stamps
		} else {
			stamps = append(stamps, s.lookup(tableA).stamps...)
		}
		w.Release()
		if slices.Equal(stamps, flight.stamps) { // it joins the flight
			return old, s.a
		}
		return s.a, s.a
	}},
}

func TestRaces(t *testing.T) {
	for _, race := range races {
		t.Run(race.name, func(t *testing.T) {
			for _, guard := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					s := store.NewMemory(store.Options{})
					c := New(s, Options{Local: true})
					got, want := race.play(&stage{t: t, s: s, c: c, a: 10, b: 20}, guard)
					if guard && got != want {
						t.Errorf("read %d, the database says %d", got, want)
					}
					if !guard && got == want {
						t.Error("nothing is stale without the guard: the play proves nothing")
					}
					closeNow(t, c)
				})
			}
		})
	}
}

// I5: the rollback of one writer must not bring back what another's commit has
// killed.
func TestRollbackGivesANewStamp(t *testing.T) {
	s := store.NewMemory(store.Options{})
	c := New(s, Options{Local: true})
	st := &stage{t: t, s: s, c: c, a: 10}
	seen := map[store.Stamp]bool{}
	for range 10 {
		r := st.lookup(tableA)
		if seen[r.stamps[0]] {
			t.Fatalf("stamp %x twice", r.stamps[0])
		}
		seen[r.stamps[0]] = true
		r.fill(st.a)
		rolledBack, committed := st.begin(tableA), st.begin(tableA)
		st.a++
		committed.Release()
		rolledBack.Release()
		if got := st.result(st.a, tableA); got != st.a {
			t.Errorf("read %d, the database says %d", got, st.a)
		}
	}
}

// I7: the stamp of a reader that sleeps is evicted, and a write goes by.
func TestEvictedStampIsNotRestored(t *testing.T) {
	s := store.NewMemory(store.Options{Bytes: 20_000})
	c := New(s, Options{Local: true})
	st := &stage{t: t, s: s, c: c, a: 10}
	r := st.lookup(tableA)
	old := st.a
	for i := range 1000 {
		st.lookup(tag(100 + i))
	}
	w := st.begin(tableA)
	st.a++
	w.Release()
	for i := range 1000 {
		st.lookup(tag(100 + i))
	}
	r.fill(old)
	if got := st.result(st.a, tableA); got != st.a {
		t.Errorf("read %d, the database says %d", got, st.a)
	}

	w = st.begin(tableA)
	for i := range 1000 {
		st.lookup(tag(100 + i))
	}
	if r := st.lookup(tableA); r.outcome != store.Dirty {
		t.Errorf("an intent was evicted: %v", r.outcome)
	}
	w.Release()
}

// Every invariant of the package comment is cited by a test of this package or
// of the stores, and no test cites one that does not exist.
func TestInvariantsAreCited(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	stated := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(I\d+) `).FindAllSubmatch(doc, -1) {
		stated[string(m[1])] = false
	}
	if len(stated) < 11 {
		t.Errorf("found only %d invariants", len(stated))
	}
	cited := regexp.MustCompile(`\bI\d+\b`)
	for _, pattern := range []string{"*_test.go", "../store/*_test.go", "../store/storetest/*.go", "../store/redis/*_test.go", "../*_test.go", "../internal/*/*_test.go", "../test/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range cited.FindAllString(string(text), -1) {
				if _, ok := stated[name]; !ok {
					t.Errorf("%s cites %s, which doc.go does not state", file, name)
				}
				stated[name] = true
			}
		}
	}
	for name, ok := range stated {
		if !ok {
			t.Errorf("no test cites %s", name)
		}
	}
}

func BenchmarkIntendMany(b *testing.B) {
	s := store.NewMemory(store.Options{})
	c := New(s, Options{Local: true})
	many := make([]store.Tag, 1000)
	for i := range many {
		many[i] = store.Tag{Relation: 1, Kind: store.TagRow, Value: binary.BigEndian.Uint64([]byte{byte(i), byte(i >> 8), 1, 2, 3, 4, 5, 6})}
	}
	for b.Loop() {
		w := c.Begin()
		if err := w.Intend(ctx, many); err != nil {
			b.Fatal(err)
		}
		w.Release()
	}
}
