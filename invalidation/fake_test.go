package invalidation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

var ctx = context.Background()

func tag(n int) store.Tag { return store.Tag{Relation: uint32(n), Kind: store.TagTable} }

func tags(n ...int) (out []store.Tag) {
	for _, n := range n {
		out = append(out, tag(n))
	}
	return out
}

var errStore = errors.New("store is down")

// scripted is a store that only remembers who intends what, and does what it
// is told before.
type scripted struct {
	mu      sync.Mutex
	dirty   map[store.Tag][]store.WriterID
	calls   []string
	failing int                       // so many calls fail
	half    bool                      // a failing Intend marks the first half of its tags
	block   func(ctx context.Context) // Release waits in it
}

func newScripted() *scripted { return &scripted{dirty: map[store.Tag][]store.WriterID{}} }

func (s *scripted) Lookup(context.Context, store.Key, []store.Tag, []store.Stamp) (*store.Entry, store.Outcome, error) {
	panic("not used")
}

func (s *scripted) Fill(context.Context, store.Key, []store.Tag, []store.Stamp, *store.Entry, time.Duration) error {
	panic("not used")
}

func (s *scripted) Intend(_ context.Context, w store.WriterID, tags []store.Tag) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record("intend", tags)
	err := s.fails()
	if err != nil {
		if !s.half {
			return err
		}
		tags = tags[:(len(tags)+1)/2]
	}
	for _, t := range tags {
		if !slices.Contains(s.dirty[t], w) {
			s.dirty[t] = append(s.dirty[t], w)
		}
	}
	return err
}

func (s *scripted) Release(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	if s.block != nil {
		s.block(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record("release", tags)
	if err := s.fails(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, t := range tags {
		s.dirty[t] = slices.DeleteFunc(s.dirty[t], func(other store.WriterID) bool { return other == w })
		if len(s.dirty[t]) == 0 {
			delete(s.dirty, t)
		}
	}
	return nil
}

func (s *scripted) Close() error { return nil }

func (s *scripted) record(what string, tags []store.Tag) {
	for _, t := range tags {
		what += fmt.Sprint(" ", t.Relation)
	}
	s.calls = append(s.calls, what)
}

func (s *scripted) fails() error {
	if s.failing > 0 {
		s.failing--
		return errStore
	}
	return nil
}

// want compares the calls since the last want.
func (s *scripted) want(t *testing.T, calls ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got, want := strings.Join(s.calls, "; "), strings.Join(calls, "; "); got != want {
		t.Errorf("the store saw %q, want %q", got, want)
	}
	s.calls = nil
}

func (s *scripted) wantDirty(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dirty) != n {
		t.Errorf("%d tags are dirty, want %d", len(s.dirty), n)
	}
}
