package judge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/sqlgen"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

var (
	differentialDuration = flag.Duration("differential.duration", 15*time.Second, "how long TestRandomSessions… runs")
	differentialSeed     = flag.Uint64("differential.seed", 0, "seed of the first schema of TestRandomSessions…; 0 takes one from the clock")
)

const (
	writingSessions = 4
	readers         = 2
)

// Several sessions write at random while others read through the cache and
// directly. The cache answers at one moment and PostgreSQL at another; two
// checks make a comparison exact all the same.
//
// A reader takes PostgreSQL's snapshot before and after it asks both. If it is
// the same, nothing was committed in between: every moment has the same answer
// then, and both must give it. Transactions that are under way all the while do
// not matter, so this sees what is read between a write and its COMMIT, between
// COMMIT and release, and fills that race with either.
//
// Now and then the writers hold still between two transactions, and everything
// that was ever cached is compared. This sees what a commit has forgotten, for
// as long as no other commit happens to invalidate it.
//
// Inside a transaction of its own a session compares in the first way, with a
// SELECT on the same connection that the cache is kept out of.
func TestRandomSessionsReadWhatPostgreSQLGives(t *testing.T) {
	t.Parallel()
	seed := *differentialSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	var total score
	dsn := worldDatabase(t)
	for end := time.Now().Add(*differentialDuration); time.Now().Before(end) || total.worlds < 2; seed++ {
		h := newRecording(dsn, seed, seed%2 == 1)
		w := h.world(t, h.ddl, true)
		until := time.Now().Add(2 * time.Second)
		err := h.play(w, func() bool { return time.Now().After(until) }, &total)
		total.worlds++
		total.add(w)
		w.close()
		if err != nil {
			t.Fatal(h.report(t, err, fmt.Sprintf("go test -run '^%s$' -differential.seed=%d ./test/judge", t.Name(), seed)))
		}
	}
	t.Log(&total)
}

// play lets all sessions work until it is enough.
func (h *recording) play(w *world, enough func() bool, total *score) error {
	ctx := context.Background()
	g := sqlgen.New(h.seed + 1)
	queries := make([]sqlgen.Statement, 30)
	for i := range queries {
		queries[i] = h.schema.Query(g)
	}
	var (
		calm  sync.RWMutex // held for reading by each unit of a writer
		wg    sync.WaitGroup
		first firstError
		mu    sync.Mutex // guards total
	)
	working := func() bool { return !enough() && first.get() == nil }
	for i := range writingSessions {
		p, err := w.actor(ctx, i)
		if err != nil {
			return err
		}
		p.after = h.sabotage
		wg.Go(func() {
			defer p.close()
			g := sqlgen.New(h.seed + 100 + uint64(i))
			var own score
			for working() {
				calm.RLock()
				first.set(h.unit(ctx, p, g, queries, &own))
				calm.RUnlock()
			}
			mu.Lock()
			defer mu.Unlock()
			total.sum(&own)
		})
	}
	for i := range readers {
		wg.Go(func() {
			g := sqlgen.New(h.seed + 200 + uint64(i))
			var own score
			for working() {
				conclusive, err := w.window(ctx, queries[g.Below(len(queries))], i)
				first.set(err)
				if conclusive {
					own.compared++
				} else {
					own.inconclusive++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total.sum(&own)
		})
	}
	compareAll := func() {
		calm.Lock()
		defer calm.Unlock()
		w.released(ctx)
		for _, q := range queries {
			if first.get() == nil {
				first.set(w.compare(ctx, q, "while nobody writes"))
			}
		}
	}
	for working() {
		began := time.Now()
		compareAll()
		select { // then let them write for a while
		case <-ctx.Done():
		case <-time.After(max(50*time.Millisecond, 2*time.Since(began))):
		}
	}
	wg.Wait()
	compareAll()
	mu.Lock()
	defer mu.Unlock()
	total.compared += len(queries)
	return first.get()
}

// window asks a SELECT of a cache and of PostgreSQL, and reports whether
// nothing was committed meanwhile, so that the answers can be compared.
func (w *world) window(ctx context.Context, q sqlgen.Statement, reader int) (conclusive bool, err error) {
	before, err := snapshotOf(ctx, w.plain)
	if err != nil {
		return false, nil
	}
	got, want := answered(ctx, w.cached[reader%len(w.cached)], q), answered(ctx, w.plain, q)
	w.windows.Add(1)
	after, err := snapshotOf(ctx, w.plain)
	if err != nil || !before.same(after) || got.excused() || want.excused() || ctx.Err() != nil {
		return false, nil
	}
	if !got.same(want) {
		return true, &disagreement{query: q, where: "while others write", got: got, want: want}
	}
	return true, nil
}

// blind makes the driver mark nothing before a commit, which then only
// invalidates after it, as if over a slow network.
func (w *world) blind() {
	db := w.cached[0]
	marksNothing := unmarked{inside.Store(db).(*store.Memory), &w.windows}
	inside.SetStore(db, marksNothing)
	_ = inside.Writes(db).Close()
	inside.SetWrites(db, invalidation.New(marksNothing, invalidation.Options{Local: true}))
}

type unmarked struct {
	*store.Memory
	windows *atomic.Int64
}

func (unmarked) Intend(context.Context, store.WriterID, []store.Tag) error { return nil }

// Release lets readers compare a few times first, while there are any.
func (u unmarked) Release(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	enough := u.windows.Load() + 2*readers
	for wait := 0; wait < 20 && u.windows.Load() < enough; wait++ {
		time.Sleep(time.Millisecond)
	}
	return u.Memory.Release(ctx, w, tags)
}

// The harness finds what it is for. Each driver is broken in one place, and the
// difference is told in a handful of statements.
func TestADifferenceIsFoundAndShrunk(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		breaks func(*recording)
		most   int // moves that are left; 0: fewer than half, because which depends on who was faster
	}{
		{"a commit forgets what its last statement does not name", func(h *recording) { h.sabotage = forgetOthers }, 8},
		{"nothing is marked before the commit", func(h *recording) { h.blind = true }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dsn := worldDatabase(t)
			var h *recording
			var s shrunk
			for seed := uint64(1); !s.repeated; seed++ {
				if seed > 20 {
					t.Fatal("a broken driver is not found, or what it does is not repeated")
				}
				h = newRecording(dsn, seed, false)
				tc.breaks(h)
				w := h.world(t, h.ddl, true)
				var found *disagreement
				if err := h.play(w, func() bool { return h.count() >= 200 }, new(score)); err != nil && !errors.As(err, &found) {
					t.Fatal(err)
				}
				w.close()
				if found != nil {
					s = h.shrink(t, found, 500) // it ends when nothing more can go
				}
			}
			t.Logf("seed %d, %d of %d moves, %d of %d DDL, after %d trials, %s\n%s%v",
				h.seed, len(s.moves), len(h.moves), len(s.ddl), len(h.ddl), s.trials, s.how, s.script(), s.err)
			most := tc.most
			if most == 0 {
				most = len(h.moves) / 2
			}
			if len(s.moves) > most {
				t.Errorf("got %d moves, want at most %d", len(s.moves), most)
			}
		})
	}
}

// forgetOthers makes an open transaction forget the tags of tables that no
// statement of it names.
func forgetOthers(p *actor, s sqlgen.Statement) {
	_ = p.conn.Raw(func(c any) error {
		_, tags, snapshot := inside.Transaction(c)
		if snapshot == nil {
			return nil
		}
		var kept store.TagSet
		for _, tag := range tags.Tags() {
			if rel := snapshot.ByOID(tag.Relation); rel == nil || strings.Contains(s.SQL, rel.Name) {
				kept.Add(tag)
			}
		}
		*tags = kept
		return nil
	})
}
