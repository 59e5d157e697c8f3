package redis

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

// Those who come while flights are under way share the next ones, and who is
// called off leaves at once.
func TestPipe(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	p := r.Proxy()
	u := openURL(t, r.URLThrough(p), Options{Timeout: 20 * time.Second})
	u.renew()
	n := u.inUse.Load().nodes[0]
	p.Cut()
	ping := func(ctx context.Context) error { return n.pipe.do(ctx, goredis.NewStatusCmd(ctx, "PING")) }
	var group sync.WaitGroup
	errs := make(chan error, 200)
	for range 150 {
		group.Go(func() { errs <- ping(background) })
	}
	waiting := func() int {
		n.pipe.mu.Lock()
		defer n.pipe.mu.Unlock()
		return len(n.pipe.waiting)
	}
	u.until("a queue", func() bool { return waiting() == 150-maxFlights })

	ctx, cancel := context.WithCancel(background)
	left := make(chan error)
	go func() { left <- ping(ctx) }()
	u.until("one more", func() bool { return waiting() == 151-maxFlights })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who left got %v", err)
	}
	before := u.SharedStats().Trips
	p.Restore()
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Errorf("got %v", err)
		}
	}
	u.until("the end of all flights", func() bool {
		n.pipe.mu.Lock()
		defer n.pipe.mu.Unlock()
		return n.pipe.flights == 0
	})
	if trips := u.SharedStats().Trips - before; trips > maxFlights+(151-maxFlights)/maxFlight+maxFlights {
		t.Errorf("%d round trips for 151 commands", trips)
	}
}

// A pipeline whose connection the server refuses gives everybody that error:
// go-redis leaves the commands without one.
func TestPipelineOfARefusedConnection(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--requirepass", "hunter2")
	s := Open(&Target{}, Options{})
	defer s.Close()
	n := s.dialNode(&goredis.Options{Addr: r.Addr(), Protocol: 2, MaxRetries: -1, DisableIdentity: true}, &incarnation{})
	defer n.client.Close()
	cmds := []goredis.Cmder{goredis.NewSliceCmd(background, "MGET", "a"), goredis.NewSliceCmd(background, "MGET", "b")}
	n.send(background, cmds)
	for _, cmd := range cmds {
		if cmd.Err() == nil {
			t.Errorf("%v has no error", cmd)
		}
	}
}

// A script that the server has forgotten is sent again.
func TestScriptsAreReloaded(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.keep()
	for range 3 {
		if err := r.Client().ScriptFlush(background).Err(); err != nil {
			t.Fatal(err)
		}
		key, table, row := fresh()
		u.cache(key, "v", schema, row)
		w := store.NewTransactionWriter(1)
		u.mark(w, row, table)
		u.want(store.Dirty, key, schema, row)
		u.release(w, row, table)
		u.want(store.Stale, key, schema, row)
	}
}
