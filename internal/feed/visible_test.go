package feed

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// answering is a connection that answers which transactions are over.
type answering struct {
	backend.Conn
	over      string
	questions []string
}

func (a *answering) Ask(_ context.Context, sql string) (string, error) {
	a.questions = append(a.questions, sql)
	return "0 4294967400 " + a.over, nil
}

func (a *answering) Close() error { return nil }

// A commit that was decoded is not visible yet. Until it is, its tags are
// marked: neither the old entry is a hit, nor is one filled that was read before.
//
//	writer                 feed                  reader
//	commit record
//	                       decodes, asks: no
//	                       marks
//	                                             lookup: dirty
//	visible
//	                       asks: yes; releases
//	                                             lookup: miss, a new stamp
func TestACommitThatIsNotVisibleYetIsMarkedUntilItIs(t *testing.T) {
	ctx := t.Context()
	memory := store.NewMemory(store.Options{Bytes: 1 << 20})
	defer memory.Close()
	const users, orders, idIndex = 5, 6, 50
	in := &answering{}
	g := guard.Over(in)
	var applied []uint32
	fl := &follower{
		guard: g, top: 1<<32 + 90,
		snapshot: catalog.NewSnapshot(catalog.Contents{
			Types: []catalog.Type{{OID: 23, Schema: "pg_catalog", Name: "int4", Kind: 'b', Builtin: true}},
			Relations: []*catalog.Relation{{OID: users, Schema: "public", Name: "users", Kind: 'r',
				Columns: []catalog.Column{{Name: "id", Type: 23, Deterministic: true}}, Keys: []catalog.Key{{Index: idIndex, Columns: []int{0}, Primary: true}}}},
		}),
		intend: memory.Intend,
		apply: func(ctx context.Context, txs []*followed, _ int64) error {
			for _, tx := range txs {
				applied = append(applied, tx.XID)
				if err := memory.Release(ctx, tx.writer, tx.tags); err != nil {
					return err
				}
			}
			return nil
		},
	}
	row := func(id string) store.Tag {
		tags := keying.ChangedTags(nil, fl.snapshot, users, 1, func(int, string) keying.StoredValue { return keying.StoredValue{Text: id, Known: true} })
		return tags[1]
	}
	look := func(id string) (store.Outcome, store.Stamp) {
		t.Helper()
		stamps := make([]store.Stamp, 1)
		_, outcome, err := memory.Lookup(ctx, store.Key{id[0]}, []store.Tag{row(id)}, stamps)
		if err != nil {
			t.Fatal(err)
		}
		return outcome, stamps[0]
	}
	fill := func(id string, stamp store.Stamp) {
		t.Helper()
		if err := memory.Fill(ctx, store.Key{id[0]}, []store.Tag{row(id)}, []store.Stamp{stamp}, &store.Entry{}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	outcome := func(when, id string, want store.Outcome) {
		t.Helper()
		if got, _ := look(id); got != want {
			t.Errorf("%s: row %s: got %v, want %v", when, id, got, want)
		}
	}
	var old store.Stamp
	for _, id := range []string{"1", "2"} {
		_, stamp := look(id)
		fill(id, stamp)
		outcome("at first", id, store.Hit)
		if id == "1" {
			old = stamp
		}
	}

	change := func(xid uint32, id string) *followed {
		return &followed{Transaction: &walfeed.Transaction{XID: xid, Tables: []*walfeed.Table{{Relation: users, Rows: []walfeed.Row{{{Column: "id", Text: id}}}}}}}
	}
	advance := func(over string) {
		t.Helper()
		in.over = over
		if err := fl.advance(ctx); err != nil {
			t.Fatal(err)
		}
	}
	fl.pending = []*followed{change(100, "1")}
	advance("f")
	if !strings.Contains(in.questions[0], "'4294967396'::pg_catalog.xid8") {
		t.Errorf("got question %s, want one for the full id of transaction 100", in.questions[0])
	}
	outcome("decoded", "1", store.Dirty)
	outcome("decoded", "2", store.Hit)
	fill("1", old) // of a SELECT that began before
	outcome("decoded, after a late fill", "1", store.Dirty)

	// Another one that is visible does not wait for it.
	fl.pending = append(fl.pending, change(101, "2"))
	advance("ft")
	if !slices.Equal(applied, []uint32{101}) {
		t.Errorf("got %v applied, want 101", applied)
	}
	outcome("still not visible", "1", store.Dirty)
	outcome("visible", "2", store.Stale)
	advance("t")
	if !slices.Equal(applied, []uint32{101, 100}) || len(fl.pending) != 0 {
		t.Errorf("got %v applied, %d pending", applied, len(fl.pending))
	}
	got, stamp := look("1")
	if got == store.Hit || got == store.Dirty || stamp == old || stamp == 0 {
		t.Errorf("visible: got %v, stamp %d; the old one is %d", got, stamp, old)
	}
	fill("1", old)
	if got, _ := look("1"); got == store.Hit {
		t.Error("a fill with the old stamp is a hit")
	}
}

// What could not be invalidated ends the follower, and stays pending: the marks
// are not forgotten.
func TestWhatTheStoreDoesNotTakeEndsTheFollower(t *testing.T) {
	broken := errors.New("broken")
	fl := &follower{
		guard: guard.Over(&answering{over: "ft"}), top: 100, snapshot: catalog.NewSnapshot(catalog.Contents{}),
		intend: func(context.Context, store.WriterID, []store.Tag) error { return nil },
		apply:  func(context.Context, []*followed, int64) error { return broken },
	}
	for xid := range uint32(2) {
		fl.pending = append(fl.pending, &followed{Transaction: &walfeed.Transaction{XID: 100 + xid, Tables: []*walfeed.Table{{Relation: 7, All: true}}}})
	}
	if err := fl.advance(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got error %v", err)
	}
	if len(fl.pending) != 2 || !fl.pending[0].intended {
		t.Errorf("got %d pending", len(fl.pending))
	}
}

func TestTheFullIDIsTheNearest(t *testing.T) {
	tests := []struct {
		xid       uint32
		top, want uint64
	}{
		{100, 105, 100},
		{107, 105, 107},
		{5, 1<<32 + 3, 1<<32 + 5},
		{1<<32 - 2, 1<<32 + 3, 1<<32 - 2},
		{4, 3<<32 - 1, 3<<32 + 4},
	}
	for _, tt := range tests {
		if got := extend(tt.xid, tt.top); got != tt.want {
			t.Errorf("%d at %d: got %d, want %d", tt.xid, tt.top, got, tt.want)
		}
	}
}
