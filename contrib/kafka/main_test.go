package kafka

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what another process or server has to do. It only keeps a
// test that cannot end from running.
const patience = 30 * time.Second

const topic = "invalidations"

// fake starts a cluster in this process with the topic, of some partitions.
func fake(t testing.TB, partitions int32, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// real returns a configuration for a new topic of a real Kafka, or skips.
func real(t testing.TB, partitions int32, configs map[string]*string) Config {
	t.Helper()
	brokers := os.Getenv("CACHEDPG_TEST_KAFKA")
	if brokers == "" {
		t.Skip("CACHEDPG_TEST_KAFKA is not set: this test needs Apache Kafka; run `make test-kafka`")
	}
	c := Config{Brokers: strings.Split(brokers, ","), Topic: "cachedpg-" + rand.Text(), Group: "cachedpg-" + rand.Text()}
	cl := client(t, c)
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 1, configs, c.Topic); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		admin := kadm.NewClient(client(t, c))
		_, _ = admin.DeleteTopic(context.Background(), c.Topic)
		_, _ = admin.DeleteGroup(context.Background(), c.Group)
	})
	return c
}

func configOf(c *kfake.Cluster) Config {
	return Config{Brokers: c.ListenAddrs(), Topic: topic, Group: "b"}
}

// client returns one to look at the cluster with.
func client(t testing.TB, c Config, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := c.client(append(opts, kgo.DefaultProduceTopic(c.Topic))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func producer(t testing.TB, c Config) *Producer {
	t.Helper()
	p, err := NewProducer(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// region plays region B: an application that reads by way of cachedpg, from one
// PostgreSQL for all. Who writes in region A goes past its store.
type region struct {
	t     testing.TB
	db    *sql.DB
	plain *sql.DB

	source string
	people uint32 // OID of the table
	byID   uint32 // and of its key
}

// newRegion opens a database with a table, and a store.
func newRegion(t testing.TB, storeURL string) *region {
	t.Helper()
	dsn := pgtest.Database(t)
	pgtest.Exec(t, dsn, "CREATE TABLE people (id int PRIMARY KEY, city text NOT NULL); INSERT INTO people SELECT i, 'Rome' FROM generate_series(1, 9) i")
	r := &region{t: t, db: open(t, "cachedpg", withKey(dsn, "cache_store", storeURL)), plain: open(t, "pgx", dsn)}
	if err := r.plain.QueryRow("SELECT 'people'::regclass::oid::int8, 'people_pkey'::regclass::oid::int8").Scan(&r.people, &r.byID); err != nil {
		t.Fatal(err)
	}
	origin, err := cachedpg.OriginOf(t.Context(), r.db)
	if err != nil {
		t.Fatal(err)
	}
	r.source = origin.Source
	return r
}

func open(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func withKey(dsn, key, value string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		return dsn
	}
	q := u.Query()
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// ask reads a city, and reports whether the cache answered.
func (r *region) ask(id int) (city string, hit bool) {
	r.t.Helper()
	before := cachedpg.StatsOf(r.db).Hits
	if err := r.db.QueryRow("SELECT city FROM people WHERE id = $1", id).Scan(&city); err != nil {
		r.t.Fatal(err)
	}
	return city, cachedpg.StatsOf(r.db).Hits > before
}

// warm reads until the cache answers.
func (r *region) warm(id int, want string) {
	r.t.Helper()
	r.t.Cleanup(func() {
		if r.t.Failed() {
			s := cachedpg.StatsOf(r.db)
			r.t.Logf("the cache: hits %d, misses %d, bypasses %v", s.Hits, s.Misses, s.Bypasses)
		}
	})
	eventually(r.t, "a hit", func() bool {
		city, hit := r.ask(id)
		if city != want {
			r.t.Fatalf("person %d lives in %s, want %s", id, city, want)
		}
		return hit
	})
}

// hits checks that the cache has an answer, and which.
func (r *region) hits(id int, want string) {
	r.t.Helper()
	if city, hit := r.ask(id); city != want || !hit {
		r.t.Errorf("person %d: got %s (hit: %t), want %s from the cache", id, city, hit, want)
	}
}

// misses checks that the cache has no answer.
func (r *region) misses(id int, want string) {
	r.t.Helper()
	if city, hit := r.ask(id); city != want || hit {
		r.t.Errorf("person %d: got %s (hit: %t), want %s from PostgreSQL", id, city, hit, want)
	}
}

// moves changes a city in region A, and returns the event that tells of it.
func (r *region) moves(id int, city string) invalidation.Event {
	r.t.Helper()
	if _, err := r.plain.Exec("UPDATE people SET city = $2 WHERE id = $1", id, city); err != nil {
		r.t.Fatal(err)
	}
	return r.event()
}

// event is of any change of the table.
func (r *region) event() invalidation.Event {
	return invalidation.Event{Source: r.source, ID: "test/1", Time: time.Now(), Tags: []store.Tag{
		{Relation: r.people, Kind: store.TagTable}, {Relation: r.people, Kind: store.TagRows, Index: r.byID}}}
}

func send(t testing.TB, p *Producer, events ...invalidation.Event) {
	t.Helper()
	if err := p.Send(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

// running is a Consumer whose Run is under way.
type running struct {
	*Consumer
	t    testing.TB
	stop func() // ends Run, and returns when it has

	mu     sync.Mutex
	errors []error
}

// consume runs a Consumer until the test ends. The last argument may be a
// function that sees its configuration.
func consume(t testing.TB, db *sql.DB, c Config) *running {
	t.Helper()
	r := &running{t: t}
	c.OnError = func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errors = append(r.errors, err)
	}
	var err error
	if r.Consumer, err = NewConsumer(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, db) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Error("Run does not end")
			}
		})
	}
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("the consumer: %+v", r.Stats())
			for _, err := range r.errors {
				t.Logf("OnError: %v", err)
			}
		}
	})
	return r
}

// await waits until the Consumer's counters are as wanted.
func (r *running) await(what string, is func(ConsumerStats) bool) {
	r.t.Helper()
	eventually(r.t, what, func() bool { return is(r.Stats()) })
}

// first returns what OnError was told first.
func (r *running) first() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errors[0]
}

func port(t testing.TB, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (r *running) started() {
	r.t.Helper()
	r.await("everything to be invalidated once", func(s ConsumerStats) bool { return s.Cold == 1 })
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not seen after %v: %s", patience, what)
		}
	}
}
