package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cachedpg/cachedpg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// simple is the shortest store that keeps the contract, and can be told to
// break it.
type simple struct {
	bug string

	mu      sync.Mutex
	entries map[store.Key]filled
	stamps  map[store.Tag]store.Stamp
	old     map[store.Tag]store.Stamp
	kept    map[store.Tag]store.Stamp // from before the first of the intents
	intents map[store.Tag][]store.WriterID
	writes  int
}

type filled struct {
	entry   *store.Entry
	tags    []store.Tag
	stamps  []store.Stamp
	expires time.Time
}

func newSimple(bug string) *simple {
	return &simple{
		bug:     bug,
		entries: map[store.Key]filled{},
		stamps:  map[store.Tag]store.Stamp{},
		old:     map[store.Tag]store.Stamp{},
		kept:    map[store.Tag]store.Stamp{},
		intents: map[store.Tag][]store.WriterID{},
	}
}

func (s *simple) is(bug string) bool { return s.bug == bug }

func (s *simple) Lookup(_ context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp) (*store.Entry, store.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	outcome := store.Miss
	if f, ok := s.entries[key]; ok && (f.expires.IsZero() || time.Now().Before(f.expires) || s.is("entries live for ever")) {
		outcome = store.Hit
		for i, t := range f.tags {
			moved := s.stamps[t] != f.stamps[i]
			if s.is("only the first tag counts") && i > 0 {
				moved = false
			}
			if s.is("an unknown stamp is a valid one") && s.stamps[t] == 0 && len(s.intents[t]) == 0 {
				moved = false
			}
			if s.is("a dirty tag is a hit") && len(s.intents[t]) > 0 {
				moved = false
			}
			if moved {
				outcome = store.Stale
			}
		}
		if s.is("a hit needs all tags clean") {
			for _, t := range tags {
				if len(s.intents[t]) > 0 {
					outcome = store.Dirty
				}
			}
		}
		if outcome == store.Hit {
			return f.entry, outcome, nil
		}
	}
	for i, t := range tags {
		stamps[i] = 0
		if len(s.intents[t]) > 0 {
			outcome = store.Dirty
			if s.is("a dirty tag has a stamp") {
				stamps[i] = 99
			}
			if !s.is("a dirty tag is minted") {
				continue
			}
		}
		if s.stamps[t] == 0 {
			s.stamps[t] = store.Stamp(rand.Uint64())
			if s.is("stamps are few") {
				s.stamps[t] = store.Stamp(1 + rand.Uint64N(200))
			}
			if old := s.old[t]; old != 0 && s.is("the old stamp returns") {
				s.stamps[t] = old
			}
		}
		stamps[i] = s.stamps[t]
	}
	return nil, outcome, nil
}

func (s *simple) Fill(_ context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, e *store.Entry, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := filled{entry: e, tags: slices.Clone(tags), stamps: slices.Clone(stamps)}
	if s.is("a fill keeps the caller's slices") {
		f.tags, f.stamps = tags, stamps
	}
	if ttl != 0 {
		f.expires = time.Now().Add(ttl)
	}
	for i, t := range tags {
		if stamps[i] == 0 { // would be equal to no stamp at all
			return nil
		}
		if s.is("a fill restores stamps") && s.stamps[t] == 0 && len(s.intents[t]) == 0 {
			s.stamps[t] = stamps[i]
		}
		if s.is("a fill is always a hit") {
			f.stamps[i] = s.stamps[t]
		}
	}
	if _, ok := s.entries[key]; ok && s.is("the first fill wins") && f.valid(s) {
		return nil
	}
	s.entries[key] = f
	return nil
}

func (f filled) valid(s *simple) bool {
	for i, t := range f.tags {
		if s.stamps[t] != f.stamps[i] {
			return false
		}
	}
	return true
}

func (s *simple) Intend(_ context.Context, w store.WriterID, tags []store.Tag) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.is("intents are not kept") {
		return nil
	}
	for i, t := range tags {
		if s.is("some intents are lost") && i > 0 {
			break
		}
		s.old[t] = s.stamps[t]
		if len(s.intents[t]) == 0 {
			s.kept[t] = s.stamps[t]
		}
		delete(s.stamps, t)
		if !slices.Contains(s.intents[t], w) || s.is("intents are counted") {
			s.intents[t] = append(s.intents[t], w)
		}
		if s.is("one writer at a time") {
			s.intents[t] = []store.WriterID{w}
		}
	}
	if s.writes++; s.is("intents are evicted") && s.writes%4 == 0 {
		clear(s.intents)
	}
	return nil
}

func (s *simple) Release(_ context.Context, w store.WriterID, tags []store.Tag) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tags {
		if i := slices.Index(s.intents[t], w); i >= 0 {
			s.intents[t] = slices.Delete(s.intents[t], i, i+1)
		} else if s.is("a stranger's release does nothing") {
			continue
		}
		if s.is("a release frees everybody") {
			delete(s.intents, t)
		}
		delete(s.stamps, t)
		if !s.is("a spare gives back what was released") {
			delete(s.kept, t)
		}
	}
	return nil
}

func (s *simple) Spare(_ context.Context, w store.WriterID, tags []store.Tag) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tags {
		i := slices.Index(s.intents[t], w)
		switch {
		case s.is("a spare frees everybody") && len(s.intents[t]) > 0:
			s.intents[t] = nil
		case i < 0:
			continue
		default:
			s.intents[t] = slices.Delete(s.intents[t], i, i+1)
		}
		if len(s.intents[t]) == 0 && s.kept[t] != 0 {
			s.stamps[t] = s.kept[t]
		}
	}
	return nil
}

func (s *simple) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.is("entries outlive Close") {
		clear(s.entries)
	}
	return nil
}

func TestSimpleStore(t *testing.T) {
	Run(t, func(*testing.T) store.Store { return newSimple("") })
}

// watcher is a failer that only remembers.
type watcher struct {
	mu       sync.Mutex
	failures []string
}

func (w *watcher) Helper() {}

func (w *watcher) Errorf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}

func (w *watcher) Fatalf(format string, args ...any) {
	w.Errorf(format, args...)
	runtime.Goexit()
}

// Each bug of a store is seen by the check that is there for it, and those that
// make a stale read possible are seen by the interleavings too.
func TestChecksSeeEveryBug(t *testing.T) {
	bugs := []struct {
		bug   string
		check string // that must fail
		stale bool   // the interleavings must find it too
	}{
		{"intents are not kept", "a dirty tag is neither", true},
		{"some intents are lost", "an intent covers all", true},
		{"a dirty tag is a hit", "an entry is stale after", true},
		{"a dirty tag is minted", "a dirty tag is neither", true},
		{"a dirty tag has a stamp", "a dirty tag is neither", false},
		{"a hit needs all tags clean", "a hit needs only", false},
		{"only the first tag counts", "an entry is stale when any", true},
		{"an unknown stamp is a valid one", "a fill with stamps that never were", true},
		{"the old stamp returns", "an entry is stale after", true},
		{"stamps are few", "no stamp is given twice", false},
		{"a fill restores stamps", "a fill whose stamps moved", true},
		{"a fill is always a hit", "a fill whose stamps moved", true},
		{"a fill keeps the caller's slices", "the caller keeps", false},
		{"the first fill wins", "a fill replaces", false},
		{"one writer at a time", "a dirty tag is dirty until", true},
		{"intents are counted", "a writer that intends twice", false},
		{"intents are evicted", "a dirty tag is never evicted", true},
		{"a stranger's release does nothing", "a release by a stranger", false},
		{"a release frees everybody", "a dirty tag is dirty until", true},
		{"a spare gives back what was released", "a tag that a writer released", true},
		{"a spare frees everybody", "a writer spares its own", true},
		{"entries live for ever", "an entry expires", false},
		{"entries outlive Close", "nothing is a hit after", false},
	}
	for _, b := range bugs {
		t.Run(b.bug, func(t *testing.T) {
			t.Parallel()
			var w watcher
			for _, c := range checks {
				if strings.HasPrefix(c.name, b.check) {
					done := make(chan struct{})
					go func() {
						defer close(done)
						c.run(&w, newSimple(b.bug))
					}()
					<-done
				}
			}
			if len(w.failures) == 0 {
				t.Errorf("the check %q does not see it", b.check)
			}
			if b.stale {
				mustFind(t, func() store.Store { return newSimple(b.bug) }, protocol{})
			}
		})
	}
}

// mustFind fails the test unless the interleavings find a stale read soon.
func mustFind(t *testing.T, open func() store.Store, p protocol) {
	t.Helper()
	for seed := uint64(1); seed <= 3000; seed++ {
		s := open()
		report := interleave(s, p, seed)
		s.Close()
		if report != "" {
			t.Logf("seed %d: %s", seed, report)
			return
		}
	}
	t.Error("3000 interleavings do not find it")
}

// Each rule of the protocol is needed: without it a stale read is found.
func TestInterleavingsSeeEveryBrokenRule(t *testing.T) {
	rules := []struct {
		name string
		protocol
	}{
		{"I1 stamps after the rows", protocol{stampsAfterRows: true}},
		{"I2 no intents", protocol{noIntents: true}},
		{"I2 intents on some tags", protocol{intendsSome: true}},
		{"I4 released before COMMIT", protocol{releasesEarly: true}},
		{"I4 released with the outcome unknown", protocol{releasesUnknown: true}},
		{"I6 one id for several writes", protocol{reusesIDs: true}},
		{"I8 flights by key", protocol{joinsByKey: true}},
		{"I27 spared before the precise intent", protocol{sparesFirst: true}},
		{"I27 spared although it was changed", protocol{sparesAnything: true}},
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			mustFind(t, func() store.Store { return store.NewMemory(store.Options{}) }, r.protocol)
		})
	}
}

// The stress under real concurrency sees the plain ones as well.
func TestConcurrencySeesBrokenRules(t *testing.T) {
	for name, p := range map[string]protocol{
		"stamps after the rows": {stampsAfterRows: true},
		"no intents":            {noIntents: true},
		"released too early":    {releasesEarly: true},
	} {
		t.Run(name, func(t *testing.T) {
			if race(store.NewMemory(store.Options{}), p, 20*time.Second) == "" {
				t.Error("not found in 20s")
			}
		})
	}
}

// A run that never gets to a hit, a shared flight or a fill beside a dirty tag
// proves nothing.
func TestInterleavingsCoverThePaths(t *testing.T) {
	var all strings.Builder
	for seed := uint64(1); seed <= 200; seed++ {
		w, report := run(store.NewMemory(store.Options{}), protocol{}, seed)
		if report != "" {
			t.Fatal(report)
		}
		all.WriteString(w.trace.String())
	}
	for _, step := range []string{": hit", ": stale", ": miss", ": dirty", "joins a flight", "rolls back", "loses the connection", "server    commits", "server    aborts", "server    has released", "spares 1 tags", "spares 2 tags"} {
		if n := strings.Count(all.String(), step); n < 20 {
			t.Errorf("%d times %q", n, step)
		}
	}
}
