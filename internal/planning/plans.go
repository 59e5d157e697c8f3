package planning

import (
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5/pgconn"

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

	maxUsers = 1024 // sessions that have plans at hand; more than a pool has

	maxPaths = 256 // search_paths at a time; a schema per tenant may have many

	// What the plans of a DB may take, in bytes: a quarter of Config.Memory
	// within these, and statistics.
	minPlanBytes, MaxPlanBytes = 4 << 20, 16 << 20
	MaxStatsBytes              = 2 << 20
)

// PlanBytes is the bound of the plans of an sql.DB, in bytes.
func PlanBytes(c *config.Config) int64 { return min(max(c.Memory/4, minPlanBytes), MaxPlanBytes) }

// planCache holds the plans of one sql.DB for one catalog. Parsing costs tens of
// microseconds: no text, and no text that differs only in its literals, is parsed twice
// while there is room.
type planCache struct {
	view   *space.View
	sets   map[planKey]*planSet // guarded by planSets.mu, as among and users
	among  map[planKey]*planSet // with temporary objects, whose names may be new each time
	users  map[*Session]bool    // that have one of sets at hand
	texts  *clock.Cache[textKey, *Text]
	shapes *clock.Cache[shapeKey, *Shape]
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
	return &planCache{view: v, sets: make(map[planKey]*planSet), among: make(map[planKey]*planSet), users: make(map[*Session]bool),
		texts: clock.New[textKey, *Text](bytes / 2), shapes: clock.New[shapeKey, *Shape](bytes / 2)}
}

// Text is one text: its shape, and the literals that the shape leaves open.
type Text struct {
	*Shape
	Literals []parser.Literal
	Hints    Hints
	Dated    bool // a literal may be a date, see dated

	returning atomic.Pointer[string] // see Returning
}

// Returning is the text, which is sql, with what keying.Plan.Returning adds to it; "" if nothing may be added.
func (p *Text) Returning(sql string) string {
	if known := p.returning.Load(); known != nil {
		return *known
	}
	text := ""
	if r := p.Plan.Returning(); r != nil {
		text, _ = parser.AppendReturning(sql, r.List, r.Own)
	}
	p.returning.Store(&text)
	return text
}

// Shape is one normalised text.
type Shape struct {
	Plan    *keying.Plan
	columns atomic.Pointer[[]store.Column] // of the last fill, shared by entries
	Stats   *Statement
	Tables  []*account    // of those that it reads
	Off     bool          // a Policy says so
	Aged    []uint32      // relations of strategy "ttl", ascending
	Excused bool          // their policies are all that it takes to cache it by age
	Policy  string        // the strategy of its relations; the last in strategies counts
	TTL     time.Duration // of an entry, before jitter
	Queue   behind.Place
	Through []uint32 // relations whose writers refill it, see package through
	// Inputs is the number of parameters once PostgreSQL has accepted the
	// text, and -1 before; a Prepare of an accepted text sends nothing.
	Inputs atomic.Int32
	Took   atomic.Int64 // how long the last SELECT took that was stored, a time.Duration
}

// Lasts is how long the SELECT took last time, zero if nobody knows.
func (sh *Shape) Lasts() time.Duration { return time.Duration(sh.Took.Load()) }

// Texts is what is known of the texts that an sql.DB is given.
type Texts struct {
	config *config.Config
	Plans  planSets
	Parsed atomic.Uint64 // texts given to the parser
	// Statements outlive the plans, which go with the catalog.
	Statements *clock.Cache[[sha256.Size]byte, *Statement] // by the digest of the normalised text
	tables     *clock.Cache[uint32, *account]              // by OID
}

// Init makes it what cfg asks for. It is called before anything else.
func (d *Texts) Init(cfg *config.Config) {
	d.config = cfg
	d.Statements, d.tables = clock.New[[sha256.Size]byte, *Statement](MaxStatsBytes), newTableAccounts()
}

// planSets finds the planSet of a session in a view.
type planSets struct {
	mu      sync.Mutex // guards the fields below
	current *planCache // of the catalog that was asked for last
	none    *planCache // of space.NoCatalog
}

// planKey is what a text's meaning depends on in a session.
type planKey struct {
	path string
	backend.Reading
	temporaries string
}

func (d *Texts) planSet(v *space.View, s *Session, among *keying.Temporaries) *planSet {
	if set := s.plans.Load(); set != nil && set.view == v && among == nil {
		return set
	}
	ps := &d.Plans
	ps.mu.Lock()
	defer ps.mu.Unlock()
	cache, bytes := &ps.current, PlanBytes(d.config)*3/4
	if v == space.NoCatalog {
		cache, bytes = &ps.none, PlanBytes(d.config)/4
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
			DropOne(sets) // its plans go when others need the room
		}
		set = &planSet{planCache: *cache, path: s.Path, temporaries: among}
		sets[key] = set
	}
	if among == nil {
		if len((*cache).users) >= maxUsers {
			(*cache).leave()
		}
		(*cache).users[s] = true
		s.plans.Store(set)
	}
	return set
}

// Forget gives the plans up.
func (ps *planSets) Forget() {
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

// DropOne makes room for one more. Which one goes is chance: of paths that are used by turns, that are more than there
// is room for, most are found then.
func DropOne[K comparable, V any](m map[K]V) {
	for k := range m {
		delete(m, k)
		return
	}
}

// Plan returns what sql means. It never fails: what cannot be understood is a
// write of anything.
func (d *Texts) Plan(v *space.View, s *Session, sql string) *Text {
	return d.PlanAmong(v, s, nil, sql)
}

// PlanAmong is plan in a session with temporary objects that the text mentions.
func (d *Texts) PlanAmong(v *space.View, s *Session, among *keying.Temporaries, sql string) *Text {
	set := d.planSet(v, s, among)
	if p, ok := set.texts.Get(textKey{set, sql}); ok {
		return p
	}
	if len(sql) <= maxTextLength {
		sql = strings.Clone(sql) // the literals are pieces of it
	}
	p := &Text{}
	text := sql
	scanned, ok := parser.Scanned{}, false
	readable := s.Reads(sql)
	if readable {
		if scanned, ok = parser.Scan(sql); ok {
			text = scanned.Text
			p.Literals = scanned.Literals
			p.Hints = Hints{Bypass: scanned.Hints.Bypass, TTL: time.Duration(scanned.Hints.TTL)}
			if scanned.Hints.Err != "" {
				p.Hints.Bypass = true // in doubt, ask the database
			}
		}
	}
	if !ok {
		text = "\x00" + sql // cannot be a normalised text
	}
	key := shapeKey{set, sha256.Sum256(unsafe.Slice(unsafe.StringData(text), len(text)))}
	if p.Shape, ok = set.shapes.Get(key); !ok {
		sh := d.newShape(set, key.digest, text, sql, scanned.Literals, readable)
		p.Shape = set.shapes.Add(key, sh, sh.bytes())
	}
	p.Dated = dated(scanned, p.Plan)
	if len(sql) <= maxTextLength {
		set.texts.Add(textKey{set, sql}, p, p.bytes(sql))
	}
	return p
}

// bytes is about the memory that the text takes beside its shape.
func (p *Text) bytes(sql string) int64 {
	bytes := mapBytes + int(unsafe.Sizeof(*p)) + len(sql) + cap(p.Literals)*int(unsafe.Sizeof(parser.Literal{}))
	if r := p.Plan.Returning(); r != nil {
		bytes += len(sql) + len(r.List) + 16
	}
	for _, l := range p.Literals {
		if l.Kind == parser.String {
			bytes += len(l.Text) // it may be decoded
		}
	}
	return int64(bytes)
}

// bytes is about the memory that the shape takes.
func (sh *Shape) bytes() int64 {
	const columns = 8 * int(unsafe.Sizeof(store.Column{})) // of its answer, which come later
	return int64(mapBytes + int(unsafe.Sizeof(*sh)) + columns + sh.Plan.Size() + 4*(len(sh.Aged)+len(sh.Through)))
}

// mapBytes is what a place in a clock.Cache takes, with its share of a map in which there is
// much coming and going.
const mapBytes = 500

func (d *Texts) newShape(set *planSet, digest [sha256.Size]byte, text, sql string, literals []parser.Literal, readable bool) *Shape {
	statements := []*parser.Statement{{Kind: parser.Opaque}} // not understood
	understood := false
	if readable {
		if parsed, err := parser.Parse(sql, literals); err == nil {
			statements, understood = parsed, true
		} else {
			statements[0] = parser.Unread(sql)
		}
	}
	d.Parsed.Add(1)
	sh := &Shape{
		Plan:   keying.NewAmong(text, statements, set.view.Snapshot, set.path, set.temporaries),
		TTL:    d.config.TTL,
		Policy: config.CacheAside,
	}
	shown := redact.Text(text, understood)
	sh.Stats = d.Statements.Add(digest, &Statement{Text: shown}, int64(mapBytes+int(unsafe.Sizeof(Statement{}))+len(shown)))
	sh.Stats.Reason.Store(uint32(sh.Plan.Reason))
	sh.Tables = d.accounts(sh.Plan)
	sh.Inputs.Store(-1)
	sh.applyPolicies(*d.config, set.view.Snapshot)
	sh.applyBehind(*d.config, set.view)
	sh.applyThrough(*d.config, set.view.Snapshot)
	return sh
}

// applyPolicies decides whether and for how long results of the shape are
// kept: every relation must allow it, and the shortest TTL counts.
func (sh *Shape) applyPolicies(cfg config.Config, snapshot *catalog.Snapshot) {
	shortest := time.Duration(0)
	var aged []string
	for _, oid := range sh.Plan.Reads() {
		rel := snapshot.ByOID(oid)
		if rel == nil {
			continue
		}
		sh.Off = sh.Off || rel.Schema == config.OwnSchema
		ttl := cfg.TTL
		if policy, _ := cfg.PolicyOf(snapshot, rel); policy != nil {
			sh.Off = sh.Off || policy.Strategy == config.StrategyOff
			sh.take(*policy)
			if policy.Strategy == config.TTLStrategy {
				sh.Aged, aged = append(sh.Aged, oid), append(aged, rel.Schema+"."+rel.Name)
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
		sh.TTL = shortest
	}
	slices.Sort(sh.Aged)
	sh.Aged = slices.Compact(sh.Aged)
	sh.Excused = excuses(sh.Plan, aged)
	for _, oid := range sh.Plan.WritesTo() {
		if rel := snapshot.ByOID(oid); rel != nil {
			if policy, _ := cfg.PolicyOf(snapshot, rel); policy != nil {
				sh.take(*policy)
			}
		}
	}
}

func (sh *Shape) take(policy config.Policy) {
	if config.Follows(policy.Strategy, sh.Policy) {
		sh.Policy = policy.Strategy
	}
}

// ColumnsOf describes the columns; entries of one shape share the description.
func (sh *Shape) ColumnsOf(fields []pgconn.FieldDescription) []store.Column {
	columns := make([]store.Column, len(fields))
	for i, f := range fields {
		columns[i] = store.Column{Name: f.Name, TableOID: f.TableOID, TableColumn: f.TableAttributeNumber,
			Type: f.DataTypeOID, TypeSize: f.DataTypeSize, TypeModifier: f.TypeModifier, Format: f.Format}
	}
	if last := sh.columns.Load(); last != nil && sameColumns(*last, columns) {
		return *last
	}
	for i := range columns {
		columns[i].Name = strings.Clone(columns[i].Name)
	}
	sh.columns.Store(&columns)
	return columns
}

func sameColumns(a, b []store.Column) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
