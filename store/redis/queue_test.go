package redis

import (
	"errors"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
)

func (u *user) enqueue(applied string, tags ...store.Tag) (wait time.Duration) {
	u.Helper()
	_, wait, err := u.Enqueue(background, Write{Tags: tags, Payload: "payload", Server: testServer, Applied: applied, Max: 1_000_000})
	if err != nil {
		u.Fatal(err)
	}
	return wait
}

const testServer = "20260102030405000000"

// own has the test's server own the queue.
func (u *user) own() {
	u.Helper()
	if c, err := u.Claim(background, Owner{Server: testServer, Timeline: "00000001"}); err != nil || !c.Owns {
		u.Fatalf("%+v, %v", c, err)
	}
}

func (u *user) last() string {
	u.Helper()
	id, _, err := u.Last(background)
	if err != nil {
		u.Fatal(err)
	}
	return id
}

// I16: who queues a write on the successor of a server says so when nobody can hit on
// that any more.
func TestAQueuedWriteOfAYoungEpochIsNotToldAtOnce(t *testing.T) {
	t.Parallel()
	a := redistest.Start(t)
	b := redistest.Replica(t, a)
	b.Promote()
	u := openURL(t, b.URL(), Options{})
	u.own()
	_, table, _ := fresh()
	if wait := u.enqueue("", table); wait != store.Lease {
		t.Errorf("without an epoch: %v", wait)
	}
	u.renew()
	wait := u.enqueue("", table)
	if wait <= 0 || wait > store.Lease {
		t.Errorf("after a promotion: %v", wait)
	}
	u.until("the end of the wait", func() bool { return u.enqueue("", table) == 0 })

	v := openURL(t, redistest.Start(t).URL(), Options{})
	v.renew()
	v.own()
	if wait := v.enqueue("", table); wait != 0 {
		t.Errorf("on a server of its own: %v", wait)
	}
}

// A server that was replaced has an empty queue to show, for ever.
func TestOnlyAServerThatTakesWritesSaysThatTheQueueIsEmpty(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	u := openURL(t, a.URL(), Options{})
	u.renew()
	if id := u.last(); id != "" {
		t.Fatalf("got %s of an empty queue", id)
	}
	a.Follow(b)
	u.until("the end of the lease", func() bool {
		_, _, err := u.Last(background)
		return err != nil
	})

	if err := b.Client().ConfigSet(background, "min-replicas-to-write", "2").Err(); err != nil {
		t.Fatal(err)
	}
	v := openURL(t, b.URL(), Options{})
	if id, _, err := v.Last(background); err == nil {
		t.Errorf("a server that has lost its replicas says %q", id)
	}
}

// Ids are times: a server that lacks the last ones, and is late, would give them
// out again.
func TestANewIDComesAfterWhatIsApplied(t *testing.T) {
	t.Parallel()
	u := openURL(t, redistest.Start(t).URL(), Options{})
	u.renew()
	u.own()
	for _, step := range []struct{ applied, want string }{
		{"99999999999999-3", "99999999999999-4"},
		{"99999999999999-3", "99999999999999-5"},
		{"99999999999999-5", "99999999999999-6"},
		{"100000000000000-0", "100000000000000-1"},
		{"", "100000000000000-2"},
	} {
		u.enqueue(step.applied)
		if got := u.last(); got != step.want {
			t.Errorf("behind %s: %s, want %s", step.applied, got, step.want)
		}
	}
	if n, err := u.QueueLength(background); n != 5 || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
}

// An answer that is lost makes the script run a second time.
func TestAWriteIsQueuedOnce(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	u := openURL(t, r.URL(), Options{})
	u.renew()
	u.own()
	p := u.inUse.Load().partitions[0]
	for range 2 {
		reply, err := p.run(background, enqueueScript, []string{p.keys[0], p.keys[1], u.QueueName(), "nonce", u.ownerKey(), "turn"},
			p.prefix, 100, "payload", catalogTag, appendStamp(nil, 0), schemaTag, 0, 0, store.Lease.Milliseconds(), "0", testServer, "", 0, "u")
		if err != nil || len(reply) != 3 || reply[0] != "ok" || reply[2] != int64(1) {
			t.Fatalf("%v, %v", reply, err)
		}
	}
	if n, err := r.Client().XLen(background, u.QueueName()).Result(); n != 1 || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
	if _, _, err := u.Enqueue(background, Write{Payload: "payload", Server: testServer, Max: 1}); !errors.Is(err, ErrQueueFull) {
		t.Errorf("a full queue: %v", err)
	}
}
