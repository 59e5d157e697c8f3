package behind

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/store/redis"
)

// Result is that of a statement which has not run.
type Result struct{}

// LastInsertId is an error, as pgx's is.
func (Result) LastInsertId() (int64, error) {
	return 0, errors.New("LastInsertId is not supported by this driver")
}

// RowsAffected is ErrRowsAffected.
func (Result) RowsAffected() (int64, error) { return 0, ErrRowsAffected }

// Letter is a queued write that was refused for good. It is kept in a stream of its own, see Stats.DeadLetters.
type Letter struct {
	ID       string // in the queue
	SQLState string // "" if it was not PostgreSQL that refused it
	Message  string // may hold values, as PostgreSQL's errors do
	SQL      string // as it was sent; "" if it cannot be read
	Args     []any
}

// Stats counts what a Queue did.
type Stats struct {
	Queued  uint64 // writes that were acknowledged by the queue
	Applied uint64 // that this process has applied, of whichever process
	Dead    uint64 // of which PostgreSQL has refused
	Drains  uint64 // reads and writes that waited for queued ones
	Lost    uint64 // acknowledged writes that were found missing; one that has no number counts for all that Redis lost at a time
	Length  int64  // of the queue now, for which Redis is asked; -1 when it does not tell

	// Stopped says why this process neither queues nor applies writes; "" if it does.
	Stopped string

	// DeadLetters is the name of the stream of refused writes in Redis.
	DeadLetters string

	// Risk says how Redis, as it is configured, may lose acknowledged writes; "" if
	// it writes each to disk first.
	Risk string
}

// Stats asks Redis for the length, for a second at most.
func (b *Queue) Stats() Stats {
	s := Stats{Queued: b.queued.Load(), Applied: b.applied.Load(), Dead: b.dead.Load(), Drains: b.drains.Load(),
		Lost: b.lost.Load(), Length: -1, DeadLetters: b.store.DeadLetters()}
	if risk := b.risk.Load(); risk != nil {
		s.Risk = *risk
	}
	if err := b.stopped(); err != nil {
		s.Stopped = strings.TrimPrefix(err.Error(), "cachedpg: write-behind: ")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if n, err := b.store.QueueLength(ctx); err == nil {
		s.Length = n
	}
	return s
}

// Store is where the queue is.
func (b *Queue) Store() *redis.Store { return b.store }

// Explain says of a statement that may be queued what becomes of it, in sentences. A nil Queue is one that is
// not open yet.
func (b *Queue) Explain() (notes []string) {
	const queued = "It is queued, and runs later: strategy write-behind."
	if b == nil {
		return []string{queued}
	}
	if err := b.stopped(); err != nil {
		return []string{"It is not queued: " + strings.TrimPrefix(err.Error(), "cachedpg: write-behind: ") + "."}
	}
	notes = []string{queued}
	if risk := b.risk.Load(); risk != nil && *risk != "" {
		notes = append(notes, "What is queued may be lost: "+*risk+".")
	}
	return notes
}

var errOldTable = errors.New("cachedpg: strategy \"write-behind\": the table cachedpg.queue lacks columns that this version needs; run \"cachedpg setup\" again")

// ErrNoTable is what a write gets before cachedpg.queue was made.
var ErrNoTable = errors.New("cachedpg: strategy \"write-behind\" needs the table cachedpg.queue, which \"cachedpg setup\" makes")

// schema is where that is.
const schema = "cachedpg"

// TableSQL makes the table in which the position in the queue is recorded.
const TableSQL = `CREATE TABLE IF NOT EXISTS cachedpg.queue (
	stream   pg_catalog.text PRIMARY KEY,
	position pg_catalog.text NOT NULL,
	refused  pg_catalog.text NOT NULL DEFAULT '[]',
	applied  pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
	fence    pg_catalog.int8 NOT NULL DEFAULT 0,
	sequence pg_catalog.int8 NOT NULL DEFAULT 0,
	known    pg_catalog.text NOT NULL DEFAULT '{}'
);
ALTER TABLE cachedpg.queue ADD COLUMN IF NOT EXISTS fence pg_catalog.int8 NOT NULL DEFAULT 0,
	ADD COLUMN IF NOT EXISTS sequence pg_catalog.int8 NOT NULL DEFAULT 0,
	ADD COLUMN IF NOT EXISTS known pg_catalog.text NOT NULL DEFAULT '{}'`
