package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/cachedpg/cachedpg/store"
)

// protocol says what the readers and writers of a run do wrong on purpose. The
// zero value is the protocol of package invalidation.
type protocol struct {
	stampsAfterRows bool // breaks I1
	noIntents       bool // breaks I2: commit, then invalidate
	intendsSome     bool // breaks I2: COMMIT is sent when the first tag has its intent
	releasesEarly   bool // breaks I4: before COMMIT
	releasesUnknown bool // breaks I4: though the outcome of COMMIT is not known
	reusesIDs       bool // breaks I6
	joinsByKey      bool // breaks I8
	sparesFirst     bool // breaks I27: the precise tag is not marked yet
	sparesAnything  bool // breaks I27: also what it has changed
}

const (
	rowCount  = 3
	scanQuery = rowCount // the query that reads all rows; query i reads row i
)

// actor is a reader, a writer or the server. It calls pause between any two
// steps that others may come in between.
type actor func(w *world, name string, rng *rand.Rand, pause func())

// reader is the life of a read, over and over.
func reader(reads int) actor {
	return func(w *world, name string, rng *rand.Rand, pause func()) {
		for range reads {
			query := rng.IntN(rowCount + 1)
			before := w.isTold()
			pause()
			result, ok := w.read(name, query, pause)
			if !ok || w.failed() {
				return
			}
			w.tell(name, query, result, before)
			pause()
		}
	}
}

func (w *world) read(name string, query int, pause func()) ([]version, bool) {
	key := w.key(query)
	tags, always := w.tagsOf(query)
	stamps := make([]store.Stamp, len(tags))
	e, outcome, err := w.s.Lookup(background, key, tags, stamps)
	if err != nil {
		w.fail("%s: Lookup: %v", name, err)
		return nil, false
	}
	w.trace.add(name, "lookup of query %d: %v %x", query, outcome, slices.Clone(stamps))
	if outcome == store.Hit {
		result, err := valuesOf(e)
		if err != nil {
			w.fail("%s: query %d: %v", name, query, err)
		}
		return result, err == nil
	}
	pause()

	// A flight is joined by key and stamps (I8), and a bypass joins none.
	flown := fmt.Sprint(query, stamps)
	if w.joinsByKey {
		flown = fmt.Sprint(query)
	}
	mine := &flight{}
	if outcome != store.Dirty {
		w.mu.Lock()
		other := w.flights[flown]
		if other == nil {
			w.flights[flown] = mine
		}
		w.mu.Unlock()
		if other != nil {
			w.trace.add(name, "joins a flight")
			for {
				w.mu.Lock()
				result, done := other.result, other.done
				w.mu.Unlock()
				if done || w.failed() {
					return result, done
				}
				pause()
			}
		}
	}

	result := w.selectRows(query)
	w.trace.add(name, "selects %v", result)
	pause()
	if w.stampsAfterRows {
		if _, _, err := w.s.Lookup(background, key, tags, stamps); err != nil {
			w.fail("%s: Lookup: %v", name, err)
		}
		pause()
	}
	clean := true
	for _, stamp := range stamps[:always] {
		clean = clean && stamp != 0
	}
	if clean { // only tags that do not matter for this result are dirty, if any
		w.trace.add(name, "fills %v with %x", result, slices.Clone(stamps[:always]))
		if err := w.s.Fill(background, key, tags[:always], stamps[:always], entryOf(result...), 0); err != nil {
			w.fail("%s: Fill: %v", name, err)
		}
		pause()
	}
	if outcome != store.Dirty {
		w.mu.Lock()
		mine.result, mine.done = result, true
		delete(w.flights, flown)
		w.mu.Unlock()
	}
	return result, true
}

// writer is the life of a write, over and over.
func writer(writes int) actor {
	return func(w *world, name string, rng *rand.Rand, pause func()) {
		id := newWriter()
		for range writes {
			if w.failed() {
				return
			}
			if !w.reusesIDs {
				id = newWriter()
			}
			w.write(name, id, rng, pause)
			pause()
		}
	}
}

func (w *world) write(name string, id store.WriterID, rng *rand.Rand, pause func()) {
	row := rng.IntN(rowCount)
	x := &transaction{w: id, rows: []int{row}, tags: []store.Tag{w.row(row), w.table()}}
	if rng.IntN(3) == 0 { // WHERE without a key
		x.rows = []int{0, 1, 2}
		x.tags = []store.Tag{w.names.rows(), w.table()}
	}
	sparing, _ := w.s.(store.Sparing)
	coarse := sparing != nil && len(x.rows) == 1 && rng.IntN(2) == 0
	if coarse { // which row it will be is not known
		x.tags = []store.Tag{w.names.rows(), w.table()}
	}
	if !coarse && !w.sparesAnything {
		sparing = nil
	}
	w.trace.add(name, "begins a write of rows %v as %x", x.rows, id[:2])

	// The tags may come one at a time, in any order.
	rng.Shuffle(len(x.tags), func(i, j int) { x.tags[i], x.tags[j] = x.tags[j], x.tags[i] })
	if !w.noIntents {
		batches := [][]store.Tag{x.tags}
		if rng.IntN(2) == 0 {
			batches = [][]store.Tag{x.tags[:1], x.tags[1:]}
		}
		if w.intendsSome {
			batches = [][]store.Tag{x.tags[:1]}
		}
		for _, tags := range batches {
			if err := w.s.Intend(background, id, tags); err != nil {
				w.fail("%s: Intend: %v", name, err)
				return
			}
			w.trace.add(name, "has intended")
			pause()
		}
	}
	if w.releasesEarly {
		w.release(name, x)
		pause()
	}

	switch rng.IntN(6) {
	case 0:
		w.trace.add(name, "rolls back")
		if sparing != nil {
			w.spare(name, sparing, x, x.tags...)
		}
	case 1, 2:
		w.trace.add(name, "sends COMMIT and loses the connection")
		w.mu.Lock()
		w.inDoubt = append(w.inDoubt, x)
		if !w.releasesUnknown {
			w.unresolved = append(w.unresolved, x)
		}
		w.mu.Unlock()
		if w.releasesUnknown {
			pause()
			w.release(name, x)
		}
		return
	default:
		v := w.commit(x.rows)
		w.trace.add(name, "commits version %d", v)
		pause() // visible, and the writer has not heard of it
		w.mu.Lock()
		for _, r := range x.rows {
			w.told[r] = max(w.told[r], v)
		}
		w.mu.Unlock()
		w.trace.add(name, "is told of its commit")
		pause()
		if sparing != nil {
			w.narrow(name, sparing, x, pause)
		}
	}
	w.release(name, x)
}

// narrow marks the row that a write of unknown rows has changed, and spares the others.
func (w *world) narrow(name string, s store.Sparing, x *transaction, pause func()) {
	if w.sparesFirst {
		w.spare(name, s, x, w.names.rows())
		pause()
	}
	var precise []store.Tag
	for _, r := range x.rows {
		precise = append(precise, w.row(r))
	}
	if w.sparesAnything {
		precise = nil
	}
	if err := w.s.Intend(background, x.w, precise); err != nil {
		w.fail("%s: Intend: %v", name, err)
	}
	x.tags = append(x.tags, precise...)
	w.trace.add(name, "has intended what it has changed")
	pause()
	w.spare(name, s, x, w.names.rows())
	pause()
}

func (w *world) spare(name string, s store.Sparing, x *transaction, tags ...store.Tag) {
	if err := s.Spare(background, x.w, tags); err != nil {
		w.fail("%s: Spare: %v", name, err)
	}
	w.trace.add(name, "spares %d tags as %x", len(tags), x.w[:2])
	x.tags = slices.DeleteFunc(slices.Clone(x.tags), func(t store.Tag) bool { return slices.Contains(tags, t) })
}

func (w *world) release(name string, x *transaction) {
	if err := w.s.Release(background, x.w, x.tags); err != nil {
		w.fail("%s: Release: %v", name, err)
	}
	w.trace.add(name, "has released %x", x.w[:2])
}

// server ends the transactions that are in doubt, some day and either way, and
// resolves: it releases the intents of those that are over.
func server(steps int) actor {
	return func(w *world, name string, rng *rand.Rand, pause func()) {
		for range steps {
			if w.failed() {
				return
			}
			w.serve(name, rng)
			pause()
		}
		for {
			w.mu.Lock()
			rest := len(w.inDoubt) + len(w.unresolved)
			w.mu.Unlock()
			if rest == 0 || w.failed() {
				return
			}
			w.serve(name, rng)
			pause()
		}
	}
}

func (w *world) serve(name string, rng *rand.Rand) {
	switch rng.IntN(3) {
	case 0:
		w.mu.Lock()
		if len(w.inDoubt) == 0 {
			w.mu.Unlock()
			return
		}
		i := rng.IntN(len(w.inDoubt))
		x := w.inDoubt[i]
		w.inDoubt = append(w.inDoubt[:i:i], w.inDoubt[i+1:]...)
		w.mu.Unlock()
		what := "aborts"
		if rng.IntN(4) > 0 {
			what = "commits"
			w.commit(x.rows)
		}
		w.mu.Lock()
		x.over = true
		w.mu.Unlock()
		w.trace.add(name, "%s %x, that nobody waits for", what, x.w[:2])
	case 1:
		w.mu.Lock()
		var x *transaction
		for i, u := range w.unresolved {
			if u.over {
				x = u
				w.unresolved = append(w.unresolved[:i:i], w.unresolved[i+1:]...)
				break
			}
		}
		w.mu.Unlock()
		if x != nil {
			w.release(name, x)
		}
	}
}
