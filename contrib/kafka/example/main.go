// Command example shows two regions that read one PostgreSQL, each through a
// Redis of its own. What region A commits reaches region B's cache by way of its
// outbox and a topic of Kafka, also when region B's consumer was away meanwhile.
//
// This process is region B. It starts itself again as region A's application,
// and as the program that takes the outbox to Kafka. Without -kafka a fake one in
// this process does.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/contrib/kafka"
)

type options struct {
	database, redisA, redisB, brokers, topic, as string
	price                                        int
}

func main() {
	var o options
	flag.StringVar(&o.database, "database", os.Getenv("CACHEDPG_TEST_DATABASE"), "DSN of a database to make tables in")
	flag.StringVar(&o.redisA, "redis-a", "", "URL of region A's Redis")
	flag.StringVar(&o.redisB, "redis-b", "", "URL of region B's Redis, or of another database of the same")
	flag.StringVar(&o.brokers, "kafka", "", "addresses of Kafka's brokers")
	flag.StringVar(&o.topic, "topic", "cachedpg-example-"+rand.Text(), "a topic to make")
	flag.StringVar(&o.as, "as", "", "be region A's writer, or its relay")
	flag.IntVar(&o.price, "price", 0, "what the writer writes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	if o.database == "" || o.redisA == "" || o.redisB == "" {
		return errors.New("give -database, -redis-a and -redis-b")
	}
	switch o.as {
	case "writer":
		return write(ctx, o, out)
	case "relay":
		return relay(ctx, o)
	}
	return regions(ctx, o, out)
}

// withKeys returns a URL DSN with keys added.
func withKeys(dsn string, keys ...string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		return dsn
	}
	q := u.Query()
	for i := 0; i < len(keys); i += 2 {
		q.Set(keys[i], keys[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func openA(o options) (*sql.DB, error) {
	return sql.Open("cachedpg", withKeys(o.database, "cache_store", o.redisA, "cache_outbox", "always"))
}

const (
	tables = `DROP TABLE IF EXISTS cachedpg_regions;
		CREATE TABLE cachedpg_regions (id int PRIMARY KEY, price int NOT NULL);
		INSERT INTO cachedpg_regions VALUES (1, 100), (2, 500)`
	query = "SELECT price FROM cachedpg_regions WHERE id = $1"
)

// write is region A's application.
func write(ctx context.Context, o options, out io.Writer) error {
	db, err := openA(o)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := warm(ctx, db); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "UPDATE cachedpg_regions SET price = $1 WHERE id = 1", o.price); err != nil {
		return err
	}
	var price int
	if err := db.QueryRowContext(ctx, query, 1).Scan(&price); err != nil {
		return err
	}
	fmt.Fprintf(out, "  A: price %d\n", price)
	return nil
}

// warm reads until the cache answers. Who writes while its Redis has just begun
// does not know whether that has seen all changes of the schema, and its event
// would make everything cold.
func warm(ctx context.Context, db *sql.DB) error {
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var price int
		if err := db.QueryRowContext(ctx, query, 1).Scan(&price); err != nil {
			return err
		}
		if cachedpg.StatsOf(db).Hits > 0 {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("region A's cache does not answer")
		}
	}
}

// relay takes region A's outbox to Kafka. It is what cachedpg-kafka produce
// --from outbox does.
func relay(ctx context.Context, o options) error {
	db, err := openA(o)
	if err != nil {
		return err
	}
	defer db.Close()
	p, err := kafka.NewProducer(kafka.Config{Brokers: strings.Split(o.brokers, ","), Topic: o.topic})
	if err != nil {
		return err
	}
	defer p.Close()
	err = cachedpg.Relay(ctx, db, cachedpg.RelayOptions{Sink: p, Interval: 20 * time.Millisecond,
		Problem: func(err error) { fmt.Fprintln(os.Stderr, err) }})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// regions is region B, and tells the story.
func regions(ctx context.Context, o options, out io.Writer) (err error) {
	if o.brokers == "" {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			return err
		}
		defer fake.Close()
		o.brokers = strings.Join(fake.ListenAddrs(), ",")
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(o.brokers, ",")...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, o.topic); err != nil {
		return fmt.Errorf("make the topic %s: %w", o.topic, err)
	}
	db, err := sql.Open("cachedpg", withKeys(o.database, "cache_store", o.redisB, "cache_external", "events"))
	if err != nil {
		return err
	}
	defer db.Close()
	// Region B only reads: nobody takes its commits to region A.
	setup, err := sql.Open("pgx", o.database)
	if err != nil {
		return err
	}
	defer setup.Close()
	if _, err := setup.ExecContext(ctx, tables+";"+cachedpg.SetupSQL()); err != nil {
		return err
	}
	s := &story{ctx: ctx, o: o, db: db, out: out}
	defer func() {
		s.stop()
		_, topics := admin.DeleteTopic(ctx, o.topic)
		_, dropped := setup.ExecContext(ctx, "DROP TABLE cachedpg_regions")
		err = errors.Join(err, topics, dropped)
	}()

	s.say("Region B consumes, and caches two prices.")
	s.consume()
	s.await("the consumer", func() bool { return s.consumer.Stats().Cold == 1 })
	s.cached(1, 100)
	s.cached(2, 500)

	s.say("Region A sets the first to 110. Its own readers see that at once; nobody has told region B.")
	s.write(110)
	s.reads(1, 100)

	s.say("The change is in A's outbox since its commit. A relay takes it to Kafka.")
	stop := s.start("-as", "relay")
	defer stop()
	s.until(1, 100, 110)
	s.cached(1, 110)
	s.reads(2, 500)

	s.say("Region B's consumer stops. Region A sets 120.")
	s.stop()
	s.write(120)
	s.sent()
	s.reads(1, 110)

	s.say("It goes on from what it had committed: nothing is missed, and nothing else is cold.")
	s.consume()
	s.until(1, 110, 120)
	s.cached(1, 120)
	s.reads(2, 500)

	s.say("It stops again, and for longer than the topic keeps what it missed: 130.")
	s.stop()
	s.write(130)
	s.sent()
	s.reads(1, 120)
	if s.err == nil {
		s.err = forget(ctx, admin, o.topic)
	}

	s.say("What it missed is not known, so everything is invalidated.")
	s.consume()
	s.await("everything to be invalidated", func() bool { return s.consumer.Stats().Cold == 1 })
	s.reads(1, 130)
	s.reads(2, 500)
	return s.err
}

// forget deletes all records, as Kafka does when they are too old.
func forget(ctx context.Context, admin *kadm.Client, topic string) error {
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	deleted, err := admin.DeleteRecords(ctx, ends.Offsets())
	if err != nil {
		return err
	}
	return deleted.Error()
}

// start runs this program in another role; stop ends it.
func (s *story) start(args ...string) (stop func()) {
	if s.err != nil {
		return func() {}
	}
	cmd := exec.CommandContext(s.ctx, os.Args[0], append(s.o.args(), args...)...)
	cmd.Stdout, cmd.Stderr = s.out, os.Stderr
	if s.err = cmd.Start(); s.err != nil {
		return func() {}
	}
	return func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); s.err == nil {
			s.err = err
		}
	}
}

func (o options) args() []string {
	return []string{"-database", o.database, "-redis-a", o.redisA, "-redis-b", o.redisB, "-kafka", o.brokers, "-topic", o.topic}
}
