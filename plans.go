package cachedpg

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/clock"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

const (
	maxTexts  = 4096 // exact texts with their literals, per search_path
	maxShapes = 4096 // normalised texts
	// maxTextLength bounds what a text costs in the first cache; a longer one
	// is scanned again each time, which is cheap beside sending it.
	maxTextLength = 16 << 10
)

// planSet holds the plans of one connector for one catalog, search_path and way
// to read a text. Parsing costs tens of microseconds: no text, and no text that differs only
// in its literals, is parsed twice.
type planSet struct {
	view *view
	path []string

	texts  *clock.Cache[string, *planned]
	shapes *clock.Cache[string, *shape]
}

// planned is one text: its shape, and the literals that the shape leaves open.
type planned struct {
	*shape
	literals []parser.Literal
	hints    hints
}

// shape is one normalised text.
type shape struct {
	plan    *keying.Plan
	columns atomic.Pointer[[]store.Column] // of the last fill, shared by entries
	stats   *statementStats
	tables  []*account    // of those that it reads
	off     bool          // a Policy says so
	aged    []uint32      // relations of strategy "ttl", ascending
	excused bool          // their policies are all that it takes to cache it by age
	policy  string        // the strategy of its relations; the last in strategies counts
	ttl     time.Duration // of an entry, before jitter
	drains  bool          // it comes after what is queued, see behind.go
	behind  bool          // it may be queued itself
	through []uint32      // relations whose writers refill it, see through.go
	// inputs is the number of parameters once PostgreSQL has accepted the
	// text, and -1 before; a Prepare of an accepted text sends nothing.
	inputs atomic.Int32
	took   atomic.Int64 // how long the last SELECT took that was stored, a time.Duration
}

// lasts is how long the SELECT took last time, zero if nobody knows.
func (sh *shape) lasts() time.Duration { return time.Duration(sh.took.Load()) }

// planSets finds the planSet of a session in a view.
type planSets struct {
	mu   sync.Mutex // guards sets
	sets map[planKey]*planSet
}

// planKey is what a text's meaning depends on in a session.
type planKey struct {
	path string
	reading
}

const maxPaths = 256 // search_paths; a schema per tenant may have many

// noCatalog stands in where the catalog cannot be read: every name is
// unknown, so reads bypass and writes invalidate everything.
var noCatalog = &view{snapshot: catalog.NewSnapshot(catalog.Contents{})}

func (ps *planSets) of(v *view, s *session) *planSet {
	if set := s.plans.Load(); set != nil && set.view == v {
		return set
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	key := planKey{s.pathKey, s.reading}
	set := ps.sets[key]
	if set == nil || set.view != v {
		set = &planSet{
			view: v, path: s.path,
			texts:  clock.New[string, *planned](maxTexts),
			shapes: clock.New[string, *shape](maxShapes),
		}
		if ps.sets == nil || len(ps.sets) >= maxPaths {
			ps.sets = make(map[planKey]*planSet)
		}
		ps.sets[key] = set
	}
	s.plans.Store(set)
	return set
}

// plan returns what sql means. It never fails: what cannot be understood is a
// write of anything.
func (d *connector) plan(v *view, s *session, sql string) *planned {
	set := d.plans.of(v, s)
	if p, ok := set.texts.Get(sql); ok {
		return p
	}
	p := &planned{}
	text := sql
	scanned, ok := parser.Scanned{}, false
	readable := s.reads(sql)
	if readable {
		if scanned, ok = parser.Scan(sql); ok {
			text = scanned.Text
			p.literals = scanned.Literals
			p.hints = hints{bypass: scanned.Hints.Bypass, ttl: time.Duration(scanned.Hints.TTL)}
			if scanned.Hints.Err != "" {
				p.hints.bypass = true // in doubt, ask the database
			}
		}
	}
	if !ok {
		text = "\x00" + sql // cannot be a normalised text
	}
	if p.shape, ok = set.shapes.Get(text); !ok {
		p.shape = set.shapes.Add(strings.Clone(text), d.newShape(set, text, sql, scanned.Literals, readable))
	}
	if len(sql) <= maxTextLength {
		set.texts.Add(strings.Clone(sql), p)
	}
	return p
}

func (d *connector) newShape(set *planSet, text, sql string, literals []parser.Literal, readable bool) *shape {
	statements := []*parser.Statement{{Kind: parser.Opaque}} // not understood
	understood := false
	if readable {
		if parsed, err := parser.Parse(sql, literals); err == nil {
			statements, understood = parsed, true
		} else {
			statements[0] = parser.Unread(sql)
		}
	}
	d.parsed.Add(1)
	sh := &shape{
		plan:   keying.New(text, statements, set.view.snapshot, set.path),
		ttl:    d.config.TTL,
		policy: strategyCacheAside,
	}
	sh.stats = d.statements.Add(strings.Clone(text), &statementStats{text: shownText(text, understood)})
	sh.stats.reason.Store(uint32(sh.plan.Reason))
	sh.tables = d.accounts(sh.plan)
	sh.inputs.Store(-1)
	sh.applyPolicies(d.config, set.view.snapshot)
	sh.applyBehind(d.config, set.view)
	sh.applyThrough(d.config, set.view.snapshot)
	return sh
}

// applyPolicies decides whether and for how long results of the shape are
// kept: every relation must allow it, and the shortest TTL counts.
func (sh *shape) applyPolicies(config Config, snapshot *catalog.Snapshot) {
	shortest := time.Duration(0)
	var aged []string
	for _, oid := range sh.plan.Reads() {
		rel := snapshot.ByOID(oid)
		if rel == nil {
			continue
		}
		sh.off = sh.off || rel.Schema == ownSchema
		ttl := config.TTL
		if policy, _ := config.policyOf(snapshot, rel); policy != nil {
			sh.off = sh.off || policy.Strategy == strategyOff
			sh.take(*policy)
			if policy.Strategy == strategyTTL {
				sh.aged, aged = append(sh.aged, oid), append(aged, rel.Schema+"."+rel.Name)
			}
			if policy.TTL > 0 {
				ttl = policy.TTL
			}
		}
		if shortest == 0 || ttl < shortest {
			shortest = ttl
		}
	}
	if shortest > 0 {
		sh.ttl = shortest
	}
	slices.Sort(sh.aged)
	sh.aged = slices.Compact(sh.aged)
	sh.excused = excuses(sh.plan, aged)
	for _, oid := range sh.plan.WritesTo() {
		if rel := snapshot.ByOID(oid); rel != nil {
			if policy, _ := config.policyOf(snapshot, rel); policy != nil {
				sh.take(*policy)
			}
		}
	}
}

func (sh *shape) take(policy Policy) {
	if slices.Index(strategies, policy.Strategy) > slices.Index(strategies, sh.policy) {
		sh.policy = policy.Strategy
	}
}
