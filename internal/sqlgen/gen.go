package sqlgen

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Gen makes the choices. It must not be used concurrently.
type Gen struct {
	random *rand.Rand
	undo   []string // what takes DDL back that was made before, last first
}

// New returns the Gen of a seed.
func New(seed uint64) *Gen {
	return &Gen{random: rand.New(rand.NewPCG(seed, 0x5eed))}
}

// Below returns a number from 0 to n-1.
func (g *Gen) Below(n int) int { return g.random.IntN(n) }

// Percent reports true that many times of a hundred.
func (g *Gen) Percent(p int) bool { return g.random.IntN(100) < p }

// one returns one of several.
func one[T any](g *Gen, of ...T) T { return of[g.Below(len(of))] }

// some returns at least so many of several, in their order.
func some[T any](g *Gen, atLeast int, of []T) []T {
	n := min(len(of), atLeast+g.Below(len(of)-min(len(of), atLeast)+1))
	var chosen []T
	for i, x := range of {
		if g.Below(len(of)-i) < n-len(chosen) {
			chosen = append(chosen, x)
		}
	}
	return chosen
}

// weighted is one of several alternatives, taken weight times as often as one
// of weight 1.
type weighted[T any] struct {
	weight int
	name   string
	make   T
}

func choose[T any](g *Gen, of []weighted[T]) weighted[T] {
	sum := 0
	for _, w := range of {
		sum += w.weight
	}
	n := g.Below(sum)
	for _, w := range of {
		if n -= w.weight; n < 0 {
			return w
		}
	}
	panic("unreachable")
}

// Statement is one text with its arguments.
type Statement struct {
	SQL  string
	Args []any

	// Kind names the rule of the grammar that made it, for statistics.
	Kind string

	// Ordered says that a SELECT has a total order; the rows of another one are
	// to be compared as a multiset.
	Ordered bool

	// Rows says that a write is to be sent as a query, because it returns rows.
	Rows bool

	// Alone says that PostgreSQL refuses it inside a transaction block.
	Alone bool

	// Schema says that a write changes the catalog.
	Schema bool

	// Copy is set instead of SQL for rows to be copied in.
	Copy *Copy
}

// Copy is a COPY … FROM STDIN.
type Copy struct {
	Table   string
	Columns []string
	Rows    [][]any
}

// String shows the statement as a reader can run it.
func (s Statement) String() string {
	if s.Copy != nil {
		return fmt.Sprintf("COPY %s (%s) FROM STDIN; -- %v", s.Copy.Table, strings.Join(s.Copy.Columns, ", "), s.Copy.Rows)
	}
	if len(s.Args) == 0 {
		return s.SQL + ";"
	}
	args := make([]string, len(s.Args))
	for i, a := range s.Args {
		args[i] = fmt.Sprintf("$%d = %T %v", i+1, a, a)
	}
	return s.SQL + "; -- " + strings.Join(args, ", ")
}
