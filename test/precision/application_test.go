package precision

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"time"
)

// skew is the exponent of the distribution by which rows are asked for and written.
const skew = 1.1

// application is one program: its tables with their first rows, what it asks and what it writes.
type application struct {
	name   string
	tables string
	shapes []shape
	writes []change
}

// shape is one text that is asked with changing arguments. The order of its rows is fixed
// throughout, so that PostgreSQL has one answer.
type shape struct {
	name   string
	weight int
	text   string
	args   func() []any
}

// change is one kind of transaction that writes.
type change struct {
	weight int
	do     func(ctx context.Context, conn *sql.Conn) error
}

// rows are the numbers of the rows that are there, in the order in which they are asked for: the
// first most. Which has a number is known here and not read, so that a run is the same each time.
type rows struct {
	r      *rand.Rand
	ids    []int
	next   int
	newest bool // the last are asked for most
}

func numbered(r *rand.Rand, n int) *rows {
	p := &rows{r: r, next: 1}
	for range n {
		p.add()
	}
	return p
}

// newestFirst are rows of which the newest are asked for most.
func newestFirst(r *rand.Rand, n int) *rows {
	p := numbered(r, n)
	p.newest = true
	return p
}

func (p *rows) add() int {
	id := p.next
	p.ids = append(p.ids, id)
	p.next++
	return id
}

// pick returns one by Zipf's law.
func (p *rows) pick() int {
	rank := below(p.r, len(p.ids))
	if p.newest {
		rank = len(p.ids) - 1 - rank
	}
	return p.ids[rank]
}

// remove takes any one away.
func (p *rows) remove() int {
	i := p.r.IntN(len(p.ids))
	id := p.ids[i]
	p.ids = append(p.ids[:i], p.ids[i+1:]...)
	return id
}

// below returns a number below n by Zipf's law.
func below(r *rand.Rand, n int) int {
	return int(rand.NewZipf(r, skew, 1, uint64(n-1)).Uint64())
}

// clock counts the seconds that a run's rows are stamped with.
type clock struct{ seconds int }

var epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func (c *clock) tick() time.Time {
	c.seconds++
	return epoch.Add(time.Duration(c.seconds) * time.Second)
}

// exec is a change of one statement.
func exec(text string, args func() []any) func(context.Context, *sql.Conn) error {
	return func(ctx context.Context, conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, text, args()...)
		return err
	}
}

// inTx is a change of several statements.
func inTx(do func(ctx context.Context, tx *sql.Tx) error) func(context.Context, *sql.Conn) error {
	return func(ctx context.Context, conn *sql.Conn) error {
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := do(ctx, tx); err != nil {
			_ = tx.Rollback()
			return err
		}
		return tx.Commit()
	}
}

// none are the arguments of a text without any.
func none() []any { return nil }

// one makes the arguments of a text that has one.
func one[T any](value func() T) func() []any {
	return func() []any { return []any{value()} }
}
