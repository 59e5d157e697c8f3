package cachedpg

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/core"
	"github.com/cachedpg/cachedpg/store"
)

// Stats counts what a sql.DB's queries met since it was opened. Counters are
// read one by one while others count on; at rest these hold:
//
//	Lookups  = Hits + Misses
//	Misses   ≥ Fills + Joined
//	Bypassed = the sum of Bypasses
//
// Reads are the statements that are a plain SELECT, given to Query: each is one of
// Lookups or of Bypassed. All others are Others, by Query (INSERT … RETURNING) as by Exec.
type Stats struct {
	Lookups   uint64 // of queries that the cache might answer
	Hits      uint64
	Misses    uint64
	Stale     uint64 // misses that found an entry which a commit had invalidated and nobody had cleared away
	Fills     uint64 // SELECTs whose result was stored
	Joined    uint64 // misses that shared the SELECT of another one
	Refreshed uint64 // misses that found a valid entry which was about to expire
	TooLarge  uint64 // results over Config.MaxEntry, passed through

	Bypassed uint64            // reads that went to PostgreSQL without asking the cache
	Bypasses map[string]uint64 // by the name of the keying.Reason

	Others uint64 // statements that are no reads

	// Of strategy "write-through", see docs/write-through.md. These SELECTs are
	// neither Misses nor Fills.
	Refilled      uint64 // entries that commits have stored anew
	RefillSkipped uint64 // that were left to the next read: over Config.RefillMax, too late, of another session, or in the hands of others
	RefillFailed  uint64 // whose SELECT failed, or the store

	Parsed         uint64 // texts given to the parser
	UnknownOutcome uint64 // writes whose answer did not arrive; resolved later
	Unmarked       uint64 // writes that the store could not be told of before their commit
	StoreErrors    uint64

	// Saved estimates the time that hits did not spend in PostgreSQL: hits
	// times the mean duration of the fills of the same statement.
	Saved time.Duration

	// Statements are the texts that saved most, normalised, at most 100.
	Statements []StatementStats

	// Of the store in memory, which all DBs of the process on the same database share.
	Entries     int
	Bytes       int64
	Tags        int
	Evictions   uint64
	Expirations uint64

	Unresolved int // writers of this process whose outcome is being asked for

	// Unflushed are commits of this process with synchronous_commit=off that are not
	// known to be on disk: what they changed is not cached until they are.
	// UnflushedProblem says why the role cannot ask PostgreSQL, and what counts then.
	Unflushed        int
	UnflushedProblem string

	// Problems is why work of the driver's own does not succeed, and so nothing or
	// less is cached; empty while all is well.
	Problems []Problem

	// Policies are those of Config.Policies that have no effect, each with the
	// reason: there is no such relation, or it is a view.
	Policies []string

	// Queue is what strategy "write-behind" did.
	Queue QueueStats

	// Outbox is what went by way of the outbox, see Config.Outbox and Relay.
	Outbox OutboxStats

	// Shared is what this process met in a store that processes share.
	Shared store.SharedStats

	// Places tells of Config.MaxConns.
	Places PlaceStats

	// Feed is what Config.External = "wal" follows.
	Feed FeedStats

	// Peers is what this process knows of others.
	Peers PeerStats
}

// HitRatio is the share of all reads that was answered from the cache, 0 if there were
// none. What is no read is in neither part.
func (s Stats) HitRatio() float64 {
	if reads := s.Lookups + s.Bypassed; reads > 0 {
		return float64(s.Hits) / float64(reads)
	}
	return 0
}

// StatementStats counts one normalised text. Literals and arguments never appear.
type StatementStats struct {
	Text     string
	Reason   string // why it is never cached; "" when it may be
	Hits     uint64
	Misses   uint64
	Bypassed uint64
	Saved    time.Duration

	// NoGain: its results are not looked up now, but for samples, because that has
	// cost more than it saved, see Config.Admission.
	NoGain bool
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

// OutboxStats is what the writers of a sql.DB put into the outbox, and what Relay,
// if it runs with that DB, does with it.
type OutboxStats struct {
	Posted uint64 // events written beside what they tell of
	Asked  uint64 // commits that asked a relay to mark, because the store could not be reached
	Marked uint64 // of which a relay did

	Delivered uint64 // rows that a Relay with this DB has delivered, a second time included
	SetAside  uint64 // of which nobody could read the tags; everything was invalidated for them

	// As the Relay with this DB saw it last: how many rows wait, up to 10,000,
	// and how long the oldest of them has.
	Waiting int
	Lag     time.Duration

	// Problem is what went wrong last, "" when it has gone well since and no row
	// was set aside.
	Problem string
}

// PlaceStats tells of Config.MaxConns. Without it everything is zero.
type PlaceStats struct {
	InUse   int           // connections to PostgreSQL that are in use, kept for an idle connection of the sql.DB, or being dialled
	Free    int           // that nobody uses
	Waiting int           // statements that wait for one
	Waits   uint64        // that have waited, or wait
	Waited  time.Duration // for so long in all
}

// FeedStats is what this process knows of the feed from the write-ahead log.
type FeedStats struct {
	// Live: the log is being followed, by this process or, with a shared store,
	// by the one that leads. While it is not, reads go to PostgreSQL.
	Live bool

	// Leader: it is this process that follows.
	Leader bool

	// Problem is why the log is not followed now; "" while it is.
	Problem string

	// LeftOut are the tables, separated by commas, that no replica identity can
	// serve: what reads them goes to PostgreSQL.
	LeftOut string

	Transactions uint64 // that were followed by this process
	Changes      uint64 // rows changed and tables truncated in them
	Gaps         uint64 // times that the log was lost and everything became cold, the start not counted

	// Lag is the time from the commit of the last transaction, by PostgreSQL's
	// clock, until it was invalidated, by ours. Behind is the log in bytes that
	// PostgreSQL had written past it by then.
	Lag    time.Duration
	Behind int64
}

// PeerStats is what this process knows of others that use the same database
// through the driver.
type PeerStats struct {
	// Withheld says why no result comes from the cache: another process writes
	// that does not share it. "" while results may.
	Withheld string

	// Differs says what is configured otherwise in a process that shares the
	// cache; "" if nothing is known to be.
	Differs string
}

// Problem is why work of the driver's own did not succeed when it was tried last.
// Queries go to PostgreSQL meanwhile, as far as they need what it is for.
type Problem struct {
	// Work is what failed: "session" (to ask what it is set to), "commit" (to ask the transaction for its
	// id, or what it has written; it makes more stale instead), "catalog" (to load it),
	// "watch" (to ask PostgreSQL, beside the pool, what hits rest on) or "store" (to use
	// the one that processes share), "driver" (to find this one under what is wrapped around it),
	// "pool" (to hear from it when a connection is not in use, for Config.MaxConns).
	Work string

	// Text is what was answered, with its SQLSTATE or Redis' code, and no values.
	Text string

	// Since is when it failed first since it succeeded.
	Since time.Time
}

// String returns the problem in one line, without the time.
func (p Problem) String() string { return p.Work + ": " + p.Text }

// statsTimeout bounds the wait of StatsOf for a connection of a wrapper, which it takes once.
const statsTimeout = time.Second

const maxStatements = 100

// StatsOf returns the counters of a database opened with this driver. Of any other there are
// none, and Problems says so. Behind a driver that is wrapped around this one and does
// not give its Driver, it takes a connection the first time, for which it waits a second at most.
func StatsOf(db Database) Stats {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	d, err := findDB(ctx, db)
	if err != nil {
		return Stats{Problems: []Problem{{Work: "driver", Text: err.Error()}}}
	}
	return statsOf(d.Stats())
}

func statsOf(c core.Stats) Stats {
	s := Stats{
		Lookups: c.Hits + c.Misses, Hits: c.Hits, Misses: c.Misses, Stale: c.Stale, Fills: c.Fills, Joined: c.Joined, Refreshed: c.Refreshed, TooLarge: c.TooLarge,
		Bypasses: c.Bypasses, Others: c.Others, Refilled: c.Refilled, RefillSkipped: c.RefillSkipped, RefillFailed: c.RefillFailed,
		Parsed: c.Parsed, UnknownOutcome: c.UnknownOutcome, Unmarked: c.Unmarked, StoreErrors: c.StoreErrors,
		Entries: c.Memory.Entries, Bytes: c.Memory.Bytes, Tags: c.Memory.Tags, Evictions: c.Memory.Evictions, Expirations: c.Memory.Expirations,
		Unresolved: c.Unresolved, Unflushed: c.Unflushed, UnflushedProblem: c.UnflushedProblem, Policies: c.Policies,
		Queue: QueueStats(c.Queue), Outbox: OutboxStats(c.Outbox), Shared: c.Shared, Places: PlaceStats(c.Places), Feed: FeedStats(c.Feed), Peers: PeerStats(c.Peers),
	}
	for _, n := range c.Bypasses {
		s.Bypassed += n
	}
	for _, p := range c.Problems {
		s.Problems = append(s.Problems, Problem(p))
	}
	for i, st := range c.Statements {
		if s.Saved += st.Saved; i < maxStatements {
			s.Statements = append(s.Statements, StatementStats(st))
		}
	}
	return s
}
