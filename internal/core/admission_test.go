package core

import (
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// imagined is a text, its tables and a cache that loses what it is told to.
type imagined struct {
	admission
	tables []*account
	stored map[store.Key]bool
	took   time.Duration // of a SELECT; the measured cost of a miss is that of lookup
	lookup time.Duration

	lookups, hits, fills int
}

func imagine(tables ...*account) *imagined {
	return &imagined{tables: tables, stored: make(map[store.Key]bool), took: time.Millisecond, lookup: time.Millisecond}
}

// keyOf is the digest of a number.
func keyOf(n int) store.Key { return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n))) }

// read is what Conn.query does.
func (m *imagined) read(key store.Key) {
	if !m.admits(key) {
		return
	}
	m.lookups++
	if m.stored[key] {
		m.hits++
		if !m.even(m.tables) {
			m.hit(m.tables, m.took)
		}
		return
	}
	m.fills++
	m.fill(m.tables, m.lookup)
	m.stored[key] = true
}

// What never gains costs as many fills as an account has, and then samples.
func TestATextThatGainsNothingIsNotLookedUp(t *testing.T) {
	m := imagine(&account{})
	for i := range accountLimit {
		m.read(keyOf(i))
	}
	if m.fills != accountLimit || !m.out.Load() {
		t.Fatalf("%d fills, out %v", m.fills, m.out.Load())
	}
	const more = 100 * sampledEvery
	for i := range more {
		m.read(keyOf(accountLimit + i))
	}
	samples := more*sampledRun/sampledEvery + more*sampledKeys/256
	if got := m.fills - accountLimit; got == 0 || got > samples+samples/8 {
		t.Errorf("%d samples of %d lookups, want about %d", got, more, samples)
	}
}

// Samples show that it would gain: by a run for a text that has one key, by their keys for
// one that has many.
func TestATextComesBackWhenItsKeysDo(t *testing.T) {
	for _, keys := range []int{1, 10, 1000, 20000} {
		t.Run(fmt.Sprint(keys), func(t *testing.T) {
			m := imagine(&account{})
			for i := range accountLimit {
				m.read(keyOf(1_000_000 + i))
			}
			reads := 0
			for ; m.out.Load(); reads++ {
				if reads > 2*keys+16*sampledEvery {
					t.Fatalf("after %d reads it is still out", reads)
				}
				m.read(keyOf(reads % keys))
			}
			for i := range 4 * keys { // in turns, which is the slowest way to fill a cache
				m.read(keyOf(i % keys))
			}
			hits := m.hits
			for i := range keys {
				m.read(keyOf(i))
			}
			if m.hits-hits < keys*99/100 {
				t.Errorf("back after %d reads, but %d hits of %d", reads, m.hits-hits, keys)
			}
		})
	}
}

// One hit for four fills is enough, whatever the times; one for a hundred is where
// a SELECT takes as long as that many fills.
func TestATextThatGainsStays(t *testing.T) {
	for _, tc := range []struct {
		misses int // for each hit
		took   time.Duration
		stays  bool
	}{
		{4, 0, true},
		{6, 0, false},
		{100, 150 * time.Millisecond, true},
		{100, 10 * time.Millisecond, false},
	} {
		t.Run(fmt.Sprint(tc), func(t *testing.T) {
			m := imagine(&account{})
			m.took = tc.took
			for i := range 100 {
				for j := range tc.misses {
					m.read(keyOf(i*tc.misses + j))
				}
				if !m.out.Load() {
					m.read(keyOf(i * tc.misses))
				}
			}
			if stays := !m.out.Load(); stays != tc.stays {
				t.Errorf("stays %v, want %v", stays, tc.stays)
			}
		})
	}
}

// A cold cache of many keys is filled before it gains anything.
func TestAColdCacheIsFilled(t *testing.T) {
	const keys = 2000
	m := imagine(&account{})
	for i := range 40 * keys {
		m.read(keyOf(i * 7919 % 104729 % keys))
	}
	hits := m.hits
	for i := range keys {
		m.read(keyOf(i))
	}
	if m.hits-hits < keys*9/10 {
		t.Errorf("%d hits of %d", m.hits-hits, keys)
	}
}

// An application may have a text for each length of a list: its other texts
// find out sooner. A text that has earned its hits stays.
func TestTheTextsOfATableThatGainsNothingFindOutSooner(t *testing.T) {
	table := &account{}
	good := imagine(table, &account{})
	good.read(keyOf(0))
	first := imagine(table)
	for i := range accountLimit {
		first.read(keyOf(i))
	}
	other := imagine(&account{}, table)
	for i := range accountLimit {
		other.read(keyOf(1 + i))
	}
	if other.out.Load() != true || other.fills >= 2*leash {
		t.Errorf("out %v after %d fills, want %d", other.out.Load(), other.fills, leash)
	}
	for range 100 {
		good.read(keyOf(0))
	}
	if good.hits != 100 {
		t.Errorf("%d hits of 100", good.hits)
	}
}

func TestAdmissionAllocatesNothing(t *testing.T) {
	m := imagine(&account{})
	key := keyOf(1)
	if n := testing.AllocsPerRun(1000, func() {
		m.admits(key)
		m.fill(m.tables, m.lookup)
		m.hit(m.tables, m.took)
		m.even(m.tables)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// gainless runs a story with each store, once the cache is warm.
func gainless(t *testing.T, story func(f *harness.Fixture)) {
	t.Helper()
	harness.InBothStores(t, func(t *testing.T, keys ...string) {
		f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People, keys...)
		harness.AwaitCaching(t, f.DB)
		story(f)
	})
}

// one reads one value.
func one(v harness.Via, query string, args ...any) (got string) {
	v.F.Helper()
	if err := v.Ask.(*sql.DB).QueryRowContext(v.F.Ctx, query, args...).Scan(&got); err != nil {
		v.F.Fatal(err)
	}
	return got
}

func statement(v harness.Via, part string) (found StatementStats) {
	for _, st := range statsOf(v.DB).Statements {
		if strings.Contains(st.Text, part) {
			found = st
		}
	}
	return found
}

// The time of now as an argument is never the same again.
func TestArgumentsThatNeverComeAgainAreNotStored(t *testing.T) {
	gainless(t, func(f *harness.Fixture) {
		const query, reads = "SELECT name FROM users WHERE id = 1 AND $1::timestamptz > '2020-01-01'", 1000
		now := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
		before := statsOf(f.DB)
		for range reads {
			now = now.Add(time.Microsecond)
			if got := one(f.Via, query, now); got != "ann" {
				f.Fatalf("got %q", got)
			}
		}
		s := statsOf(f.DB)
		skipped := s.Bypasses[keying.NoGain.String()]
		if fills := s.Fills - before.Fills; fills > accountLimit+reads/8 || skipped < reads/2 {
			f.Errorf("%d of %d were stored, and %d not looked up", fills, reads, skipped)
		}
		if st := statement(f.Via, "timestamptz"); !st.NoGain || st.Reason != "" {
			f.Errorf("Stats say %+v", st)
		}
		if x := explain(f.Via, query, now); !x.Cacheable || !strings.Contains(strings.Join(x.Notes, " "), "(no-gain)") {
			f.Errorf("explained as\n%+v", x)
		}
		for range 8 * sampledEvery { // from now on it stands still
			one(f.Via, query, now)
		}
		f.Hit(query, now)
		if st := statement(f.Via, "timestamptz"); st.NoGain {
			f.Errorf("Stats say %+v", st)
		}
		if x := explain(f.Via, query, now); strings.Contains(strings.Join(x.Notes, " "), "no-gain") {
			f.Errorf("explained as\n%+v", x)
		}
	})
}

func TestWithAdmissionOfAllWhatNeverComesAgainIsStored(t *testing.T) {
	gainless(t, func(f *harness.Fixture) {
		all := f.With("cache_admission=all")
		harness.AwaitCaching(t, all.DB)
		const reads = 2 * accountLimit
		for i := range reads {
			one(all, "SELECT name FROM users WHERE id = 1 AND $1::int > 0", 1+i)
		}
		if s := statsOf(all.DB); s.Bypasses[keying.NoGain.String()] != 0 || s.Fills <= accountLimit {
			f.Errorf("%d fills of %d reads, bypassed %v", s.Fills, reads, s.Bypasses)
		}
	})
}

// A row that is changed each time before it is read again gains nothing. What is
// read is right all the same, and once it is no longer changed it is cached again.
func TestARowThatIsChangedBeforeItIsReadAgainIsNotLookedUp(t *testing.T) {
	gainless(t, func(f *harness.Fixture) {
		const query, turns = "SELECT city FROM users WHERE id = $1", 400
		before := statsOf(f.DB).Fills
		for i := range turns {
			city := fmt.Sprint("city ", i)
			f.Exec("UPDATE users SET city = $2 WHERE id = $1", 1, city)
			f.Released()
			if got := one(f.Via, query, 1); got != city {
				f.Fatalf("got %q, want %q", got, city)
			}
		}
		s := statsOf(f.DB)
		if fills := s.Fills - before; fills > accountLimit+turns/8 || s.Bypasses[keying.NoGain.String()] < turns/4 {
			f.Errorf("%d fills, bypassed %v", fills, s.Bypasses)
		}
		for range 8 * sampledEvery {
			one(f.Via, query, 1)
		}
		f.Hit(query, 1)
	})
}
