// Command walfeed shows that what others write, here over a plain pgx connection
// as psql would, is heard of in PostgreSQL's write-ahead log: the row that was
// changed is read anew, and the others stay cached.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
)

func main() {
	database := flag.String("database", os.Getenv("CACHEDPG_TEST_DATABASE"), "DSN of a database of its own, of a superuser; wal_level is logical")
	redis := flag.String("redis", "", "URL of a Redis, for processes that share it; without one the cache is in this process")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, *database, *redis, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, database, redis string, out io.Writer) error {
	if database == "" {
		return errors.New("give -database")
	}
	dsn := withKey(database, "cache_external", "wal")
	if redis != "" {
		dsn = withKey(dsn, "cache_store", redis)
	}
	db, err := sql.Open("cachedpg", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	psql, err := pgx.Connect(ctx, database) // somebody who knows of no cache
	if err != nil {
		return err
	}
	defer psql.Close(ctx)
	s := &story{ctx: ctx, db: db, psql: psql, out: out}

	s.say("Without a publication nobody can follow the log. The driver says so, and reads PostgreSQL.")
	s.psqlQuietly("DROP TABLE IF EXISTS orders, customers CASCADE; DROP PUBLICATION IF EXISTS cachedpg;" +
		"CREATE TABLE customers (id int PRIMARY KEY, city text);" +
		"CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE);" +
		"CREATE VIEW loud AS SELECT id, upper(city) AS city FROM customers;" +
		"INSERT INTO customers VALUES (1, 'Oslo'), (2, 'Rome'); INSERT INTO orders VALUES (10, 1), (20, 2)")
	if err := db.PingContext(ctx); err == nil {
		return errors.New("a Ping that says nothing of the publication that is missing")
	} else {
		fmt.Fprintf(out, "  Ping: %v\n", err)
	}

	s.say("The setup makes it, and what tells of changes of the schema.")
	if s.err == nil {
		s.err = cachedpg.SetupWAL(ctx, db)
	}
	s.cached(city, 1, "Oslo")
	s.cached(city, 2, "Rome")

	s.say("Somebody changes a customer in psql.")
	s.write("UPDATE customers SET city = 'Bergen' WHERE id = 1")
	s.reads(city, 2, "Rome", fromCache)
	s.cached(city, 1, "Bergen")

	s.say("A DELETE takes the customer's orders with it. Nobody named them.")
	s.cached(orders, 1, "1")
	s.cached(orders, 2, "1")
	s.write("DELETE FROM customers WHERE id = 1")
	s.cached(orders, 1, "0")
	s.reads(city, 2, "Rome", fromCache)

	s.say("A change of the schema makes everything cold.")
	s.cached(loud, 2, "ROME")
	s.write("CREATE OR REPLACE VIEW loud AS SELECT id, upper(city) || '!' AS city FROM customers")
	s.cached(loud, 2, "ROME!")
	return s.err
}

const (
	city   = "SELECT city FROM customers WHERE id = $1"
	orders = "SELECT count(*) FROM orders WHERE customer = $1"
	loud   = "SELECT city FROM loud WHERE id = $1"
)

const fromCache, fromPostgreSQL = true, false

type story struct {
	ctx  context.Context
	db   *sql.DB
	psql *pgx.Conn
	out  io.Writer
	err  error
}

func (s *story) say(text string) {
	if s.err == nil {
		fmt.Fprintf(s.out, "\n%s\n", text)
	}
}

func (s *story) psqlQuietly(statement string) {
	if s.err == nil {
		_, s.err = s.psql.Exec(s.ctx, statement)
	}
}

// write writes past the driver and waits until that is heard of. A program
// would not wait: it reads what was cached for some milliseconds more.
func (s *story) write(statement string) {
	before := cachedpg.StatsOf(s.db).Feed.Transactions
	s.psqlQuietly(statement)
	for s.err == nil && cachedpg.StatsOf(s.db).Feed.Transactions == before {
		s.pause()
	}
	if s.err == nil {
		fmt.Fprintf(s.out, "  psql: %s\n", statement)
	}
}

func (s *story) pause() {
	select {
	case <-time.After(time.Millisecond):
	case <-s.ctx.Done():
		s.err = s.ctx.Err()
	}
}

func (s *story) ask(query string, id int) (answer string, hit bool) {
	if s.err != nil {
		return "", false
	}
	before := cachedpg.StatsOf(s.db).Hits
	s.err = s.db.QueryRowContext(s.ctx, query, id).Scan(&answer)
	return answer, cachedpg.StatsOf(s.db).Hits > before
}

// reads reads once.
func (s *story) reads(query string, id int, want string, hit bool) {
	answer, got := s.ask(query, id)
	if s.err == nil && (answer != want || got != hit) {
		s.err = fmt.Errorf("%s, %d: %s, from the cache: %v", query, id, answer, got)
	}
	s.tell(query, id, answer, got)
}

// cached reads until the cache answers. Every answer on the way must be right.
func (s *story) cached(query string, id int, want string) {
	for s.err == nil {
		answer, hit := s.ask(query, id)
		if s.err == nil && answer != want {
			s.err = fmt.Errorf("%s, %d: %s, want %s", query, id, answer, want)
		}
		if hit {
			s.tell(query, id, answer, fromCache)
			return
		}
		s.pause()
	}
}

func (s *story) tell(query string, id int, answer string, hit bool) {
	if s.err == nil {
		fmt.Fprintf(s.out, "  %s: %s, from %s\n", fmt.Sprintf(map[string]string{city: "city of %d", orders: "orders of %d", loud: "city of %d, loud"}[query], id),
			answer, map[bool]string{fromCache: "the cache", fromPostgreSQL: "PostgreSQL"}[hit])
	}
}

// withKey returns a URL DSN with a key added.
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
