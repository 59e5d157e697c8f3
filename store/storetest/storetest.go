// Package storetest is the contract of store.Store in executable form.
//
// A store's own tests call Run. It checks each legal case by itself, and then
// runs the protocol of package invalidation over the store and a database made
// of a few integers: under thousands of seeded interleavings, and under real
// concurrency. No read may return less than what was read or committed before it
// began. The package's own tests run the same checks over stores and protocols
// that are wrong on purpose, each of which must be found out.
package storetest

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

var seedFlag = flag.Uint64("storetest.seed", 0, "run the interleaving with this seed only")

// Run checks that the stores that open returns keep the contract. Each subtest
// opens a store of its own, which need not be empty if nothing else uses its
// keys and tags, and closes it. A store may be as small as it likes: dropping
// entries is legal, and where a check needs one to stay it tries a few times.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { s.Close() })
			c.run(t, s)
		})
	}
	RunProtocol(t, open)
}

// RunProtocol is the part of Run that runs the protocol over the store. It
// asks nothing of how long entries and stamps stay.
func RunProtocol(t *testing.T, open func(t *testing.T) store.Store) {
	t.Run("interleavings", func(t *testing.T) {
		s := open(t)
		t.Cleanup(func() { s.Close() })
		budget := time.Second
		if testing.Short() {
			budget = budget / 10
		}
		seeds := seedsFor(budget)
		if *seedFlag != 0 {
			seeds = slices.Values([]uint64{*seedFlag})
		}
		for seed := range seeds {
			if report := interleave(s, protocol{}, seed); report != "" {
				t.Fatalf("%s\nreplay: go test -run '%s' -storetest.seed=%d", report, t.Name(), seed)
			}
		}
	})
	t.Run("concurrency", func(t *testing.T) {
		s := open(t)
		t.Cleanup(func() { s.Close() })
		budget := time.Second / 2
		if testing.Short() {
			budget = budget / 10
		}
		if report := race(s, protocol{}, budget); report != "" {
			t.Fatal(report)
		}
	})
}

// seedsFor yields seeds until the time is over, at least a few.
func seedsFor(budget time.Duration) func(yield func(uint64) bool) {
	return func(yield func(uint64) bool) {
		end := time.Now().Add(budget)
		for n := 0; n < 5 || n < 2000 && time.Now().Before(end); n++ {
			if !yield(rand.Uint64() | 1) {
				return
			}
		}
	}
}

// failer is the part of testing.TB that the checks use, so that the package's
// own tests can watch them fail.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

var background = context.Background()

// relations gives each check names that no other check has used, in this
// process or, in all likelihood, in another one with the same far store.
var relations atomic.Uint32

func init() { relations.Store(rand.Uint32()) }

// names are the keys and tags of one check.
type names struct {
	relation uint32
}

func newNames() names {
	for {
		if r := relations.Add(1); r != 0 {
			return names{r}
		}
	}
}

func (n names) key(i int) (k store.Key) {
	binary.BigEndian.PutUint32(k[0:], n.relation)
	binary.BigEndian.PutUint64(k[8:], uint64(i)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(k[24:], uint64(i)+1)
	return k
}

func (n names) table() store.Tag { return store.Tag{Relation: n.relation, Kind: store.TagTable} }

func (n names) row(i int) store.Tag {
	return store.Tag{Relation: n.relation, Kind: store.TagRow, Index: n.relation + 1, Value: uint64(i)}
}

func (n names) rows() store.Tag {
	return store.Tag{Relation: n.relation, Kind: store.TagRows, Index: n.relation + 1}
}

func newWriter() (w store.WriterID) {
	binary.BigEndian.PutUint64(w[:8], rand.Uint64())
	binary.BigEndian.PutUint64(w[8:], rand.Uint64())
	return w
}

// entryOf makes an entry that holds the values, one a row.
func entryOf(values ...uint64) *store.Entry {
	var data []byte
	for _, v := range values {
		data = store.AppendValue(data, binary.BigEndian.AppendUint64(nil, v))
	}
	return &store.Entry{
		Columns: []store.Column{{Name: "v", TableOID: 1, TableColumn: 2, Type: 20, TypeSize: 8, TypeModifier: -1, Format: 1}},
		Rows:    len(values),
		Data:    string(data),
	}
}

func valuesOf(e *store.Entry) ([]uint64, error) {
	var out []uint64
	for values := e.Values(); ; {
		v, _, ok := values.Next()
		if !ok {
			break
		}
		if len(v) != 8 {
			return nil, fmt.Errorf("a value of %d bytes", len(v))
		}
		out = append(out, binary.BigEndian.Uint64([]byte(v)))
	}
	if len(out) != e.Rows {
		return nil, fmt.Errorf("%d rows, %d values", e.Rows, len(out))
	}
	return out, nil
}
