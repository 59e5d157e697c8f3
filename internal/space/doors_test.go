package space

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"testing"

	"github.com/cachedpg/cachedpg/store"
)

// listed is a store that keeps a list of doors and refuses sweeps.
type listed struct {
	store.Closable
	list *store.Doors
	made int
}

func (l *listed) Doors() *store.Doors { return l.list }

func (l *listed) SetDoors(_ context.Context, version string, relations map[uint32]store.Door) (bool, error) {
	if l.list != nil && version != l.list.Version {
		return false, nil
	}
	l.made++
	l.list = &store.Doors{Version: strconv.Itoa(l.made), Relations: maps.Clone(relations)}
	return true, nil
}

func (l *listed) Sweep(context.Context, []uint32) error { return errors.New("NOPERM") }

// What the traffic of a window says to the doors.
func TestTrafficMovesDoors(t *testing.T) {
	for _, tc := range []struct {
		name       string
		door, want store.Door
		traffic    store.Traffic
	}{
		{"written alone", store.Open, store.Closing, store.Traffic{Commits: closeCommits}},
		{"hardly read", store.Open, store.Closing, store.Traffic{Commits: 1000, Lookups: 1000/closeRatio - 1}},
		{"read enough", store.Open, store.Open, store.Traffic{Commits: 1000, Lookups: 1000 / closeRatio}},
		{"seldom written", store.Open, store.Open, store.Traffic{Commits: closeCommits - 1}},
		{"closed, and read less than written", store.Closed, store.Closed, store.Traffic{Commits: 1000, Lookups: 999}},
		{"closed, and read as often", store.Closed, store.Opening, store.Traffic{Commits: 1000, Lookups: 1000}},
		{"closed, and not written any more", store.Closed, store.Opening, store.Traffic{Lookups: 1}},
		{"closed, and idle", store.Closed, store.Closed, store.Traffic{}},
	} {
		l := &listed{}
		d := &Doorkeeper{Store: l}
		if tc.door != store.Open {
			d.set(t.Context(), "", map[uint32]store.Door{7: tc.door})
		}
		d.decide(t.Context(), map[uint32]store.Traffic{7: tc.traffic})
		if got := l.list.Of(7); got != tc.want {
			t.Errorf("%s: door %d, want %d", tc.name, got, tc.want)
		}
	}
}

// Who must not SCAN cannot close anything, and tries no more for a while.
func TestATableWhoseStampsCannotBeDroppedStaysOpen(t *testing.T) {
	l := &listed{}
	d := &Doorkeeper{Store: l, keeper: &Keeper{life: t.Context()}}
	window := map[uint32]store.Traffic{7: {Commits: closeCommits}}
	d.decide(t.Context(), window)
	d.work(t.Context())
	d.rest()
	d.work(t.Context())
	if got := l.list.Of(7); got != store.Open {
		t.Fatalf("door %d, want it open", got)
	}
	if d.decide(t.Context(), window); l.list.Of(7) != store.Open {
		t.Error("it is closing again at once")
	}
}
