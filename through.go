package cachedpg

import (
	"cmp"
	"container/list"
	"database/sql/driver"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/store"
)

// Strategy "write-through": a writer reads again what its commit has invalidated,
// see refill.go. An entry does not say by which SELECT it came about, so this
// process remembers that of each result that it has read of such relations.

const (
	// maxRecipes and maxRecipeBytes bound what is remembered for one database;
	// a single text with its arguments may take maxRecipe.
	maxRecipes     = 4096
	maxRecipeBytes = 4 << 20
	maxRecipe      = 16 << 10

	// maxUnread is how often in a row a result is refilled although nobody of this
	// process has read it: it costs each commit a SELECT, for nobody.
	maxUnread = 16
)

// recipe is how to make an entry again. All but the fields at the end is immutable.
type recipe struct {
	key     store.Key
	sql     string
	values  []driver.NamedValue // nothing of them is shared with the caller who gave them
	mode    pgx.QueryExecMode
	session *session
	size    int

	// Guarded by recipes.mu.
	tags    []store.Tag   // of relations with the strategy that the entry depends on
	ttl     time.Duration // that the context of the last fill asked for, or zero
	expires time.Time     // of the entry that was seen last; zero where it is not known
	used    uint64        // a count of uses, higher for a later one
	unread  int           // refills since it was used
	chosen  uint64        // by which search
}

// recipes are those of one space. They live and end with the cache.
type recipes struct {
	mu       sync.Mutex // guards the fields below
	byKey    map[store.Key]*list.Element
	byTag    map[store.Tag]map[*recipe]struct{}
	order    list.List // of *recipe, the one used last first
	bytes    int
	uses     uint64
	searches uint64
}

// writesThrough reports that the configuration has a relation of the strategy.
func (c Config) writesThrough() bool {
	return slices.ContainsFunc(c.Policies, func(p Policy) bool { return p.Strategy == strategyWriteThrough })
}

// applyThrough finds the relations that results of the shape are refilled for.
func (sh *shape) applyThrough(config Config, snapshot *catalog.Snapshot) {
	if config.writesThrough() && !sh.off {
		sh.through = throughRelations(config, snapshot, sh.plan.Reads())
	}
}

// throughRelations are those of oids that have the strategy.
func throughRelations(config Config, snapshot *catalog.Snapshot, oids []uint32) (through []uint32) {
	for _, oid := range oids {
		rel := snapshot.ByOID(oid)
		if rel != nil && slices.ContainsFunc(config.Policies, func(p Policy) bool {
			return p.Strategy == strategyWriteThrough && p.is(rel)
		}) {
			through = append(through, oid)
		}
	}
	return through
}

// remember notes that the entry of q, which depends on tags, is in the store: a
// read has found it there, or filled it with a TTL that its context asked for, or
// a refill has.
func (rs *recipes) remember(q *call, key store.Key, tags []store.Tag, entry *store.Entry, filled bool, ttl time.Duration) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	element := rs.byKey[key]
	if element == nil {
		if q.refills {
			return // it was dropped meanwhile
		}
		r := newRecipe(q, key)
		if r == nil {
			return
		}
		element = rs.addLocked(r)
	}
	r := element.Value.(*recipe)
	r.expires = entry.Expires
	switch {
	case q.refills:
		if r.unread++; r.unread > maxUnread {
			rs.dropLocked(element)
			return
		}
	default:
		rs.uses++
		r.used, r.unread = rs.uses, 0
		rs.order.MoveToFront(element)
		if filled {
			r.ttl = ttl
		}
	}
	if !r.dependsOn(tags, q.text.through) {
		rs.unlinkLocked(r)
		r.tags = r.tags[:0]
		for _, t := range tags {
			if slices.Contains(q.text.through, t.Relation) {
				r.tags = append(r.tags, t)
			}
		}
		rs.linkLocked(r)
	}
}

// dependsOn reports that the recipe is found by those of tags that count, in
// their order. A hit asks for it, so it allocates nothing.
func (r *recipe) dependsOn(tags []store.Tag, through []uint32) bool {
	n := 0
	for _, t := range tags {
		if !slices.Contains(through, t.Relation) {
			continue
		}
		if n == len(r.tags) || r.tags[n] != t {
			return false
		}
		n++
	}
	return n == len(r.tags)
}

// newRecipe returns nil for what cannot be asked again.
func newRecipe(q *call, key store.Key) *recipe {
	r := &recipe{key: key, mode: q.mode, session: q.session, size: len(q.sql)}
	r.values = make([]driver.NamedValue, len(q.values))
	for i, v := range q.values {
		value, size, ok := frozen(v.Value)
		if !ok {
			return nil
		}
		r.values[i] = driver.NamedValue{Ordinal: i + 1, Value: value}
		r.size += size
	}
	if r.size > maxRecipe {
		return nil
	}
	r.sql = strings.Clone(q.sql) // it may be a part of something large
	return r
}

const valueBytes = 64 // of a NamedValue and what an interface points to, about

// frozen returns a copy of an argument that the caller can no longer change, and
// about its size. There is none of a pointer, of what a pointer hides in, and of
// what computes its value: to read those later could give other values than
// those that are in the key.
func frozen(v any) (value any, size int, ok bool) {
	switch v := v.(type) {
	case nil, bool, int, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, time.Time, netip.Addr, netip.Prefix:
		return v, valueBytes, true
	case string:
		return strings.Clone(v), valueBytes + len(v), true
	case []byte:
		return slices.Clone(v), valueBytes + len(v), true
	case []string:
		size = valueBytes
		copied := slices.Clone(v)
		for i, s := range copied {
			copied[i] = strings.Clone(s)
			size += valueBytes + len(s)
		}
		return copied, size, true
	case driver.Valuer:
		rv := reflect.ValueOf(v)
		return v, valueBytes + int(rv.Type().Size()), flat(rv.Type())
	}
	rv := reflect.ValueOf(v)
	if t := rv.Type(); t.Kind() != reflect.Slice || rv.IsNil() {
		return v, valueBytes + int(t.Size()), flat(t)
	} else if !flat(t.Elem()) || t.Elem().Kind() == reflect.String {
		return nil, 0, false
	}
	copied := reflect.MakeSlice(rv.Type(), rv.Len(), rv.Len())
	reflect.Copy(copied, rv)
	return copied.Interface(), valueBytes + rv.Len()*int(rv.Type().Elem().Size()), true
}

// flat reports that a copy of a value of the type shares nothing that can change.
func flat(t reflect.Type) bool {
	switch k := t.Kind(); k {
	case reflect.Array:
		return flat(t.Elem())
	default:
		return k >= reflect.Bool && k <= reflect.Float64 && k != reflect.Uintptr || k == reflect.String
	}
}

func (rs *recipes) addLocked(r *recipe) *list.Element {
	if rs.byKey == nil {
		rs.byKey = make(map[store.Key]*list.Element)
		rs.byTag = make(map[store.Tag]map[*recipe]struct{})
	}
	element := rs.order.PushFront(r)
	rs.byKey[r.key] = element
	rs.bytes += r.size
	for len(rs.byKey) > maxRecipes || rs.bytes > maxRecipeBytes {
		rs.dropLocked(rs.order.Back())
	}
	return element
}

func (rs *recipes) dropLocked(element *list.Element) {
	r := rs.order.Remove(element).(*recipe)
	delete(rs.byKey, r.key)
	rs.bytes -= r.size
	rs.unlinkLocked(r)
}

func (rs *recipes) linkLocked(r *recipe) {
	for _, t := range r.tags {
		found := rs.byTag[t]
		if found == nil {
			found = make(map[*recipe]struct{})
			rs.byTag[t] = found
		}
		found[r] = struct{}{}
	}
}

func (rs *recipes) unlinkLocked(r *recipe) {
	for _, t := range r.tags {
		if delete(rs.byTag[t], r); len(rs.byTag[t]) == 0 {
			delete(rs.byTag, t)
		}
	}
}

// forget drops what cannot be made again.
func (rs *recipes) forget(key store.Key) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if element := rs.byKey[key]; element != nil {
		rs.dropLocked(element)
	}
}

// affected returns copies of the recipes that depend on one of the tags and can be
// followed in the session, those used last first, at most limit. The others are
// dropped, because a commit that invalidates the tags leaves nothing warm of them;
// so are those of entries that have expired. left counts them without the expired.
func (rs *recipes) affected(tags []store.Tag, s *session, limit int, now time.Time) (due []recipe, left int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.byKey) == 0 {
		return nil, 0
	}
	rs.searches++
	var all []*recipe
	for _, t := range tags {
		for r := range rs.byTag[t] {
			if r.chosen == rs.searches {
				continue
			}
			r.chosen = rs.searches
			switch {
			case !r.expires.IsZero() && now.After(r.expires):
				rs.dropLocked(rs.byKey[r.key])
			case s == nil || !s.same(r.session):
				rs.dropLocked(rs.byKey[r.key])
				left++
			default:
				all = append(all, r)
			}
		}
	}
	slices.SortFunc(all, func(a, b *recipe) int { return cmp.Compare(b.used, a.used) })
	n := min(len(all), limit)
	for _, r := range all[:n] {
		due = append(due, *r)
	}
	for _, r := range all[n:] {
		rs.dropLocked(rs.byKey[r.key])
		left++
	}
	return due, left
}
