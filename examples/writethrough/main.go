// Command writethrough changes prices with strategy "write-through": a commit
// returns when the results that it has invalidated are cached again, so that the
// read after it finds them.
//
// Then two writers change the same price, in the order in which a cache that
// is set by hand after each commit ends wrong for good.
package main

import (
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // to look past the driver

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/step"
)

const (
	byID  = "SELECT price FROM cachedpg_prices WHERE id = $1"
	total = "SELECT sum(price) FROM cachedpg_prices"
	set   = "UPDATE cachedpg_prices SET price = $2 WHERE id = $1"
)

func main() {
	database := flag.String("database", os.Getenv("CACHEDPG_TEST_DATABASE"), "DSN of a database to make a table in")
	redis := flag.String("redis", os.Getenv("CACHEDPG_TEST_REDIS"), "URL of a Redis")
	flag.Parse()
	if err := run(*database, *redis, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(database, redis string, out io.Writer) error {
	if database == "" || redis == "" {
		return errors.New("give -database and -redis, or run this by: scripts/services run -- go run ./examples/writethrough")
	}
	plain, err := sql.Open("pgx", database)
	if err != nil {
		return err
	}
	defer plain.Close()
	if _, err := plain.Exec(`DROP TABLE IF EXISTS cachedpg_prices; CREATE TABLE cachedpg_prices (id int PRIMARY KEY, price int NOT NULL);
		INSERT INTO cachedpg_prices SELECT i, 100 FROM generate_series(1, 30) i`); err != nil {
		return err
	}
	s := &story{plain: plain, out: out}
	step.Hook = s.at
	pg, err := pgx.ParseConfig(database)
	if err != nil {
		return err
	}
	s.db, err = cachedpg.OpenDB(*pg, cachedpg.Config{
		Store:     redis,
		RefillMax: 16,
		Policies:  []cachedpg.Policy{{Relation: "cachedpg_prices", Strategy: "write-through"}},
	})
	if err != nil {
		return err
	}
	defer s.db.Close()
	s.tell()
	_, err = plain.Exec("DROP TABLE cachedpg_prices")
	return errors.Join(s.err, err)
}

type story struct {
	db, plain *sql.DB
	out       io.Writer
	err       error
	selected  func() // called once, when the next SELECT has its rows and has not stored them
}

func (s *story) at(at string) {
	if at == step.Selected && s.selected != nil {
		f := s.selected
		s.selected = nil
		f()
	}
}

func (s *story) tell() {
	s.say("The price of 1 and the sum of all are read.")
	s.warm(1)
	s.read(byID, 1)
	s.read(total)

	s.say("\nThe price is changed. The commit reads both again before it returns.")
	s.counted(set, 1, 110)
	s.read(byID, 1)
	s.read(total)

	s.say("\nTwo writers. The first has committed 120, has read it again to store it,")
	s.say("and is held up; the second commits 130 and stores that.")
	s.selected = func() {
		s.exec(set, 1, 130)
		s.say("  the second has returned, and so the first stores 120")
	}
	s.exec(set, 1, 120)
	s.say("  the first has returned")
	s.read(byID, 1)
	s.say("  PostgreSQL has %d", s.truth())

	s.say("\nAll 30 prices are read, then changed at once: 16 are read again, those read last.")
	for id := range 30 {
		s.warm(id + 1)
	}
	s.counted("UPDATE cachedpg_prices SET price = price * 2")
	s.read(byID, 30)
	s.read(byID, 2)
}

func (s *story) say(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

// warm reads a price until it comes from the cache, which may have to begin.
func (s *story) warm(id int) {
	for s.err == nil {
		hits := cachedpg.StatsOf(s.db).Hits
		s.err = s.db.QueryRow(byID, id).Scan(new(int))
		if cachedpg.StatsOf(s.db).Hits > hits {
			return
		}
	}
}

// read says what the driver answers, and from where.
func (s *story) read(query string, args ...any) {
	if s.err != nil {
		return
	}
	hits := cachedpg.StatsOf(s.db).Hits
	var n int
	s.err = s.db.QueryRow(query, args...).Scan(&n)
	from := "PostgreSQL"
	if cachedpg.StatsOf(s.db).Hits > hits {
		from = "the cache"
	}
	what := "the sum"
	if len(args) > 0 {
		what = fmt.Sprintf("price %v", args[0])
	}
	s.say("  %s is %d, from %s", what, n, from)
}

func (s *story) exec(query string, args ...any) {
	if s.err == nil {
		_, s.err = s.db.Exec(query, args...)
	}
}

// counted is exec that says how many results were read again.
func (s *story) counted(query string, args ...any) {
	before := cachedpg.StatsOf(s.db).Refilled
	s.exec(query, args...)
	s.say("  %d read again", cachedpg.StatsOf(s.db).Refilled-before)
}

// truth reads past the driver.
func (s *story) truth() (n int) {
	if s.err == nil {
		s.err = s.plain.QueryRow(byID, 1).Scan(&n)
	}
	return n
}
