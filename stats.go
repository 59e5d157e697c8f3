package cachedpg

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
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

type counters struct {
	hits, misses, stale, fills, joined, refreshed, tooLarge, unknown, unmarked, storeErrors atomic.Uint64
	others                                                                                  atomic.Uint64
	refilled, refillSkipped, refillFailed                                                   atomic.Uint64
	bypasses                                                                                [256]atomic.Uint64 // by Reason
}

type statementStats struct {
	text                              string
	reason                            atomic.Uint32 // keying.Reason of the last plan
	hits, misses, bypassed, fills, ns atomic.Uint64
	admission                         admission
}

// took is how long the SELECT takes, as a mean; zero if that is not known.
func (s *statementStats) took() time.Duration {
	if fills := s.fills.Load(); fills > 0 {
		return time.Duration(s.ns.Load() / fills)
	}
	return 0
}

func (s *counters) hit(text *statementStats) {
	s.hits.Add(1)
	text.hits.Add(1)
}

func (s *counters) miss(text *statementStats, stale bool) {
	s.misses.Add(1)
	text.misses.Add(1)
	if stale {
		s.stale.Add(1)
	}
}

func (s *counters) bypass(text *statementStats, reason keying.Reason) {
	if reason == keying.NotRead {
		s.others.Add(1)
		return
	}
	s.bypasses[reason].Add(1)
	text.bypassed.Add(1)
}

func (s *counters) filled(text *statementStats, d time.Duration) {
	s.fills.Add(1)
	text.fills.Add(1)
	text.ns.Add(uint64(d))
}

const maxStatements = 100

// StatsOf returns the counters of a database opened with this driver. Of any other there are
// none, and Problems says so. Behind a driver that is wrapped around this one and does
// not give its Driver, it takes a connection the first time, for which it waits a second at most.
func StatsOf(db Database) Stats {
	d, err := findConnectorSoon(db)
	if err != nil {
		return Stats{Problems: []Problem{{Work: "driver", Text: err.Error()}}}
	}
	c := &d.stats
	s := Stats{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Stale: c.stale.Load(), Fills: c.fills.Load(),
		Joined: c.joined.Load(), Refreshed: c.refreshed.Load(), TooLarge: c.tooLarge.Load(), StoreErrors: c.storeErrors.Load(),
		UnknownOutcome: c.unknown.Load(), Unmarked: c.unmarked.Load(), Parsed: d.parsed.Load(), Others: c.others.Load(), Bypasses: make(map[string]uint64),
	}
	s.Refilled, s.RefillSkipped, s.RefillFailed = c.refilled.Load(), c.refillSkipped.Load(), c.refillFailed.Load()
	s.Lookups = s.Hits + s.Misses
	s.Outbox = d.outbox.stats()
	for reason := range c.bypasses {
		if n := c.bypasses[reason].Load(); n > 0 {
			s.Bypasses[keying.Reason(reason).String()] = n
			s.Bypassed += n
		}
	}
	s.Places = d.places.stats()
	s.Problems = d.allProblems()
	s.Statements = d.statementStats()
	for _, st := range s.Statements {
		s.Saved += st.Saved
	}
	s.Statements = s.Statements[:min(len(s.Statements), maxStatements)]
	s.Queue = d.queueStats()
	if sp := d.space(); sp != nil {
		switch st := sp.store.(type) {
		case localStore:
			m := st.Stats()
			s.Entries, s.Bytes, s.Tags, s.Evictions, s.Expirations = m.Entries, m.Bytes, m.Tags, m.Evictions, m.Expirations
		case store.Shared:
			s.Shared = st.SharedStats()
		}
		if v := sp.view.Load(); v != nil {
			s.Policies = d.config.idlePolicies(v.snapshot)
		}
		s.Peers = sp.peers.stats()
		s.Feed = sp.feed.Load().report()
		s.Unresolved = sp.writes.Stats().Unresolved
		s.Unflushed, s.UnflushedProblem = sp.flushed.pending(), sp.log.Problem()
	}
	return s
}

// statementStats lists the statements, those that saved most first.
func (d *connector) statementStats() []StatementStats {
	var all []StatementStats
	d.statements.All(func(_ [sha256.Size]byte, s *statementStats) bool {
		st := StatementStats{Text: s.text, Hits: s.hits.Load(), Misses: s.misses.Load(), Bypassed: s.bypassed.Load(), NoGain: s.admission.out.Load()}
		if reason := keying.Reason(s.reason.Load()); reason != keying.NoReason {
			st.Reason = reason.String()
		}
		st.Saved = time.Duration(st.Hits) * s.took()
		all = append(all, st)
		return true
	})
	slices.SortFunc(all, func(a, b StatementStats) int {
		return cmp.Or(cmp.Compare(b.Saved, a.Saved), cmp.Compare(b.Bypassed, a.Bypassed), cmp.Compare(a.Text, b.Text))
	})
	return all
}

// Invalidate makes every result that reads one of the relations stale, and
// every result when none is named. It is for writes that went past the driver,
// and to be called after they have committed. A name is as in SQL, resolved by
// the search_path of a new connection. It asks PostgreSQL only if nothing is
// known of the database yet.
//
// Results do not depend on a relation of strategy "ttl", so that to name one makes
// every result stale.
func Invalidate(ctx context.Context, db Database, relations ...string) error {
	return withConn(ctx, db, func(c *Conn) error { return c.invalidate(ctx, relations) })
}

func (c *Conn) invalidate(ctx context.Context, relations []string) error {
	if err := c.enter(); err != nil {
		return err
	}
	return errors.Join(c.invalidateHere(ctx, relations), c.unreached())
}

// unreached is an error if there is a shared store, and it is not the one that the process marks in.
func (c *Conn) unreached() error {
	if c.d.target == nil {
		return nil
	}
	return c.d.strangerThan(c.d.space())
}

func (c *Conn) invalidateHere(ctx context.Context, relations []string) error {
	if len(relations) == 0 {
		if c.d.space() == nil { // this DB has cached nothing, but others with the same store may have
			if _, err := c.state(ctx); err != nil {
				return err
			}
		}
		if sp := c.d.space(); sp != nil {
			return sp.invalidateAll(ctx)
		}
		return nil // nothing is cached
	}
	q := call{}
	if err := c.plan(ctx, &q); err != nil {
		return err
	}
	if q.space == nil {
		return nil // nothing is cached
	}
	if q.view == noCatalog { // the store is cold, or does not answer; others may have a hit soon
		snapshot, err := c.ownCatalog(ctx)
		if err != nil {
			return err
		}
		q.view = &view{snapshot: snapshot}
	}
	var tags []store.Tag
	for _, name := range relations {
		text := "TRUNCATE " + name
		statements, err := parser.Parse(text, nil)
		if err != nil || len(statements) != 1 || len(statements[0].Writes) != 1 {
			return fmt.Errorf("cachedpg: Invalidate: %q is not the name of a relation", name)
		}
		target := statements[0].Writes[0].Target
		if q.view.snapshot.Resolve(q.session.Path, target.Schema, target.Name.Name) == nil {
			return fmt.Errorf("cachedpg: Invalidate: %s: %w", name, errNoRelation)
		}
		plan := keying.New(text, statements, q.view.snapshot, q.session.Path)
		if slices.ContainsFunc(plan.WritesTo(), func(oid uint32) bool { return c.d.config.ages(q.view.snapshot, oid) }) {
			return q.space.invalidateAll(ctx)
		}
		tags = plan.WriteTags(tags, keying.Values{})
	}
	// What changed is committed already, so new stamps are enough.
	return q.space.store.Release(ctx, store.NewWriter(), tags)
}

// ownCatalog loads the catalog for a name to be looked up, whatever the store says.
func (c *Conn) ownCatalog(ctx context.Context) (*catalog.Snapshot, error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	if c.inner.TxStatus() != 'I' || c.known.session == nil {
		return nil, errors.New("cachedpg: Invalidate: the schema could not be loaded to look the names up in")
	}
	return c.inner.LoadCatalog(ctx, nil)
}
