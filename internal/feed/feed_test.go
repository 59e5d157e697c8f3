package feed

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/store"
)

var errUnreachable = errors.New("unreachable")

// unreachable is a guard.Dialler that comes to no database.
type unreachable struct{}

func (unreachable) WaysFor(backend.Identity, bool) ([]func(context.Context) (backend.Conn, error), error) {
	return nil, errUnreachable
}

func (unreachable) DialOutcome(context.Context, backend.Identity) (backend.Conn, error) {
	return nil, errUnreachable
}

func (unreachable) Replicates() *pgconn.Config { return nil }

func (unreachable) Heard(*backend.Session) {}

// Where nobody follows, a store that others follow too has its lease; one of this process alone is not read.
func TestAFeedThatReachesNobodyIsDown(t *testing.T) {
	for _, shared := range []bool{false, true} {
		f := New(Host{Dialler: unreachable{}, Shared: shared, Live: func() { t.Error("live") }})
		defer f.Close()
		if err := f.Check(t.Context()); !errors.Is(err, errUnreachable) {
			t.Errorf("shared %t: got error %v", shared, err)
		}
		if f.Down() == shared || f.Live() {
			t.Errorf("shared %t: down %t, live %t", shared, f.Down(), f.Live())
		}
		if s := f.Report(); s.Live || s.Problem != errUnreachable.Error() {
			t.Errorf("shared %t: got %+v", shared, s)
		}
		f.Forget(unreachable{})
	}
}

func TestWithoutAFeedNothingIsAmiss(t *testing.T) {
	var f *Feed
	if f.Down() || f.LeavesOut([]store.Tag{{Kind: store.TagTable, Relation: 7}}) || f.Check(t.Context()) != nil || f.CheckAll(t.Context()) != nil || f.Report() != (Stats{}) {
		t.Error("no feed is taken for one")
	}
}

// What the publication leaves out is not heard of, whatever of it is read. The schema's own tags are of no relation.
func TestWhatReadsATableThatIsLeftOut(t *testing.T) {
	f := new(Feed)
	f.out.Store(&walfeed.Out{Reading: []uint32{3, 7}})
	for _, tt := range []struct {
		tags []store.Tag
		want bool
	}{
		{nil, false},
		{[]store.Tag{{Kind: store.TagTable, Relation: 5}}, false},
		{[]store.Tag{{Kind: store.TagTable, Relation: 5}, {Kind: store.TagTable, Relation: 7}}, true},
		{[]store.Tag{{Kind: store.TagSchema, Relation: 3}, {Kind: store.TagCatalog, Relation: 3}}, false},
	} {
		if got := f.LeavesOut(tt.tags); got != tt.want {
			t.Errorf("%v: got %t", tt.tags, got)
		}
	}
}

func TestFollowWantsThePrimary(t *testing.T) {
	err := Follow(t.Context(), Source{Dialler: unreachable{}, Ask: func(context.Context) (*backend.Session, error) {
		return &backend.Session{Standby: true}, nil
	}}, nil)
	if err == nil || !strings.Contains(err.Error(), "connect to the primary") {
		t.Errorf("got error %v", err)
	}
	// A server that cannot be reached may have been replaced when it is asked for again.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := 0
	err = Follow(ctx, Source{Dialler: unreachable{}, Ask: func(context.Context) (*backend.Session, error) {
		if asked++; asked == 2 {
			cancel()
		}
		return new(backend.Session), nil
	}}, nil)
	if err != context.Canceled || asked != 2 {
		t.Errorf("got error %v after %d questions", err, asked)
	}
}

var _ guard.Dialler = unreachable{}
