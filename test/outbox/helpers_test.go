package outbox

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// posting is a story in which every commit writes an event.
func posting(t *testing.T, story func(f *harness.Fixture), keys ...string) {
	t.Helper()
	t.Parallel()
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People,
		append(keys, "cache_store="+pgtest.Redis(t), "cache_outbox=always")...)
	outside.SetUpOutbox(f)
	story(f)
}

// runRelay runs a relay on the DB of a via until stop is called or the test ends.
func runRelay(v harness.Via, o cachedpg.RelayOptions) (stop func()) {
	v.F.Helper()
	return v.Meanwhile("the relay", func(ctx context.Context) error { return cachedpg.Relay(ctx, v.DB, o) })
}

// lockRelay is the object of the advisory lock by which a relay shows that it is there.
const lockRelay = 0x6564706b

// relays returns when so many relays are there that can reach the store.
func relays(f *harness.Fixture, n int) {
	f.Helper()
	f.Until("the relays", func() bool {
		return f.Count("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"+
			" WHERE datname = current_database()) AND objid = $1::int8", int64(lockRelay)) == n
	})
}

// encodeTags is an SQL literal of the column tags.
func encodeTags(tags []store.Tag) string {
	var b []byte
	for _, tag := range tags {
		b = store.AppendTag(b, tag)
	}
	return fmt.Sprintf(`'\x%x'`, b)
}

// recorder is a sink that remembers what it got.
type recorder struct {
	before func(ctx context.Context, events []invalidation.Event) error // may be nil

	mu     sync.Mutex // guards the fields below
	events []invalidation.Event
}

func (r *recorder) Send(ctx context.Context, events []invalidation.Event) error {
	if r.before != nil {
		if err := r.before(ctx, events); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		e.Tags = slices.Clone(e.Tags)
		r.events = append(r.events, e)
	}
	return nil
}

func (r *recorder) all() []invalidation.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}
