package core

import (
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/clock"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/redact"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

const (
	// maxTextLength bounds the texts that are kept as they were sent; a longer one
	// is scanned again each time, which is cheap beside sending it.
	maxTextLength = 16 << 10

	maxPaths = 256 // search_paths at a time; a schema per tenant may have many

	// What the plans of a connector may take, in bytes: a quarter of Config.Memory
	// within these, and statistics.
	minPlanBytes, maxPlanBytes = 4 << 20, 16 << 20
	maxStatsBytes              = 2 << 20
)

// planBytes is the bound of a connector's plans, in bytes.
func planBytes(c *config.Config) int64 { return min(max(c.Memory/4, minPlanBytes), maxPlanBytes) }

// planCache holds the plans of one connector for one catalog. Parsing costs tens of
// microseconds: no text, and no text that differs only in its literals, is parsed twice
// while there is room.
type planCache struct {
	view   *space.View
	sets   map[planKey]*planSet // guarded by planSets.mu, as among and users
	among  map[planKey]*planSet // with temporary objects, whose names may be new each time
	users  map[*session]bool    // that have one of sets at hand
	texts  *clock.Cache[textKey, *planned]
	shapes *clock.Cache[shapeKey, *shape]
}

// planSet is what the plans of one search_path and way to read a text have in common, and of the
// temporary objects that they mention.
type planSet struct {
	*planCache
	path        []string
	temporaries *keying.Temporaries
}

// textKey is a text as it was sent.
type textKey struct {
	set  *planSet
	text string
}

// shapeKey is a normalised text, which may be long, by its digest.
type shapeKey struct {
	set    *planSet
	digest [sha256.Size]byte
}

func newPlanCache(v *space.View, bytes int64) *planCache {
	return &planCache{view: v, sets: make(map[planKey]*planSet), among: make(map[planKey]*planSet), users: make(map[*session]bool),
		texts: clock.New[textKey, *planned](bytes / 2), shapes: clock.New[shapeKey, *shape](bytes / 2)}
}

// planned is one text: its shape, and the literals that the shape leaves open.
type planned struct {
	*shape
	literals []parser.Literal
	hints    hints
	dated    bool // a literal may be a date, see dated
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
	queue   behind.Place
	through []uint32 // relations whose writers refill it, see through.go
	// inputs is the number of parameters once PostgreSQL has accepted the
	// text, and -1 before; a Prepare of an accepted text sends nothing.
	inputs atomic.Int32
	took   atomic.Int64 // how long the last SELECT took that was stored, a time.Duration
}

// lasts is how long the SELECT took last time, zero if nobody knows.
func (sh *shape) lasts() time.Duration { return time.Duration(sh.took.Load()) }

// planSets finds the planSet of a session in a view.
type planSets struct {
	mu      sync.Mutex // guards the fields below
	current *planCache // of the catalog that was asked for last
	none    *planCache // of noCatalog
}

// planKey is what a text's meaning depends on in a session.
type planKey struct {
	path string
	backend.Reading
	temporaries string
}

func (d *DB) planSet(v *space.View, s *session, among *keying.Temporaries) *planSet {
	if set := s.plans.Load(); set != nil && set.view == v && among == nil {
		return set
	}
	ps := &d.plans
	ps.mu.Lock()
	defer ps.mu.Unlock()
	cache, bytes := &ps.current, planBytes(&d.Config)*3/4
	if v == space.NoCatalog {
		cache, bytes = &ps.none, planBytes(&d.Config)/4
	}
	if *cache == nil || (*cache).view != v {
		(*cache).leave()
		*cache = newPlanCache(v, bytes)
	}
	key := planKey{s.PathKey, s.Reading, among.String()}
	sets := (*cache).sets
	if among != nil {
		sets = (*cache).among
	}
	set := sets[key]
	if set == nil {
		if len(sets) >= maxPaths {
			dropOne(sets) // its plans go when others need the room
		}
		set = &planSet{planCache: *cache, path: s.Path, temporaries: among}
		sets[key] = set
	}
	if among == nil {
		if len((*cache).users) >= maxSessions {
			(*cache).leave()
		}
		(*cache).users[s] = true
		s.plans.Store(set)
	}
	return set
}

// forget gives the plans up.
func (ps *planSets) forget() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.current.leave()
	ps.none.leave()
	ps.current, ps.none = nil, nil
}

// leave takes the plans out of the hands of sessions, which may not be used for long: with them
// goes the catalog that they are of.
func (p *planCache) leave() {
	if p == nil {
		return
	}
	for s := range p.users {
		if set := s.plans.Load(); set != nil && set.planCache == p {
			s.plans.CompareAndSwap(set, nil)
		}
	}
	clear(p.users)
}

// dropOne makes room for one more. Which one goes is chance: of paths that are used by turns, that are more than there
// is room for, most are found then.
func dropOne[K comparable, V any](m map[K]V) {
	for k := range m {
		delete(m, k)
		return
	}
}

// plan returns what sql means. It never fails: what cannot be understood is a
// write of anything.
func (d *DB) plan(v *space.View, s *session, sql string) *planned {
	return d.planAmong(v, s, nil, sql)
}

// planAmong is plan in a session with temporary objects that the text mentions.
func (d *DB) planAmong(v *space.View, s *session, among *keying.Temporaries, sql string) *planned {
	set := d.planSet(v, s, among)
	if p, ok := set.texts.Get(textKey{set, sql}); ok {
		return p
	}
	if len(sql) <= maxTextLength {
		sql = strings.Clone(sql) // the literals are pieces of it
	}
	p := &planned{}
	text := sql
	scanned, ok := parser.Scanned{}, false
	readable := s.Reads(sql)
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
	key := shapeKey{set, sha256.Sum256(unsafe.Slice(unsafe.StringData(text), len(text)))}
	if p.shape, ok = set.shapes.Get(key); !ok {
		sh := d.newShape(set, key.digest, text, sql, scanned.Literals, readable)
		p.shape = set.shapes.Add(key, sh, sh.bytes())
	}
	p.dated = dated(scanned, p.plan)
	if len(sql) <= maxTextLength {
		set.texts.Add(textKey{set, sql}, p, p.bytes(sql))
	}
	return p
}

// bytes is about the memory that the text takes beside its shape.
func (p *planned) bytes(sql string) int64 {
	bytes := mapBytes + int(unsafe.Sizeof(*p)) + len(sql) + cap(p.literals)*int(unsafe.Sizeof(parser.Literal{}))
	for _, l := range p.literals {
		if l.Kind == parser.String {
			bytes += len(l.Text) // it may be decoded
		}
	}
	return int64(bytes)
}

// bytes is about the memory that the shape takes.
func (sh *shape) bytes() int64 {
	const columns = 8 * int(unsafe.Sizeof(store.Column{})) // of its answer, which come later
	return int64(mapBytes + int(unsafe.Sizeof(*sh)) + columns + sh.plan.Size() + 4*(len(sh.aged)+len(sh.through)))
}

// mapBytes is what a place in a clock.Cache takes, with its share of a map in which there is
// much coming and going.
const mapBytes = 500

func (d *DB) newShape(set *planSet, digest [sha256.Size]byte, text, sql string, literals []parser.Literal, readable bool) *shape {
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
		plan:   keying.NewAmong(text, statements, set.view.Snapshot, set.path, set.temporaries),
		ttl:    d.Config.TTL,
		policy: config.CacheAside,
	}
	shown := redact.Text(text, understood)
	sh.stats = d.statements.Add(digest, &statementStats{text: shown}, int64(mapBytes+int(unsafe.Sizeof(statementStats{}))+len(shown)))
	sh.stats.reason.Store(uint32(sh.plan.Reason))
	sh.tables = d.accounts(sh.plan)
	sh.inputs.Store(-1)
	sh.applyPolicies(d.Config, set.view.Snapshot)
	sh.applyBehind(d.Config, set.view)
	sh.applyThrough(d.Config, set.view.Snapshot)
	return sh
}

// applyPolicies decides whether and for how long results of the shape are
// kept: every relation must allow it, and the shortest TTL counts.
func (sh *shape) applyPolicies(cfg config.Config, snapshot *catalog.Snapshot) {
	shortest := time.Duration(0)
	var aged []string
	for _, oid := range sh.plan.Reads() {
		rel := snapshot.ByOID(oid)
		if rel == nil {
			continue
		}
		sh.off = sh.off || rel.Schema == ownSchema
		ttl := cfg.TTL
		if policy, _ := cfg.PolicyOf(snapshot, rel); policy != nil {
			sh.off = sh.off || policy.Strategy == config.StrategyOff
			sh.take(*policy)
			if policy.Strategy == config.TTLStrategy {
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
			if policy, _ := cfg.PolicyOf(snapshot, rel); policy != nil {
				sh.take(*policy)
			}
		}
	}
}

func (sh *shape) take(policy config.Policy) {
	if config.Follows(policy.Strategy, sh.policy) {
		sh.policy = policy.Strategy
	}
}
