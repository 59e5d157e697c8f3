package core

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
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/feed"
	"github.com/cachedpg/cachedpg/internal/outbox"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Stats is cachedpg.Stats, which says what each field means.
type Stats struct {
	Hits, Misses, Stale, Fills, Joined, Refreshed, TooLarge uint64

	Bypasses map[string]uint64 // by the name of the keying.Reason
	Others   uint64

	Refilled, RefillSkipped, RefillFailed uint64

	Parsed, UnknownOutcome, Unmarked, StoreErrors uint64

	Statements []StatementStats // all

	Memory store.MemoryStats // of a store in memory

	Unresolved       int
	Unflushed        int
	UnflushedProblem string
	Problems         []space.Problem
	Policies         []string

	Queue  behind.Stats
	Outbox outbox.Stats
	Shared store.SharedStats
	Places PlaceStats
	Feed   feed.Stats
	Peers  peers.Stats
}

// StatementStats is cachedpg.StatementStats.
type StatementStats struct {
	Text                   string
	Reason                 string
	Hits, Misses, Bypassed uint64
	Saved                  time.Duration
	NoGain                 bool
}

type counters struct {
	hits, misses, stale, fills, joined, refreshed, tooLarge, unknown, unmarked, storeErrors atomic.Uint64
	others                                                                                  atomic.Uint64
	refilled, refillSkipped, refillFailed                                                   atomic.Uint64
	bypasses                                                                                [256]atomic.Uint64 // by Reason
}

func (s *counters) hit(text *planning.Statement) {
	s.hits.Add(1)
	text.Hits.Add(1)
}

func (s *counters) miss(text *planning.Statement, stale bool) {
	s.misses.Add(1)
	text.Misses.Add(1)
	if stale {
		s.stale.Add(1)
	}
}

func (s *counters) bypass(text *planning.Statement, reason keying.Reason) {
	if reason == keying.NotRead {
		s.others.Add(1)
		return
	}
	s.bypasses[reason].Add(1)
	text.Bypassed.Add(1)
}

func (s *counters) filled(text *planning.Statement, d time.Duration) {
	s.fills.Add(1)
	text.Fills.Add(1)
	text.Ns.Add(uint64(d))
}

// Stats returns the counters. They are read one by one while others count on.
func (d *DB) Stats() Stats {
	c := &d.stats
	s := Stats{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Stale: c.stale.Load(), Fills: c.fills.Load(),
		Joined: c.joined.Load(), Refreshed: c.refreshed.Load(), TooLarge: c.tooLarge.Load(), StoreErrors: c.storeErrors.Load(),
		Refilled: c.refilled.Load(), RefillSkipped: c.refillSkipped.Load(), RefillFailed: c.refillFailed.Load(),
		UnknownOutcome: c.unknown.Load(), Unmarked: c.unmarked.Load(), Parsed: d.Parsed.Load(), Others: c.others.Load(),
		Bypasses: make(map[string]uint64), Outbox: d.outbox.Stats(), Places: d.places.stats(), Problems: d.allProblems(),
		Statements: d.statementStats(), Queue: d.queueStats(),
	}
	for reason := range c.bypasses {
		if n := c.bypasses[reason].Load(); n > 0 {
			s.Bypasses[keying.Reason(reason).String()] = n
		}
	}
	if sp := d.space(); sp != nil {
		switch st := sp.Store.(type) {
		case space.LocalStore:
			s.Memory = st.Stats()
		case store.Shared:
			s.Shared = st.SharedStats()
		}
		if v := sp.View.Load(); v != nil {
			s.Policies = d.Config.IdlePolicies(v.Snapshot)
		}
		s.Peers = sp.Peers.Stats()
		s.Feed = sp.Feed.Load().Report()
		s.Unresolved = sp.Writes.Stats().Unresolved
		s.Unflushed, s.UnflushedProblem = sp.Flushed.Pending(), sp.Log.Problem()
	}
	return s
}

// statementStats lists the statements, those that saved most first.
func (d *DB) statementStats() []StatementStats {
	var all []StatementStats
	d.Statements.All(func(_ [sha256.Size]byte, s *planning.Statement) bool {
		st := StatementStats{Text: s.Text, Hits: s.Hits.Load(), Misses: s.Misses.Load(), Bypassed: s.Bypassed.Load(), NoGain: s.Admission.Out.Load()}
		if reason := keying.Reason(s.Reason.Load()); reason != keying.NoReason {
			st.Reason = reason.String()
		}
		st.Saved = time.Duration(st.Hits) * s.Took()
		all = append(all, st)
		return true
	})
	slices.SortFunc(all, func(a, b StatementStats) int {
		return cmp.Or(cmp.Compare(b.Saved, a.Saved), cmp.Compare(b.Bypassed, a.Bypassed), cmp.Compare(a.Text, b.Text))
	})
	return all
}

// Invalidate makes every result that reads one of the relations stale, and every result when none is named, see
// cachedpg.Invalidate.
func (c *Conn) Invalidate(ctx context.Context, relations []string) error {
	if err := c.enter(); err != nil {
		return err
	}
	return errors.Join(c.invalidateHere(ctx, relations), c.unreached())
}

// unreached is an error if there is a shared store, and it is not the one that the process marks in.
func (c *Conn) unreached() error {
	if c.d.Target == nil {
		return nil
	}
	return c.d.StrangerThan(c.d.space())
}

func (c *Conn) invalidateHere(ctx context.Context, relations []string) error {
	if len(relations) == 0 {
		if c.d.space() == nil { // this DB has cached nothing, but others with the same store may have
			if _, err := c.state(ctx); err != nil {
				return err
			}
		}
		if sp := c.d.space(); sp != nil {
			return sp.InvalidateAll(ctx)
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
	if q.view == space.NoCatalog { // the store is cold, or does not answer; others may have a hit soon
		snapshot, err := c.ownCatalog(ctx)
		if err != nil {
			return err
		}
		q.view = &space.View{Snapshot: snapshot}
	}
	var tags []store.Tag
	for _, name := range relations {
		text := "TRUNCATE " + name
		statements, err := parser.Parse(text, nil)
		if err != nil || len(statements) != 1 || len(statements[0].Writes) != 1 {
			return fmt.Errorf("cachedpg: Invalidate: %q is not the name of a relation", name)
		}
		target := statements[0].Writes[0].Target
		if q.view.Snapshot.Resolve(q.session.Path, target.Schema, target.Name.Name) == nil {
			return fmt.Errorf("cachedpg: Invalidate: %s: %w", name, errNoRelation)
		}
		plan := keying.New(text, statements, q.view.Snapshot, q.session.Path)
		if slices.ContainsFunc(plan.WritesTo(), func(oid uint32) bool { return c.d.Config.Ages(q.view.Snapshot, oid) }) {
			return q.space.InvalidateAll(ctx)
		}
		tags = plan.WriteTags(tags, keying.Values{})
	}
	// What changed is committed already, so new stamps are enough.
	return q.space.Store.Release(ctx, store.NewWriter(), tags)
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
