package behind

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
)

// Place is how a text stands to the queue.
type Place struct {
	Drains bool // it comes after what is queued
	Queues bool // it may be queued itself
}

// Of finds out whether a text may wait, and whether what waits must come before it. What cannot be
// seen to leave the queue's relations alone comes after the queue. has says whether a relation's
// policy has the strategy, and whether the policy is its own.
func Of(p *keying.Plan, s *catalog.Snapshot, has func(*catalog.Relation) (has, own bool)) (place Place) {
	place.Drains = p.Calls || p.Asks || p.Opaque || p.Unknown || slices.Contains(p.Kinds, parser.Begin) ||
		p.Catalog || p.Beyond
	of := func(oid uint32) bool {
		rel := s.ByOID(oid)
		if rel == nil {
			return true
		}
		yes, _ := has(rel)
		return yes
	}
	place.Drains = place.Drains || slices.ContainsFunc(p.Reads(), of) || slices.ContainsFunc(p.WritesTo(), of)
	// A foreign key makes PostgreSQL look into the other table, which the plan does
	// not show: a row may refer to one that is queued, or one that is queued to it.
	for _, oid := range p.WritesTo() {
		if rel := s.ByOID(oid); rel != nil {
			place.Drains = place.Drains || slices.ContainsFunc(rel.References, func(r catalog.Reference) bool { return of(r.Table) })
		}
	}
	for rel := range s.Relations() {
		if place.Drains || len(p.WritesTo()) == 0 {
			break
		}
		place.Drains = len(rel.References) > 0 && of(rel.OID) &&
			slices.ContainsFunc(rel.References, func(r catalog.Reference) bool { return slices.Contains(p.WritesTo(), r.Table) })
	}
	// A write of a partition that is not named itself is not one that queues.
	if p.Later && len(p.WritesTo()) == 1 {
		if rel := s.ByOID(p.WritesTo()[0]); rel != nil {
			yes, own := has(rel)
			place.Queues = yes && own
		}
	}
	return place
}
