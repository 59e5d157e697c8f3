package redis

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/store"
)

// testTimeout bounds what a test waits for.
const testTimeout = 20 * time.Second

// yes is a PostgreSQL in which nothing stands in the way of a lease.
func yes(context.Context, store.Fresh) (bool, error) { return true, nil }

// user is a process: a store and what it does with it.
type user struct {
	testing.TB
	*Store
}

func openURL(tb testing.TB, url string, o Options) *user {
	tb.Helper()
	target, err := ParseURL(url)
	if err != nil {
		tb.Fatal(err)
	}
	return openTarget(tb, target, o)
}

func openTarget(tb testing.TB, target *Target, o Options) *user {
	tb.Helper()
	if o.Identity == "" {
		o.Identity = tb.Name()
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second // the machine may be busy: only tests of time-outs want a short one
	}
	s := Open(target, o)
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return &user{tb, s}
}

// until asks again until the condition holds.
func (u *user) until(what string, condition func() bool) {
	u.Helper()
	for end := time.Now().Add(testTimeout); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			u.Fatalf("waited %v for %s", testTimeout, what)
		}
	}
}

// renew makes sure of a lease.
func (u *user) renew() {
	u.Helper()
	var err error
	u.until("a lease", func() bool {
		var live bool
		live, err = u.Renew(background, yes)
		return live && err == nil
	})
}

// keep renews until the test ends, as a process does.
func (u *user) keep() {
	u.Helper()
	u.renew()
	ctx, cancel := context.WithCancel(background)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(store.Lease / 8)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				_, _ = u.Renew(ctx, yes)
			case <-ctx.Done():
				return
			}
		}
	}()
	u.Cleanup(func() { cancel(); <-done })
}

func (u *user) lookup(key store.Key, tags ...store.Tag) (*store.Entry, store.Outcome, []store.Stamp) {
	u.Helper()
	stamps := make([]store.Stamp, len(tags))
	e, outcome, err := u.Lookup(background, key, tags, stamps)
	if err != nil {
		u.Fatalf("Lookup: %v", err)
	}
	return e, outcome, stamps
}

func (u *user) fill(key store.Key, e *store.Entry, stamps []store.Stamp, tags ...store.Tag) {
	u.Helper()
	if err := u.Fill(background, key, tags, stamps, e, time.Minute); err != nil {
		u.Fatalf("Fill: %v", err)
	}
}

func (u *user) mark(w store.WriterID, tags ...store.Tag) {
	u.Helper()
	if err := u.Intend(background, w, tags); err != nil {
		u.Fatalf("Intend: %v", err)
	}
}

func (u *user) release(w store.WriterID, tags ...store.Tag) {
	u.Helper()
	if err := u.Release(background, w, tags); err != nil {
		u.Fatalf("Release: %v", err)
	}
}

// cache makes an entry a hit.
func (u *user) cache(key store.Key, value string, tags ...store.Tag) {
	u.Helper()
	_, _, stamps := u.lookup(key, tags...)
	u.fill(key, entryOf(value), stamps, tags...)
	u.hits(key, value, tags...)
}

func (u *user) hits(key store.Key, value string, tags ...store.Tag) {
	u.Helper()
	e, outcome, _ := u.lookup(key, tags...)
	if outcome != store.Hit || e.Data != entryOf(value).Data {
		u.Fatalf("got %v %+v, want a hit of %q", outcome, e, value)
	}
}

// want checks the outcome of a lookup.
func (u *user) want(want store.Outcome, key store.Key, tags ...store.Tag) {
	u.Helper()
	if _, outcome, _ := u.lookup(key, tags...); outcome != want {
		u.Fatalf("got %v, want %v", outcome, want)
	}
}

// never checks that a lookup does not hit, whatever else it says.
func (u *user) never(key store.Key, tags ...store.Tag) {
	u.Helper()
	if e, outcome, err := u.Lookup(background, key, tags, make([]store.Stamp, len(tags))); err == nil && outcome == store.Hit {
		u.Fatalf("hit of %+v", e)
	}
}

func entryOf(value string) *store.Entry {
	return &store.Entry{Columns: []store.Column{{Name: "v", Type: 25}}, Rows: 1, Data: string(store.AppendValue(nil, []byte(value)))}
}

var schema = store.Tag{Kind: store.TagSchema}

// fresh returns a key and tags that no other test uses.
func fresh() (key store.Key, table, row store.Tag) {
	relation := rand.Uint32() | 1
	binary.BigEndian.PutUint32(key[:], relation)
	return key, store.Tag{Relation: relation, Kind: store.TagTable}, store.Tag{Relation: relation, Kind: store.TagRow, Index: 7, Value: 42}
}
