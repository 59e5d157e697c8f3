// Command stampede has 500 goroutines ask for a hot result at the moment when it
// has expired: of a cache by hand, of cachedpg in one process, and of cachedpg in
// two processes that share a Redis. It counts the SELECTs that PostgreSQL gets.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg"
)

const (
	readers = 500
	hot     = "SELECT count(*) FROM cachedpg_hot"
	life    = 200 * time.Millisecond
)

func main() {
	database := flag.String("database", os.Getenv("CACHEDPG_TEST_DATABASE"), "DSN of a database to make a table in")
	redis := flag.String("redis", os.Getenv("CACHEDPG_TEST_REDIS"), "URL of a Redis")
	other := flag.Bool("other", false, "be the other process")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	switch {
	case *database == "" || *redis == "":
		err = errors.New("give -database and -redis, or run this by: scripts/services run -- go run ./examples/stampede")
	case *other:
		err = beOther(ctx, *database, *redis)
	default:
		err = run(ctx, *database, *redis, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// counter counts what is sent to PostgreSQL of the query.
type counter struct{ n atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL == hot {
		c.n.Add(1)
	}
	return ctx
}

func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// open opens the database through cachedpg, and counts.
func open(database, store string) (*sql.DB, *counter, error) {
	config, err := pgx.ParseConfig(database)
	if err != nil {
		return nil, nil, err
	}
	c := &counter{}
	config.Tracer = c
	db, err := cachedpg.OpenDB(*config, cachedpg.Config{Store: store})
	return db, c, err
}

// expired fills the cache with a result that has expired when it returns.
func expired(ctx context.Context, db *sql.DB) error {
	if err := cachedpg.Invalidate(ctx, db, "cachedpg_hot"); err != nil {
		return err
	}
	short := cachedpg.WithTTL(ctx, life)
	for hits := cachedpg.StatsOf(db).Hits; cachedpg.StatsOf(db).Hits == hits; {
		if err := db.QueryRowContext(short, hot).Scan(new(int)); err != nil {
			return err
		}
	}
	time.Sleep(life)
	return nil
}

// ask has n goroutines ask, and calls missed when the cache had nothing for any.
func ask(ctx context.Context, db *sql.DB, n int, missed func()) error {
	before := cachedpg.StatsOf(db).Misses
	answers := make(chan error, n)
	for range n {
		go func() { answers <- db.QueryRowContext(ctx, hot).Scan(new(int)) }()
	}
	for cachedpg.StatsOf(db).Misses-before < uint64(n) {
		select {
		case err := <-answers:
			return fmt.Errorf("answered before all have asked: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	missed()
	var err error
	for range n {
		err = errors.Join(err, <-answers)
	}
	return err
}

// beOther is the second process: each line of its input tells it to go on.
func beOther(ctx context.Context, database, redis string) error {
	db, count, err := open(database, redis)
	if err != nil {
		return err
	}
	defer db.Close()
	in := bufio.NewScanner(os.Stdin)
	if err := expired(ctx, db); err != nil {
		return err
	}
	fmt.Println("ready")
	in.Scan()
	before := count.n.Load()
	if err := ask(ctx, db, readers/2, func() { fmt.Println("missed") }); err != nil {
		return err
	}
	fmt.Println(count.n.Load() - before)
	return nil
}

func run(ctx context.Context, database, redis string, out io.Writer) error {
	plainConfig, err := pgx.ParseConfig(database)
	if err != nil {
		return err
	}
	byHand := &counter{}
	plainConfig.Tracer = byHand
	plain := stdlib.OpenDB(*plainConfig)
	defer plain.Close()
	plain.SetMaxOpenConns(20)
	if _, err := plain.ExecContext(ctx, "DROP TABLE IF EXISTS cachedpg_hot; CREATE TABLE cachedpg_hot AS SELECT i FROM generate_series(1, 1000) i"); err != nil {
		return err
	}
	s := &story{ctx: ctx, out: out, database: database, redis: redis, plain: plain, byHand: byHand}
	s.say("A hot result has expired, and %d goroutines ask for it. PostgreSQL gets", readers)
	s.hand()
	s.one("memory")
	s.one(redis)
	s.two()
	_, err = plain.ExecContext(ctx, "DROP TABLE cachedpg_hot")
	return errors.Join(s.err, err)
}

type story struct {
	ctx             context.Context
	out             io.Writer
	database, redis string
	plain           *sql.DB
	byHand          *counter
	err             error
}

func (s *story) say(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

func (s *story) try(err error) {
	if s.err == nil {
		s.err = err
	}
}

// slow keeps SELECTs of the table waiting until release is called: so the one
// that comes last comes before the first has its answer.
func (s *story) slow() (release func()) {
	if s.err != nil {
		return func() {}
	}
	tx, err := s.plain.BeginTx(s.ctx, nil)
	if err != nil {
		s.err = err
		return func() {}
	}
	_, err = tx.ExecContext(s.ctx, "LOCK TABLE cachedpg_hot IN ACCESS EXCLUSIVE MODE")
	s.try(err)
	return sync.OnceFunc(func() { s.try(tx.Rollback()) })
}

// hand is the cache by hand: get, else SELECT and set.
func (s *story) hand() {
	options, err := goredis.ParseURL(s.redis)
	if err != nil {
		s.try(err)
		return
	}
	options.PoolSize = 20
	client := goredis.NewClient(options)
	defer client.Close()
	client.Del(s.ctx, "cachedpg_hot")
	release := s.slow()
	var missed atomic.Int64
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			if client.Get(s.ctx, "cachedpg_hot").Err() == nil {
				return
			}
			if missed.Add(1) == readers {
				release()
			}
			var n int
			if s.plain.QueryRowContext(s.ctx, hot).Scan(&n) == nil {
				client.Set(s.ctx, "cachedpg_hot", n, life)
			}
		})
	}
	wg.Wait()
	client.Del(s.ctx, "cachedpg_hot")
	s.say("  %3d SELECTs from a cache by hand", s.byHand.n.Load())
}

// one is one process.
func (s *story) one(store string) {
	if s.err != nil {
		return
	}
	db, count, err := open(s.database, store)
	if err != nil {
		s.err = err
		return
	}
	defer db.Close()
	s.try(expired(s.ctx, db))
	release := s.slow()
	before := count.n.Load()
	s.try(ask(s.ctx, db, readers, release))
	name := "in memory"
	if store != "memory" {
		name = "with Redis"
	}
	s.say("  %3d SELECT  from cachedpg %s", count.n.Load()-before, name)
}

// two is this process and another one, half of the goroutines in each.
func (s *story) two() {
	if s.err != nil {
		return
	}
	db, count, err := open(s.database, s.redis)
	if err != nil {
		s.err = err
		return
	}
	defer db.Close()
	cmd := exec.CommandContext(s.ctx, os.Args[0], "-other", "-database", s.database, "-redis", s.redis)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	s.try(err)
	pipe, err := cmd.StdoutPipe()
	s.try(err)
	s.try(cmd.Start())
	if s.err != nil {
		return
	}
	defer cmd.Wait()
	defer in.Close()
	other := bufio.NewScanner(pipe)
	line := func() string {
		if !other.Scan() {
			s.try(errors.New("the other process is gone"))
		}
		return other.Text()
	}
	line() // ready
	s.try(expired(s.ctx, db))
	release := s.slow()
	before := count.n.Load()
	fmt.Fprintln(in, "go")
	s.try(ask(s.ctx, db, readers/2, func() {
		line() // missed
		release()
	}))
	var theirs int64
	_, err = fmt.Sscan(line(), &theirs)
	s.try(err)
	s.say("  %3d SELECT  from two processes with Redis", count.n.Load()-before+theirs)
}
