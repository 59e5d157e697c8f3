package planning

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

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
	if !m.Admits(key) {
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
	m.Fill(m.tables, m.lookup)
	m.stored[key] = true
}

// What never gains costs as many fills as an account has, and then samples.
func TestATextThatGainsNothingIsNotLookedUp(t *testing.T) {
	m := imagine(&account{})
	for i := range AccountLimit {
		m.read(keyOf(i))
	}
	if m.fills != AccountLimit || !m.Out.Load() {
		t.Fatalf("%d fills, out %v", m.fills, m.Out.Load())
	}
	const more = 100 * SampledEvery
	for i := range more {
		m.read(keyOf(AccountLimit + i))
	}
	samples := more*sampledRun/SampledEvery + more*sampledKeys/256
	if got := m.fills - AccountLimit; got == 0 || got > samples+samples/8 {
		t.Errorf("%d samples of %d lookups, want about %d", got, more, samples)
	}
}

// Samples show that it would gain: by a run for a text that has one key, by their keys for
// one that has many.
func TestATextComesBackWhenItsKeysDo(t *testing.T) {
	for _, keys := range []int{1, 10, 1000, 20000} {
		t.Run(fmt.Sprint(keys), func(t *testing.T) {
			m := imagine(&account{})
			for i := range AccountLimit {
				m.read(keyOf(1_000_000 + i))
			}
			reads := 0
			for ; m.Out.Load(); reads++ {
				if reads > 2*keys+16*SampledEvery {
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
				if !m.Out.Load() {
					m.read(keyOf(i * tc.misses))
				}
			}
			if stays := !m.Out.Load(); stays != tc.stays {
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
	for i := range AccountLimit {
		first.read(keyOf(i))
	}
	other := imagine(&account{}, table)
	for i := range AccountLimit {
		other.read(keyOf(1 + i))
	}
	if other.Out.Load() != true || other.fills >= 2*leash {
		t.Errorf("out %v after %d fills, want %d", other.Out.Load(), other.fills, leash)
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
		m.Admits(key)
		m.Fill(m.tables, m.lookup)
		m.hit(m.tables, m.took)
		m.even(m.tables)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
