package kafka

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Nothing is lost while no broker takes it: the commits go on, and their events
// wait in PostgreSQL.
func TestTheOutboxKeepsWhatNoBrokerTakes(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	pgtest.Exec(t, dsn, cachedpg.SetupSQL()+"CREATE TABLE people (id int PRIMARY KEY, city text); INSERT INTO people VALUES (1, 'Rome')")
	db := open(t, "cachedpg", withKey(withKey(dsn, "cache_store", pgtest.Redis(t)), "cache_outbox", "always"))
	waiting := func() (rows int) {
		if err := db.QueryRow("/* cachedpg: bypass */ SELECT count(*) FROM cachedpg.outbox").Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}

	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	config := configOf(cluster)
	config.Timeout = time.Second
	cluster.Close()
	p := producer(t, config)

	var problem atomic.Pointer[error]
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- cachedpg.Relay(ctx, db, cachedpg.RelayOptions{Sink: p, Interval: 10 * time.Millisecond,
			Problem: func(err error) { problem.Store(&err) }})
	}()
	const n = 3
	for range n {
		if _, err := db.Exec("UPDATE people SET city = city || '!' WHERE id = 1"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a problem", func() bool { return problem.Load() != nil })
	if got := *problem.Load(); !strings.Contains(got.Error(), "no broker of "+config.Brokers[0]+" answers") {
		t.Error(got)
	}
	if got := waiting(); got != n {
		t.Errorf("%d events wait, want %d", got, n)
	}

	fake(t, 1, kfake.Ports(port(t, config.Brokers[0])))
	eventually(t, "the outbox to be empty", func() bool { return waiting() == 0 })
	if got := p.Stats().Events; got != n {
		t.Errorf("%d events sent, want %d", got, n)
	}
	sent(t, config, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
