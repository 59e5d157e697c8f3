package through

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/store"
)

// use has a registry remember that a result with one tag was read.
func (rs *Registry) use(n byte, s *backend.Session, text string, tags ...store.Tag) {
	rs.Remember(Read{SQL: text, Session: s, Relations: []uint32{1}}, store.Key{n, byte(len(text))}, tags, &store.Entry{}, true, 0)
}

func rowTag(n uint64) store.Tag { return store.Tag{Relation: 1, Kind: store.TagRow, Value: n} }

func textsOf(due []Recipe) (list []string) {
	for _, r := range due {
		list = append(list, r.SQL)
	}
	return list
}

func TestRecipesAreFoundByTagTheOneUsedLastFirst(t *testing.T) {
	var rs Registry
	s, other := &backend.Session{}, &backend.Session{}
	other.Digests[0][0] = 1
	rs.use(1, s, "one", rowTag(1))
	rs.use(2, s, "two", rowTag(2), store.Tag{Relation: 9, Kind: store.TagTable})
	rs.use(3, s, "three", rowTag(1), rowTag(2))
	rs.use(4, other, "four", rowTag(1))
	rs.use(1, s, "one", rowTag(1))
	check := func(want []string, left int, tags ...store.Tag) {
		t.Helper()
		due, n := rs.Affected(tags, s, 2, store.Now())
		if got := textsOf(due); !reflect.DeepEqual(got, want) || n != left {
			t.Errorf("got %q and %d left, want %q and %d", got, n, want, left)
		}
	}
	check(nil, 0, rowTag(3))
	check(nil, 0, store.Tag{Relation: 9, Kind: store.TagTable}) // of another strategy
	check([]string{"one", "three"}, 1, rowTag(1))               // four is of another session
	check([]string{"one", "three"}, 1, rowTag(1), rowTag(2))    // two is over the limit
	check([]string{"three"}, 0, rowTag(2))

	rs.use(3, s, "three", rowTag(7)) // the result depends on something else now
	check([]string{"one"}, 0, rowTag(1), rowTag(2))
	check([]string{"three"}, 0, rowTag(7))
	if due, left := rs.Affected([]store.Tag{rowTag(7)}, nil, 2, store.Now()); due != nil || left != 1 {
		t.Errorf("without a session got %v and %d left", due, left)
	}
}

func TestRecipesAreBounded(t *testing.T) {
	var rs Registry
	s := &backend.Session{}
	for i := range 3 * MaxRecipes {
		q := Read{SQL: "short", Session: s, Relations: []uint32{1}}
		rs.Remember(q, store.Key{1, byte(i), byte(i >> 8)}, []store.Tag{rowTag(uint64(i)), rowTag(uint64(i + 1))}, &store.Entry{}, true, 0)
	}
	if len(rs.byKey) != MaxRecipes || rs.order.Len() != MaxRecipes || len(rs.byTag) > MaxRecipes+1 {
		t.Errorf("%d recipes, %d in order, %d tags", len(rs.byKey), rs.order.Len(), len(rs.byTag))
	}
	long := strings.Repeat("x", maxRecipe/2)
	for i := range 2 * maxRecipeBytes / len(long) {
		q := Read{SQL: long, Session: s, Relations: []uint32{1}}
		rs.Remember(q, store.Key{2, byte(i), byte(i >> 8)}, []store.Tag{rowTag(1)}, &store.Entry{}, true, 0)
	}
	if rs.bytes > maxRecipeBytes || rs.bytes < maxRecipeBytes/2 {
		t.Errorf("%d bytes, the bound is %d", rs.bytes, maxRecipeBytes)
	}
	n := len(rs.byKey)
	rs.use(1, s, long+long, rowTag(1))
	many := make([]store.Tag, maxRecipe/tagBytes)
	for i := range many {
		many[i] = rowTag(uint64(i))
	}
	rs.use(3, s, "many tags", many...)
	if len(rs.byKey) > n {
		t.Error("what is too large was remembered")
	}
	rs.Affected([]store.Tag{rowTag(1)}, nil, 1, store.Now())
	for _, element := range rs.byKey {
		rs.dropLocked(element)
	}
	if rs.bytes != 0 || len(rs.byTag) != 0 || rs.order.Len() != 0 {
		t.Errorf("%d bytes, %d tags and %d recipes are left of nothing", rs.bytes, len(rs.byTag), rs.order.Len())
	}
}

type (
	userID   int64
	letters  string
	codes    []letters
	point    struct{ X, Y float64 }
	pointing struct{ p *int }
)

func TestArgumentsAreFrozen(t *testing.T) {
	n := 7
	for _, v := range []any{nil, true, 1, int16(2), uint8(3), 1.5, "text", userID(4), letters("c"), [16]byte{1}, point{1, 2},
		time.Now(), netip.MustParseAddr("::1"), sql.NullString{String: "x", Valid: true},
	} {
		got, size, ok := frozen(v)
		if !ok || !reflect.DeepEqual(got, v) || size < valueBytes {
			t.Errorf("%T: got %v, %d, %v", v, got, size, ok)
		}
	}
	for _, v := range []any{[]byte("abc"), []int{1, 2}, []string{"a", "b"}, codes{"x"}, [][2]int{{1, 2}}} {
		got, _, ok := frozen(v)
		if !ok || !reflect.DeepEqual(got, v) || reflect.TypeOf(got) != reflect.TypeOf(v) {
			t.Fatalf("%T: got %v, %v", v, got, ok)
		}
		before := reflect.ValueOf(got).Index(0).Interface()
		reflect.ValueOf(v).Index(0).SetZero()
		if after := reflect.ValueOf(got).Index(0).Interface(); after != before {
			t.Errorf("%T: the copy changed with the caller's", v)
		}
	}
	for _, v := range []any{&n, new(string), []*int{&n}, pointing{&n}, []any{1}, map[string]int{}, big.NewInt(1), [][]byte{{1}},
		&bytes.Buffer{}, func() {}, make(chan int), valuer{&n}, uintptr(1), sql.NullTime{}, // it holds a time, which holds a pointer
	} {
		if _, _, ok := frozen(v); ok {
			t.Errorf("%T was frozen", v)
		}
	}
}

type valuer struct{ n *int }

func (v valuer) Value() (driver.Value, error) { return int64(*v.n), nil }
