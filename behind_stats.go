package cachedpg

import (
	"context"
	"errors"
	"strings"
	"time"
)

// queuedResult is that of a statement which has not run.
type queuedResult struct{}

func (queuedResult) LastInsertId() (int64, error) {
	return 0, errors.New("LastInsertId is not supported by this driver")
}

func (queuedResult) RowsAffected() (int64, error) { return 0, errRowsAffected }

// DeadLetter is a queued write that was refused for good, by PostgreSQL or because no
// process of the application can have queued it. It is kept in the Redis stream that
// Stats.Queue.DeadLetters names, encrypted as the queue is; see DeadLetters.
type DeadLetter struct {
	ID       string // in the queue
	SQLState string // "" if it was not PostgreSQL that refused it
	Message  string // may hold values, as PostgreSQL's errors do
	SQL      string // as it was sent; "" if it cannot be read
	Args     []any
}

// QueueStats counts what strategy "write-behind" did in this sql.DB.
type QueueStats struct {
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

func (b *writeQueue) stats() QueueStats {
	s := QueueStats{Queued: b.queued.Load(), Applied: b.applied.Load(), Dead: b.dead.Load(), Drains: b.drains.Load(),
		Lost: b.lost.Load(), Length: -1, DeadLetters: b.queue.DeadLetters()}
	if risk := b.risk.Load(); risk != nil {
		s.Risk = *risk
	}
	if err := b.stopped(); err != nil {
		s.Stopped = strings.TrimPrefix(err.Error(), "cachedpg: write-behind: ")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if n, err := b.queue.QueueLength(ctx); err == nil {
		s.Length = n
	}
	return s
}

// explainQueue says of a statement that is queued what Redis may do to it.
func (c *Conn) explainQueue(q *call, x *Explanation) {
	if !q.text.behind || c.tx != nil {
		return
	}
	b := c.d.behind.Load()
	if b != nil {
		if err := b.stopped(); err != nil {
			x.Notes = append(x.Notes, "It is not queued: "+strings.TrimPrefix(err.Error(), "cachedpg: write-behind: ")+".")
			return
		}
	}
	x.Notes = append(x.Notes, "It is queued, and runs later: strategy write-behind.")
	if b != nil {
		if risk := b.risk.Load(); risk != nil && *risk != "" {
			x.Notes = append(x.Notes, "What is queued may be lost: "+*risk+".")
		}
	}
}

var errOldQueueTable = errors.New("cachedpg: strategy \"write-behind\": the table cachedpg.queue lacks columns that this version needs; run \"cachedpg setup\" again")

var errNoQueueTable = errors.New("cachedpg: strategy \"write-behind\" needs the table cachedpg.queue, which \"cachedpg setup\" makes")

// queueTable makes the table in which the position in the queue is recorded.
const queueTable = `CREATE TABLE IF NOT EXISTS cachedpg.queue (
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

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
