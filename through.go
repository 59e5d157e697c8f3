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

	// Guarded by recipes.mu.
	size    int           // about, in bytes
	tags    []store.Tag   // of relations with the strategy that the entry depends on
	ttl     time.Duration // that the context of the last fill asked for, or zero
	expires store.Moment  // of the entry that was seen last; zero where it is not known
	used    uint64        // a count of uses, higher for a later one
	unread  int           // refills since it was used
	chosen  uint64        // by which search
}

// recipes are those of one space. They live and end with the cache. See docs/decisions/write-through.md (D66, D67, D68).
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
		if rel != nil && config.hasStrategy(snapshot, rel, strategyWriteThrough) {
			through = append(through, oid)
		}
	}
	return through
}

// remember notes that the entry of q, which depends on tags, is in the store: a
// read has found it there, or filled it, with a TTL that its context asked for; or a
// refill has filled it.
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
		r.ttl = ttl
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
		if len(r.tags) == 0 || r.size+tagBytes*len(r.tags) > maxRecipe {
			r.tags = nil
			rs.dropLocked(element)
			return
		}
		rs.linkLocked(r)
		rs.shrinkLocked()
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
	r := &recipe{key: key, mode: q.mode, session: q.session, size: recipeBytes + len(q.sql)}
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

// About what a recipe takes beside its text, an argument beside its value, and a
// tag in the two places where it is kept.
const (
	recipeBytes = 256
	valueBytes  = 64
	tagBytes    = 96
)

// frozen returns a copy of an argument that the caller can no longer change, and
// about its size. There is none of what holds a pointer: to read what that leads to
// later could give another value than the one that is in the key.
func frozen(v any) (value any, size int, ok bool) {
	switch v := v.(type) {
	case nil, time.Time, netip.Addr, netip.Prefix:
		return v, valueBytes, true
	case string:
		return strings.Clone(v), valueBytes + len(v), true // it may be a part of something large
	}
	rv := reflect.ValueOf(v)
	t := rv.Type()
	size = valueBytes + int(t.Size())
	switch {
	case t.Kind() == reflect.String:
		return v, size + rv.Len(), true
	case t.Kind() != reflect.Slice || rv.IsNil():
		return v, size, flat(t)
	case !flat(t.Elem()):
		return nil, 0, false
	}
	copied := reflect.MakeSlice(t, rv.Len(), rv.Len())
	reflect.Copy(copied, rv)
	size += rv.Len() * int(t.Elem().Size())
	if t.Elem().Kind() == reflect.String {
		for i := range rv.Len() {
			size += rv.Index(i).Len()
		}
	}
	return copied.Interface(), size, true
}

// flat reports that a copy of a value of the type shares nothing that can change.
func flat(t reflect.Type) bool {
	switch k := t.Kind(); k {
	case reflect.Array, reflect.Slice:
		return k == reflect.Array && flat(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !flat(t.Field(i).Type) {
				return false
			}
		}
		return true
	default:
		return k == reflect.String || k >= reflect.Bool && k <= reflect.Float64 && k != reflect.Uintptr
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
	return element
}

// shrinkLocked keeps the bounds.
func (rs *recipes) shrinkLocked() {
	for len(rs.byKey) > maxRecipes || rs.bytes > maxRecipeBytes {
		rs.dropLocked(rs.order.Back())
	}
}

func (rs *recipes) dropLocked(element *list.Element) {
	r := rs.order.Remove(element).(*recipe)
	delete(rs.byKey, r.key)
	rs.unlinkLocked(r)
	rs.bytes -= r.size
}

func (rs *recipes) linkLocked(r *recipe) {
	r.size += tagBytes * len(r.tags)
	rs.bytes += tagBytes * len(r.tags)
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
	r.size -= tagBytes * len(r.tags)
	rs.bytes -= tagBytes * len(r.tags)
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
func (rs *recipes) affected(tags []store.Tag, s *session, limit int, now store.Moment) (due []recipe, left int) {
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
			case r.expires != 0 && now > r.expires:
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
