package redis

import (
	"bytes"
	"math"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// Whatever is found under an entry's name is a hit of the entry or a miss.
func TestHostileEntries(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.keep()
	key, table, row := fresh()
	u.cache(key, "v", schema, row)
	p := u.inUse.Load().partitions[0]
	name := p.entryName(p.current(), key)
	good := []byte(r.Client().Get(background, name).Val())
	garbage := u.SharedStats().Garbage
	put := func(value []byte) {
		if err := r.Client().Set(background, name, value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range good {
		for _, bad := range [][]byte{good[:i], append(bytes.Clone(good[:i]), good[i]^0x40), append(bytes.Clone(good), good[:i]...)} {
			if len(bad) == i+1 {
				bad = append(bad, good[i+1:]...)
			}
			if bytes.Equal(bad, good) {
				continue
			}
			put(bad)
			if e, outcome, _ := u.lookup(key, schema, row, table); outcome == store.Hit {
				t.Fatalf("hit of %+v from %q", e, bad)
			}
		}
	}
	if u.SharedStats().Garbage == garbage {
		t.Error("nothing was counted as garbage")
	}
	put(good)
	u.hits(key, "v", schema, row)

	// Things of another type under our names are no answer that could be used.
	for _, break_ := range []func(*goredis.Client) error{
		func(c *goredis.Client) error { c.Del(background, name); return c.LPush(background, name, "x").Err() },
		func(c *goredis.Client) error {
			c.Del(background, p.keys[0])
			return c.Set(background, p.keys[0], "x", 0).Err()
		},
		func(c *goredis.Client) error {
			c.Del(background, p.lease)
			return c.LPush(background, p.lease, "x").Err()
		},
	} {
		if err := break_(r.Client()); err != nil {
			t.Fatal(err)
		}
		u.never(key, schema, row)
		_ = u.Intend(background, store.NewWriter(), []store.Tag{table})
		_, _ = u.Renew(background, yes)
		u.never(key, schema, row)
	}
}

// An entry that another key, or another one's secret, sealed is no entry.
func TestSealedEntries(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	open := func(keys ...Key) *user {
		target, err := ParseURL(r.URL())
		if err != nil {
			t.Fatal(err)
		}
		if keys != nil {
			if target.Sealer, err = NewSealer(keys); err != nil {
				t.Fatal(err)
			}
		}
		return openTarget(t, target, Options{})
	}
	one, two, impostor := Key{1, make([]byte, 32)}, Key{2, bytes.Repeat([]byte{2}, 16)}, Key{1, bytes.Repeat([]byte{1}, 32)}
	u, rotated, plain, other := open(one), open(two, one), open(), open(impostor)
	u.keep()
	key, table, row := fresh()
	u.cache(key, "a secret", schema, row)
	rotated.hits(key, "a secret", schema, row)
	plain.never(key, schema, row)
	other.never(key, schema, row)
	if plain.SharedStats().Garbage != 1 || other.SharedStats().Garbage != 1 {
		t.Error("an entry that cannot be read is not counted")
	}
	p := u.inUse.Load().partitions[0]
	value := r.Client().Get(background, p.entryName(p.current(), key)).Val()
	if strings.Contains(value, "a secret") {
		t.Error("the entry is in clear")
	}

	// Passed off as that of another key, and with another's stamps.
	another, _, _ := fresh()
	r.Client().Set(background, p.entryName(p.current(), another), value, 0)
	u.never(another, schema, row)
	_, _, stamps := u.lookup(store.Key{}, table)
	forged := append([]byte{entryFormat, 0, 1}, appendStamp(store.AppendTag(nil, table), stamps[0])...)
	_, body, _ := parseEntry(value)
	r.Client().Set(background, p.entryName(p.current(), key), append(forged, body...), 0)
	u.never(key, table)

	// And what is not encrypted is not taken for what is.
	plain.cache(another, "clear", table)
	u.never(another, table)
}

func TestEntryRoundTrip(t *testing.T) {
	t.Parallel()
	_, table, row := fresh()
	tags, stamps := []store.Tag{schema, row, table}, []store.Stamp{1, math.MaxUint64, 3}
	value := string(encodeEntry(entryOf("v"), tags, stamps, nil, "name"))
	deps, body, ok := parseEntry(value)
	if !ok || len(deps) != 3*depBytes {
		t.Fatalf("%v, %d bytes of tags", ok, len(deps))
	}
	for i := range tags {
		if d := deps[i*depBytes:]; d[:store.TagBytes] != encodeTag(tags[i]) || stampOf(d[store.TagBytes:depBytes]) != stamps[i] {
			t.Errorf("tag %d: %x", i, d[:depBytes])
		}
	}
	e, err := decodeEntry(value, body, nil, "name")
	if err != nil || e.Data != entryOf("v").Data {
		t.Errorf("%+v, %v", e, err)
	}
}

// FuzzEntry: any bytes under an entry's name. What hits has the stamps that stand.
func FuzzEntry(f *testing.F) {
	tag := store.Tag{Relation: 7, Kind: store.TagRow, Index: 8, Value: 9}
	tags, stamps := []store.Tag{schema, tag}, []store.Stamp{3, 4}
	s := Open(&Target{}, Options{})
	f.Cleanup(func() { s.Close() })
	sealer, err := NewSealer([]Key{{ID: 1, Secret: make([]byte, 16)}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{
		nil, // no entry
		{entryFormat},
		{entryFormat, 0, 0},       // no tags and no body
		{entryFormat, 0xff, 0xff}, // more tags than bytes
		{entryFormat + 1, 0, 0},   // of another version
		encodeEntry(entryOf("v"), tags, stamps, nil, "e"),                // valid
		encodeEntry(entryOf("v"), tags, []store.Stamp{3, 5}, nil, "e"),   // stale
		encodeEntry(entryOf("v"), tags[1:], stamps[1:], nil, "e"),        // of fewer tags
		encodeEntry(entryOf("v"), tags, stamps, sealer, "e"),             // sealed
		encodeEntry(&store.Entry{Rows: 1 << 20}, tags, stamps, nil, "e"), // rows without columns
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, value []byte, sealed bool) {
		s.target.Sealer = nil
		if sealed {
			s.target.Sealer = sealer
		}
		p := &partition{node: &node{store: s}}
		q := question{tags: tags, parts: []part{{partition: p, entry: "e"}}, slots: make([]slot, 2), found: string(value)}
		for i := range q.slots {
			q.slots[i] = slot{"prefix" + encodeTag(tags[i]), string(appendStamp(nil, stamps[i]))}
		}
		e, outcome := q.entry()
		if (e != nil) != (outcome == store.Hit) {
			t.Fatalf("%v with %v", outcome, e)
		}
		if outcome != store.Hit {
			return
		}
		if !e.Valid() {
			t.Errorf("hit of %+v", e)
		}
		q.slots[1].stamp = string(appendStamp(nil, 5))
		q.slots[0].stamp = string(appendStamp(nil, 5))
		if deps, _, _ := parseEntry(string(value)); deps != "" {
			if _, outcome := q.entry(); outcome == store.Hit {
				t.Errorf("hit though the stamps moved")
			}
		}
	})
}
