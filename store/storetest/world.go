package storetest

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cachedpg/cachedpg/store"
)

// version is the value of a row; commits count it up.
type version = uint64

// world is a database of a few rows, and what everybody was told about them.
type world struct {
	names
	protocol
	s     store.Store
	trace trace

	mu         sync.Mutex
	rows       [rowCount]version
	commits    version
	told       [rowCount]version // the newest version that someone was given, or a commit returned for
	inDoubt    []*transaction    // COMMIT is sent and the connection lost; the server will end them
	unresolved []*transaction    // whose writers never learn the outcome
	flights    map[string]*flight
	report     string
}

// transaction is a write whose outcome its writer does not know.
type transaction struct {
	w    store.WriterID
	tags []store.Tag
	rows []int
	over bool
}

// flight is one SELECT that several readers share.
type flight struct {
	done   bool
	result []version
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report == "" {
		w.report = fmt.Sprintf(format, args...) + "\n" + w.trace.String()
	}
}

func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.report != ""
}

// tagsOf returns the tags that a query depends on. The first always of them
// count for every result, the others only for one without rows, which does not
// occur here: so a reader looks them up and never fills with them.
func (w *world) tagsOf(query int) (tags []store.Tag, always int) {
	if query == scanQuery {
		return []store.Tag{{}, w.table()}, 2
	}
	return []store.Tag{{}, w.names.rows(), w.row(query), w.table()}, 3
}

func (w *world) selectRows(query int) []version {
	w.mu.Lock()
	defer w.mu.Unlock()
	if query == scanQuery {
		return append([]version{}, w.rows[:]...)
	}
	return []version{w.rows[query]}
}

func (w *world) commit(rows []int) version {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commits++
	for _, r := range rows {
		w.rows[r] = w.commits
	}
	return w.commits
}

func (w *world) isTold() [rowCount]version {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told
}

// tell records what a reader was given. before is what others had been told
// when the read began: less than that is stale.
func (w *world) tell(name string, query int, result []version, before [rowCount]version) {
	first, last := query, query
	if query == scanQuery {
		first, last = 0, rowCount-1
	}
	if len(result) != last-first+1 {
		w.fail("%s got %d rows from query %d", name, len(result), query)
		return
	}
	for r := first; r <= last; r++ {
		got := result[r-first]
		if got < before[r] {
			w.fail("%s read version %d of row %d; version %d was known when it began", name, got, r, before[r])
		}
		w.mu.Lock()
		w.told[r] = max(w.told[r], got)
		w.mu.Unlock()
	}
}

// trace keeps the last events of a run. Under real concurrency their order is
// about right.
type trace struct {
	mu     sync.Mutex
	events []event
}

type event struct {
	who, format string
	args        []any
}

const traceLength = 80

func (t *trace) add(who, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.events) == 2*traceLength {
		t.events = append(t.events[:0], t.events[traceLength:]...)
	}
	t.events = append(t.events, event{who, format, args})
}

func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, e := range t.events {
		fmt.Fprintf(&b, "\t%-9s %s\n", e.who, fmt.Sprintf(e.format, e.args...))
	}
	return b.String()
}

func newWorld(s store.Store, p protocol) *world {
	return &world{names: newNames(), protocol: p, s: s, flights: map[string]*flight{}}
}
