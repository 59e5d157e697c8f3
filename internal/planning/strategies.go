package planning

import (
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
)

// applyBehind decides how a text stands to the queue.
func (sh *Shape) applyBehind(cfg config.Config, v *space.View) {
	if cfg.WritesBehind() {
		sh.Queue = behind.Of(sh.Plan, v.Snapshot, func(rel *catalog.Relation) (has, own bool) {
			p, own := cfg.PolicyOf(v.Snapshot, rel)
			return p != nil && p.Strategy == config.WriteBehind, own
		})
	}
}

// applyThrough finds the relations that results of the shape are refilled for.
func (sh *Shape) applyThrough(cfg config.Config, snapshot *catalog.Snapshot) {
	if cfg.WritesThrough() && !sh.Off {
		sh.Through = ThroughRelations(cfg, snapshot, sh.Plan.Reads())
	}
}

// ThroughRelations are those of oids that have the strategy.
func ThroughRelations(cfg config.Config, snapshot *catalog.Snapshot, oids []uint32) (through []uint32) {
	for _, oid := range oids {
		rel := snapshot.ByOID(oid)
		if rel != nil && cfg.HasStrategy(snapshot, rel, config.WriteThrough) {
			through = append(through, oid)
		}
	}
	return through
}

// excuses reports that the policies say of everything that is against caching a
// text how old it may be: tables that change where nobody here sees it. named are
// the relations of strategy "ttl".
func excuses(plan *keying.Plan, named []string) bool {
	return plan.Reason != keying.NoReason && plan.Lasting == keying.NoReason &&
		!slices.ContainsFunc(plan.Momentary, func(m keying.Moment) bool {
			return m.Reason != keying.ForeignTable && m.Reason != keying.UnloggedTable || !slices.Contains(named, m.Detail)
		})
}
