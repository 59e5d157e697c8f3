package invalidation

import (
	"fmt"
	"slices"
	"sync"
)

// Generations holds back the release of a DDL's schema tag until every write
// that was planned with the catalog from before is over (I10). It is for the
// writers of one process and safe for concurrent use.
//
// A writer without a transaction intends the tags that its plan says and then
// sends its statement. If the catalog changes in between, the statement may
// write more than was planned:
//
//	writer                             DDL                          reader
//	plan DELETE FROM parent: {parent}
//	                                   intend {schema}
//	                                   ADD … ON DELETE CASCADE
//	                                   release {schema}
//	                                                                miss on child, SELECT → old,
//	                                                                fill {schema, child}
//	intend {parent}
//	DELETE takes the rows of child too
//	release {parent}
//	                                                                hit of old
//
// So a writer enters before it looks at the catalog and leaves when its outcome
// is known; a DDL, once its own outcome is known, advances, which makes
// everyone who enters from then on plan with a catalog loaded since, and
// releases when all who entered before have left. While it waits the schema tag
// is dirty: everybody asks PostgreSQL, and nobody waits.
//
// For this to hold, a catalog in use is replaced together with Advance: who
// reads Current, loads a catalog and finds Current unchanged may publish it. A
// transaction need not be inside from its first statement: it enters before it
// intends its tags for COMMIT, and if a statement of it was planned with
// another catalog than the one in use then, it intends the schema tag as well.
type Generations struct {
	mu      sync.Mutex
	oldest  *generation // with someone inside, or newest; the others follow by next
	newest  *generation
	waiting []waiter
}

type generation struct {
	number uint64
	inside int
	next   *generation
	leave  func()
}

type waiter struct {
	generation uint64
	do         func()
}

// NewGenerations returns a Generations with nobody inside.
func NewGenerations() *Generations {
	g := &Generations{}
	g.oldest = g.generation(1)
	g.newest = g.oldest
	return g
}

// generation makes a generation with its leave, so that Enter allocates nothing.
func (g *Generations) generation(number uint64) *generation {
	n := &generation{number: number}
	n.leave = func() { g.left(n) }
	return n
}

// Current returns the number of the current generation.
func (g *Generations) Current() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.newest.number
}

// Enter counts a writer into the current generation. leave counts it out and
// must be called exactly once, from any goroutine; it may run what waits for it.
func (g *Generations) Enter() (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newest.inside++
	return g.newest.leave
}

// Advance begins a new generation and returns its number. It is called when the
// outcome of a DDL is known, and before its schema tag is released.
func (g *Generations) Advance() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newest.next = g.generation(g.newest.number + 1)
	g.newest = g.newest.next
	g.skipLocked()
	return g.newest.number
}

// WhenOlderLeft calls do once nobody is inside who entered before generation,
// a number that Advance returned: before it returns, or from the leave of the
// last of them. Who waits must have left first, or it waits for itself.
func (g *Generations) WhenOlderLeft(generation uint64, do func()) {
	g.mu.Lock()
	if g.oldest.number < generation {
		g.waiting = append(g.waiting, waiter{generation, do})
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	do()
}

func (g *Generations) left(n *generation) {
	g.mu.Lock()
	if n.inside == 0 {
		g.mu.Unlock()
		panic(fmt.Sprintf("cachedpg: generation %d was left more often than entered", n.number))
	}
	n.inside--
	var ready []waiter
	if g.skipLocked() && len(g.waiting) > 0 {
		g.waiting = slices.DeleteFunc(g.waiting, func(w waiter) bool {
			if w.generation > g.oldest.number {
				return false
			}
			ready = append(ready, w)
			return true
		})
	}
	g.mu.Unlock()
	for _, w := range ready {
		w.do()
	}
}

// skipLocked moves oldest over those that are empty for good. It reports
// whether it did.
func (g *Generations) skipLocked() (moved bool) {
	for g.oldest.inside == 0 && g.oldest != g.newest {
		g.oldest, moved = g.oldest.next, true
	}
	return moved
}
