package through

import (
	"cmp"
	"container/list"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/store"
)

// Strategy "write-through": a writer reads again what its commit has invalidated,
// see internal/core/refill.go. An entry does not say by which SELECT it came about, so this
// process remembers that of each result that it has read of such relations.

const (
	// MaxRecipes and maxRecipeBytes bound what is remembered for one database;
	// a single text with its arguments may take maxRecipe.
	MaxRecipes     = 4096
	maxRecipeBytes = 4 << 20
	maxRecipe      = 16 << 10

	// MaxUnread is how often in a row a result is refilled although nobody of this
	// process has read it: it costs each commit a SELECT, for nobody.
	MaxUnread = 16
)

// Recipe is how to make an entry again. All but the fields at the end is immutable.
type Recipe struct {
	Key     store.Key
	SQL     string
	Values  []backend.Arg // nothing of them is shared with the caller who gave them
	Mode    pgx.QueryExecMode
	Session *backend.Session

	// Guarded by Registry.mu.
	size    int           // about, in bytes
	tags    []store.Tag   // of relations with the strategy that the entry depends on
	TTL     time.Duration // that the context of the last fill asked for, or zero
	expires store.Moment  // of the entry that was seen last; zero where it is not known
	used    uint64        // a count of uses, higher for a later one
	unread  int           // refills since it was used
	chosen  uint64        // by which search
}

// Registry holds the recipes of one space. The zero value is empty. See docs/decisions/write-through.md (D66, D67, D68).
type Registry struct {
	mu       sync.Mutex // guards the fields below
	byKey    map[store.Key]*list.Element
	byTag    map[store.Tag]map[*Recipe]struct{}
	order    list.List // of *recipe, the one used last first
	bytes    int
	uses     uint64
	searches uint64
}

// Read is a result that was read, as far as it is remembered how to read it again.
type Read struct {
	SQL       string
	Values    []backend.Arg
	Mode      pgx.QueryExecMode
	Session   *backend.Session
	Relations []uint32 // of those that it reads, those with the strategy
	Refills   bool     // a refill has read it, and nobody else
}

// Remember notes that the entry of what was read, which depends on tags, is in the store: a
// read has found it there, or filled it, with a TTL that its context asked for; or a
// refill has filled it.
func (rs *Registry) Remember(q Read, key store.Key, tags []store.Tag, entry *store.Entry, filled bool, ttl time.Duration) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	element := rs.byKey[key]
	if element == nil {
		if q.Refills {
			return // it was dropped meanwhile
		}
		r := newRecipe(q, key)
		if r == nil {
			return
		}
		r.TTL = ttl
		element = rs.addLocked(r)
	}
	r := element.Value.(*Recipe)
	r.expires = entry.Expires
	switch {
	case q.Refills:
		if r.unread++; r.unread > MaxUnread {
			rs.dropLocked(element)
			return
		}
	default:
		rs.uses++
		r.used, r.unread = rs.uses, 0
		rs.order.MoveToFront(element)
		if filled {
			r.TTL = ttl
		}
	}
	if !r.dependsOn(tags, q.Relations) {
		rs.unlinkLocked(r)
		r.tags = r.tags[:0]
		for _, t := range tags {
			if slices.Contains(q.Relations, t.Relation) {
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
func (r *Recipe) dependsOn(tags []store.Tag, through []uint32) bool {
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
func newRecipe(q Read, key store.Key) *Recipe {
	r := &Recipe{Key: key, Mode: q.Mode, Session: q.Session, size: recipeBytes + len(q.SQL)}
	r.Values = make([]backend.Arg, len(q.Values))
	for i, v := range q.Values {
		value, size, ok := frozen(v.Value)
		if !ok {
			return nil
		}
		r.Values[i] = backend.Arg{Ordinal: i + 1, Value: value}
		r.size += size
	}
	if r.size > maxRecipe {
		return nil
	}
	r.SQL = strings.Clone(q.SQL) // it may be a part of something large
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

func (rs *Registry) addLocked(r *Recipe) *list.Element {
	if rs.byKey == nil {
		rs.byKey = make(map[store.Key]*list.Element)
		rs.byTag = make(map[store.Tag]map[*Recipe]struct{})
	}
	element := rs.order.PushFront(r)
	rs.byKey[r.Key] = element
	rs.bytes += r.size
	return element
}

// shrinkLocked keeps the bounds.
func (rs *Registry) shrinkLocked() {
	for len(rs.byKey) > MaxRecipes || rs.bytes > maxRecipeBytes {
		rs.dropLocked(rs.order.Back())
	}
}

func (rs *Registry) dropLocked(element *list.Element) {
	r := rs.order.Remove(element).(*Recipe)
	delete(rs.byKey, r.Key)
	rs.unlinkLocked(r)
	rs.bytes -= r.size
}

func (rs *Registry) linkLocked(r *Recipe) {
	r.size += tagBytes * len(r.tags)
	rs.bytes += tagBytes * len(r.tags)
	for _, t := range r.tags {
		found := rs.byTag[t]
		if found == nil {
			found = make(map[*Recipe]struct{})
			rs.byTag[t] = found
		}
		found[r] = struct{}{}
	}
}

func (rs *Registry) unlinkLocked(r *Recipe) {
	r.size -= tagBytes * len(r.tags)
	rs.bytes -= tagBytes * len(r.tags)
	for _, t := range r.tags {
		if delete(rs.byTag[t], r); len(rs.byTag[t]) == 0 {
			delete(rs.byTag, t)
		}
	}
}

// Forget drops what cannot be made again.
func (rs *Registry) Forget(key store.Key) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if element := rs.byKey[key]; element != nil {
		rs.dropLocked(element)
	}
}

// Affected returns copies of the recipes that depend on one of the tags and can be
// followed in the session, those used last first, at most limit. The others are
// dropped, because a commit that invalidates the tags leaves nothing warm of them;
// so are those of entries that have expired. left counts them without the expired.
func (rs *Registry) Affected(tags []store.Tag, s *backend.Session, limit int, now store.Moment) (due []Recipe, left int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.byKey) == 0 {
		return nil, 0
	}
	rs.searches++
	var all []*Recipe
	for _, t := range tags {
		for r := range rs.byTag[t] {
			if r.chosen == rs.searches {
				continue
			}
			r.chosen = rs.searches
			switch {
			case r.expires != 0 && now > r.expires:
				rs.dropLocked(rs.byKey[r.Key])
			case s == nil || !s.Same(r.Session):
				rs.dropLocked(rs.byKey[r.Key])
				left++
			default:
				all = append(all, r)
			}
		}
	}
	slices.SortFunc(all, func(a, b *Recipe) int { return cmp.Compare(b.used, a.used) })
	n := min(len(all), limit)
	for _, r := range all[:n] {
		due = append(due, *r)
	}
	for _, r := range all[n:] {
		rs.dropLocked(rs.byKey[r.Key])
		left++
	}
	return due, left
}

// Expires is when the entry ends that is made again by a text with this first argument, as it is written; ok is false if
// none is known.
func (rs *Registry) Expires(text, argument string) (at store.Moment, ok bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for element := rs.order.Front(); element != nil; element = element.Next() {
		if r := element.Value.(*Recipe); r.SQL == text && fmt.Sprint(r.Values[0].Value) == argument {
			at, ok = r.expires, true
		}
	}
	return at, ok
}
