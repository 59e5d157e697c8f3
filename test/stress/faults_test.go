package stress

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// lateConn delivers what is written to it a little later, and also after Close,
// as a network does.
type lateConn struct {
	net.Conn
	packets chan []byte
	once    sync.Once
}

func dialLate(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &lateConn{Conn: conn, packets: make(chan []byte, 1000)}
	go func() {
		defer conn.Close()
		for p := range c.packets {
			if rand.IntN(4) == 0 {
				time.Sleep(rand.N(5 * time.Millisecond))
			}
			_ = conn.SetWriteDeadline(time.Time{}) // the sender's is not the network's
			if _, err := conn.Write(p); err != nil {
				_ = conn.Close()
			}
		}
	}()
	return c, nil
}

func (c *lateConn) Write(p []byte) (n int, err error) {
	defer func() {
		if recover() != nil { // closed
			err = net.ErrClosed
		}
	}()
	c.packets <- slices.Clone(p)
	return len(p), nil
}

func (c *lateConn) Close() error {
	c.once.Do(func() { close(c.packets) })
	return nil
}

// unsafeStore is a store with a rule of the protocol taken out, and time for the
// race that the rule prevents.
type unsafeStore struct {
	*store.Memory
	noIntents  bool // tags are invalidated after the commit, as in plain cache-aside
	lateStamps bool // an entry gets the stamps from after its SELECT
}

func hesitate() {
	if rand.IntN(4) == 0 {
		time.Sleep(time.Millisecond)
	}
}

func (f *unsafeStore) Intend(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	if f.noIntents {
		return nil
	}
	return f.Memory.Intend(ctx, w, tags)
}

func (f *unsafeStore) Release(ctx context.Context, w store.WriterID, tags []store.Tag) error {
	hesitate()
	return f.Memory.Release(ctx, w, tags)
}

func (f *unsafeStore) Fill(ctx context.Context, key store.Key, tags []store.Tag, stamps []store.Stamp, entry *store.Entry, ttl time.Duration) error {
	hesitate()
	if f.lateStamps {
		stamps = make([]store.Stamp, len(tags))
		if _, _, err := f.Lookup(ctx, store.Key{}, tags, stamps); err != nil {
			return err
		}
	}
	return f.Memory.Fill(ctx, key, tags, stamps, entry, ttl)
}

// A checker that never finds anything proves nothing: with a rule taken out it
// must, and with the same pauses alone it must not.
func TestTheStressCheckerFindsBrokenProtocols(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		store  unsafeStore
		broken bool
	}{
		{"no intents before the commit", unsafeStore{noIntents: true}, true},
		{"stamps read after the rows", unsafeStore{lateStamps: true}, true},
		{"pauses alone", unsafeStore{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStress(t, stressKind{})
			tc.store.Memory = inside.Store(s.dbs[0]).(*store.Memory)
			inside.SetStore(s.dbs[0], &tc.store)
			inside.SetWrites(s.dbs[0], invalidation.New(&tc.store, invalidation.Options{Local: true}))
			d := 500 * time.Millisecond
			if tc.broken {
				d = time.Minute
			}
			s.run(t, d, s.used)
			s.settle(t)
			switch v := s.violated(); {
			case !tc.broken && v != "":
				t.Errorf("%s\n%s", v, s.replay(t))
			case tc.broken && !strings.Contains(v, "before") && !strings.Contains(v, "nothing under"):
				t.Errorf("nothing found: %s\n%s", v, s.replay(t))
			}
		})
	}
}
