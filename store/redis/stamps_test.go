package redis

import (
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// TestTheStampOfARowLivesAsLongAsItsEntries: there is one for each row that was ever read.
// Those of tables and of the schema are few, and stay.
func TestTheStampOfARowLivesAsLongAsItsEntries(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.keep()
	options, err := goredis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	redis := goredis.NewClient(options)
	t.Cleanup(func() { _ = redis.Close() })
	var p *partition
	if err := u.use(t.Context(), func(in *incarnation) error { p = in.partitions[0]; return nil }); err != nil {
		t.Fatal(err)
	}
	name := func(tag store.Tag) string { return p.prefix + "s" + p.current() + string(store.AppendTag(nil, tag)) }
	life := func(name string) time.Duration { return redis.PTTL(t.Context(), name).Val() }
	within := func(what string, got, least, most time.Duration) {
		t.Helper()
		if got <= least || got > most {
			t.Errorf("%s lives %v, want more than %v, no more than %v", what, got, least, most)
		}
	}

	key, table, row := fresh()
	tags := []store.Tag{schema, table, row}
	_, _, stamps := u.lookup(key, tags...)
	within("the stamp of a row that was looked up", life(name(row)), 0, rowStampTTL)
	within("the stamp of a table", life(name(table)), time.Hour, minStampTTL)
	within("the stamp of the schema", life(name(schema)), time.Hour, minStampTTL)

	cached := func(ttl time.Duration) {
		t.Helper()
		if err := u.Fill(t.Context(), key, tags, stamps, entryOf("v"), ttl); err != nil {
			t.Fatal(err)
		}
		u.hits(key, "v", tags...)
	}
	cached(20 * time.Second)
	within("the stamp of a row whose entry lives 20 s", life(name(row)), 0, rowStampTTL)
	cached(time.Hour)
	within("the stamp of a row whose entry lives an hour", life(name(row)), life(p.entryName(p.current(), key))-time.Second, time.Hour)
	cached(20 * time.Second) // others may have been filled with it
	within("the stamp of a row of which an entry lives an hour", life(name(row)), 30*time.Minute, time.Hour)

	// It has expired: what was filled with it is stale for good, also with another that was read before.
	if redis.Del(t.Context(), name(row)).Val() != 1 {
		t.Fatal("the stamp is not where it is looked for")
	}
	_, outcome, fresh := u.lookup(key, tags...)
	if outcome != store.Stale || fresh[2] == stamps[2] || fresh[2] == 0 {
		t.Errorf("got %v and stamp %x after %x", outcome, fresh[2], stamps[2])
	}
	if err := u.Fill(t.Context(), key, tags, stamps, entryOf("old"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := u.Stored(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	u.never(key, tags...)
}
