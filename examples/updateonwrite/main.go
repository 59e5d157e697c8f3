// Command updateonwrite runs the pattern that sets the cache after each write
// against PostgreSQL and Redis, in the order in which it ends wrong: the database has
// B and the cache A, until the entry expires. Then it runs the same two writers
// through cachedpg.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	goredis "github.com/redis/go-redis/v9"

	_ "github.com/cachedpg/cachedpg"
)

const (
	read  = "SELECT value FROM cachedpg_update WHERE id = $1"
	write = "UPDATE cachedpg_update SET value = $2 WHERE id = $1"
)

func main() {
	database := flag.String("database", os.Getenv("CACHEDPG_TEST_DATABASE"), "URL of a database to make a table in")
	redis := flag.String("redis", os.Getenv("CACHEDPG_TEST_REDIS"), "URL of a Redis")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, *database, *redis, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, database, redis string, out io.Writer) error {
	if database == "" || redis == "" {
		return errors.New("give -database and -redis, or run this by: scripts/services run -- go run ./examples/updateonwrite")
	}
	plain, err := sql.Open("pgx", database)
	if err != nil {
		return err
	}
	defer plain.Close()
	u, err := url.Parse(database)
	if err != nil {
		return err
	}
	q := u.Query()
	q.Set("cache_store", redis)
	u.RawQuery = q.Encode()
	cached, err := sql.Open("cachedpg", u.String())
	if err != nil {
		return err
	}
	defer cached.Close()
	options, err := goredis.ParseURL(redis)
	if err != nil {
		return err
	}
	client := goredis.NewClient(options)
	defer client.Close()
	if _, err := plain.ExecContext(ctx, "DROP TABLE IF EXISTS cachedpg_update; CREATE TABLE cachedpg_update (id int PRIMARY KEY, value text NOT NULL);"+
		" INSERT INTO cachedpg_update SELECT i, '-' FROM generate_series(1, 20) i"); err != nil {
		return err
	}
	s := &story{ctx: ctx, out: out, plain: plain, byHand: &byHand{plain, client}, cached: cached}
	s.tell()
	s.try(client.Del(ctx, s.byHand.key(1)).Err())
	_, err = plain.ExecContext(ctx, "DROP TABLE cachedpg_update")
	return errors.Join(s.err, err)
}

// byHand is update-on-write, as it is written by hand.
type byHand struct {
	db    *sql.DB
	redis *goredis.Client
}

func (c *byHand) key(id int) string { return fmt.Sprintf("cachedpg_update:%d", id) }

// set writes the database, then the cache. between runs between the two.
func (c *byHand) set(ctx context.Context, id int, value string, between func()) error {
	if _, err := c.db.ExecContext(ctx, write, id, value); err != nil {
		return err
	}
	if between != nil {
		between()
	}
	return c.redis.Set(ctx, c.key(id), value, time.Hour).Err()
}

func (c *byHand) get(ctx context.Context, id int) (string, error) {
	return c.redis.Get(ctx, c.key(id)).Result()
}

type story struct {
	ctx    context.Context
	out    io.Writer
	plain  *sql.DB
	byHand *byHand
	cached *sql.DB
	err    error
}

func (s *story) tell() {
	s.say("Two writers by hand: UPDATE, then SET. The first is held up in between.")
	s.try(s.byHand.set(s.ctx, 1, "A", func() {
		s.say("  writer 1  UPDATE … 'A', COMMIT")
		s.try(s.byHand.set(s.ctx, 1, "B", func() { s.say("  writer 2  UPDATE … 'B', COMMIT") }))
		s.say("  writer 2  SET B")
	}))
	s.say("  writer 1  SET A")
	hand, err := s.byHand.get(s.ctx, 1)
	s.try(err)
	s.say("  the database has %s, the cache %s, for an hour", s.truth(1), hand)

	s.say("\nThe same through cachedpg: writers invalidate. What there is to hold up is only")
	s.say("a reader that has read A before B was committed.")
	s.try(s.update(1, "A"))
	s.say("  reader    SELECT → %s", s.get(1))
	s.try(s.update(1, "B"))
	s.say("  writer 2  UPDATE … 'B', COMMIT")
	s.say("  the database has %s, the driver says %s", s.truth(1), s.get(1))

	s.say("\nFour writers and four readers at random, on 20 rows, through cachedpg:")
	s.load()
	wrong := 0
	for id := 1; id <= 20; id++ {
		for range 3 { // by now from the cache
			if s.get(id) != s.truth(id) {
				wrong++
			}
		}
	}
	s.say("  rows that differ afterwards: %d", wrong)
}

// load lets everybody write and read for a while.
func (s *story) load() {
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for worker := range 4 {
		wg.Go(func() {
			for i := range 200 {
				if err := s.update(1+rand.IntN(20), fmt.Sprintf("%d of %d", i, worker)); err != nil {
					errs <- err
					return
				}
			}
		})
		wg.Go(func() {
			for range 1000 {
				var value string
				if err := s.cached.QueryRowContext(s.ctx, read, 1+rand.IntN(20)).Scan(&value); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		s.try(err)
	}
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

func (s *story) update(id int, value string) error {
	_, err := s.cached.ExecContext(s.ctx, write, id, value)
	return err
}

// get reads through cachedpg, truth past it.
func (s *story) get(id int) string   { return s.ask(s.cached, id) }
func (s *story) truth(id int) string { return s.ask(s.plain, id) }

func (s *story) ask(db *sql.DB, id int) (value string) {
	s.try(db.QueryRowContext(s.ctx, read, id).Scan(&value))
	return value
}
