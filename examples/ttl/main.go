// Command ttl shows what is bounded by age alone: a table whose writes nobody
// waits for, and a query that asks for the time.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
)

const (
	product = "SELECT p.name, v.views FROM cachedpg_products p JOIN cachedpg_views v USING (id) WHERE p.id = 1"
	current = "SELECT name FROM cachedpg_products WHERE until > now() ORDER BY id"
	aMinute = "/* cachedpg: ttl=1m */ "
)

func main() {
	database := flag.String("database", os.Getenv("CACHEDPG_TEST_DATABASE"), "DSN of a database to make tables in")
	redis := flag.String("redis", "", "URL of a Redis; without one the cache is in this process")
	flag.Parse()
	if err := run(*database, *redis, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(database, redis string, out io.Writer) error {
	if database == "" {
		return errors.New("give -database, or run this by: scripts/services run -- go run ./examples/ttl")
	}
	pg, err := pgx.ParseConfig(database)
	if err != nil {
		return err
	}
	db, err := cachedpg.OpenDB(*pg, cachedpg.Config{
		Store:    redis,
		Policies: []cachedpg.Policy{{Relation: "cachedpg_views", Strategy: "ttl", TTL: time.Hour}},
	})
	if err != nil {
		return err
	}
	defer db.Close()
	s := &story{db: db, out: out}
	s.exec(`DROP TABLE IF EXISTS cachedpg_products, cachedpg_views`)
	s.exec(`CREATE TABLE cachedpg_products (id int PRIMARY KEY, name text NOT NULL, until timestamptz NOT NULL DEFAULT now() + interval '1 day')`)
	s.exec(`CREATE TABLE cachedpg_views (id int PRIMARY KEY, views bigint NOT NULL)`)
	s.exec(`INSERT INTO cachedpg_products VALUES (1, 'lamp'), (2, 'desk')`)
	s.exec(`INSERT INTO cachedpg_views VALUES (1, 100), (2, 7)`)
	s.tell()
	s.exec(`DROP TABLE cachedpg_products, cachedpg_views`)
	return s.err
}

type story struct {
	db  *sql.DB
	out io.Writer
	err error
}

func (s *story) tell() {
	s.say("A product is shown with its views. The views have strategy ttl, an hour.")
	s.warm(product)
	s.say("Somebody looks at it, which counts: the cached result stays.")
	s.exec("UPDATE cachedpg_views SET views = views + 1 WHERE id = 1")
	s.read(product)
	s.say("Its name changes. The products are strict, in the same query too.")
	s.exec("UPDATE cachedpg_products SET name = 'reading lamp' WHERE id = 1")
	s.read(product)

	s.say("\nA query asks for the time. Nothing else is against caching it:")
	s.explain(current)
	s.say("With a limit of its age it is cached, by age as far as the time goes:")
	s.explain(aMinute + current)
	s.warm(aMinute + current)
	s.say("The table that it reads invalidates it as ever.")
	s.exec("UPDATE cachedpg_products SET until = now() WHERE id = 2")
	s.read(aMinute + current)

	s.say("\nWho is content with 50 ms asks for the clock, until it has moved.")
	ctx := cachedpg.WithTTL(context.Background(), 50*time.Millisecond)
	var first, now time.Time
	for s.err == nil && !now.After(first) {
		s.err = s.db.QueryRowContext(ctx, "SELECT clock_timestamp()").Scan(&now)
		if first.IsZero() {
			first = now
		}
	}
	s.say("  it has")
}

func (s *story) say(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

func (s *story) exec(query string) {
	if s.err == nil {
		_, s.err = s.db.Exec(query)
	}
}

// warm reads until the cache answers, which may have to begin.
func (s *story) warm(query string) {
	for s.err == nil {
		if rows, hit := s.rows(query); hit {
			s.say("  %s, from the cache", rows)
			return
		}
	}
}

// read says what the driver answers, and from where.
func (s *story) read(query string) {
	rows, hit := s.rows(query)
	s.say("  %s, from %s", rows, map[bool]string{true: "the cache", false: "PostgreSQL"}[hit])
}

func (s *story) rows(query string) (text string, hit bool) {
	if s.err != nil {
		return "", false
	}
	before := cachedpg.StatsOf(s.db).Hits
	rows, err := s.db.Query(query)
	if err != nil {
		s.err = err
		return "", false
	}
	defer rows.Close()
	columns, _ := rows.Columns()
	var all []string
	for rows.Next() {
		name, views := "", int64(0)
		into := []any{&name, &views}
		if s.err = rows.Scan(into[:len(columns)]...); s.err != nil {
			return "", false
		}
		if len(columns) == 2 {
			name = fmt.Sprintf("%s: %d views", name, views)
		}
		all = append(all, name)
	}
	s.err = rows.Err()
	return strings.Join(all, ", "), cachedpg.StatsOf(s.db).Hits > before
}

// explain prints what cachedpg explain does, but for the parts of the key.
func (s *story) explain(query string) {
	if s.err != nil {
		return
	}
	x, err := cachedpg.Explain(context.Background(), s.db, query)
	if err != nil {
		s.err = err
		return
	}
	for line := range strings.Lines(x.String()) {
		if label, _, _ := strings.Cut(line, " "); label == "cacheable" || label == "reason" || label == "by" || label == "reads" || strings.Contains(line, "table ") {
			fmt.Fprint(s.out, "  ", line)
		}
	}
}
