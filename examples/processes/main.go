// Command processes shows two programs that share a Redis: a write in one is
// seen by the other, and what the other reads when the writer is killed
// half-way through its commit.
//
// This process reads. It starts itself again as the writer and kills that in the
// moments in which it does most harm to a cache kept by hand.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/step"
)

func main() {
	database := flag.String("database", os.Getenv("CACHEDPG_TEST_DATABASE"), "DSN of a database to make a table in")
	redis := flag.String("redis", os.Getenv("CACHEDPG_TEST_REDIS"), "URL of a Redis")
	killAt := flag.String("kill-at", "", "be the writer, and die at this step of the commit")
	price := flag.Int("price", 0, "what the writer writes")
	flag.Parse()
	if err := run(*database, *redis, *killAt, *price, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(database, redis, killAt string, price int, out io.Writer) error {
	if database == "" || redis == "" {
		return errors.New("give -database and -redis, or run this by: make processes")
	}
	db, err := sql.Open("cachedpg", withKey(database, "cache_store", redis))
	if err != nil {
		return err
	}
	defer db.Close()
	if price != 0 {
		return write(db, price, killAt)
	}
	return read(db, out)
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

// write is the second program. It changes the price in a transaction, and stops
// for ever at a step of the commit if it is told to.
func write(db *sql.DB, price int, killAt string) error {
	step.Hook = func(at string) {
		if at == killAt {
			fmt.Println(at)
			select {} // until the reader kills us
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "UPDATE cachedpg_processes SET price = $1 WHERE id = 1", price); err != nil {
		return err
	}
	return tx.Commit()
}

// read is the first program.
func read(db *sql.DB, out io.Writer) (err error) {
	if _, err := db.Exec("DROP TABLE IF EXISTS cachedpg_processes; CREATE TABLE cachedpg_processes (id int PRIMARY KEY, price int NOT NULL)"); err != nil {
		return err
	}
	defer func() {
		_, dropped := db.Exec("DROP TABLE cachedpg_processes")
		err = errors.Join(err, dropped)
	}()
	if _, err := db.Exec("INSERT INTO cachedpg_processes VALUES (1, 100)"); err != nil {
		return err
	}
	s := &story{db: db, out: out}

	s.say("This process reads a price until it is cached.")
	s.cached(100)

	s.say("Another process sets it to 110 and commits.")
	s.writer("", 110)
	s.reads(110)
	s.cached(110)

	s.say("Another process sets it to 120. It has marked the row in Redis and is killed before it sends COMMIT.")
	s.writer(step.Marked, 120)
	s.say("PostgreSQL rolls back what it did. Nobody else knows what the mark is for; PostgreSQL is asked.")
	s.reads(110)
	s.cached(110)

	s.say("Another process sets it to 130. It has committed and is killed before it tells Redis.")
	s.writer(step.Committed, 130)
	s.say("A cache kept by hand would say 110 from now on.")
	s.reads(130)
	s.cached(130)
	return s.err
}

// story asks for the price and says where the answer came from.
type story struct {
	db  *sql.DB
	out io.Writer
	err error
}

func (s *story) say(text string) {
	if s.err == nil {
		fmt.Fprintf(s.out, "\n%s\n", text)
	}
}

// price reads the price and reports whether the cache answered.
func (s *story) price() (price int, hit bool) {
	if s.err != nil {
		return 0, true
	}
	before := cachedpg.StatsOf(s.db).Hits
	s.err = s.db.QueryRow("SELECT price FROM cachedpg_processes WHERE id = 1").Scan(&price)
	return price, cachedpg.StatsOf(s.db).Hits > before
}

// reads reads once, right now.
func (s *story) reads(want int) {
	price, hit := s.price()
	s.expect(price, want)
	if s.err == nil {
		fmt.Fprintf(s.out, "  price %d, from %s\n", price, map[bool]string{true: "the cache", false: "PostgreSQL"}[hit])
	}
}

// cached reads until the cache answers. Every answer on the way must be right.
func (s *story) cached(want int) {
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		price, hit := s.price()
		if s.expect(price, want); s.err != nil {
			return
		}
		if hit {
			fmt.Fprintf(s.out, "  price %d, from the cache\n", price)
			return
		}
		if time.Now().After(until) {
			s.err = errors.New("it is never cached again")
			return
		}
	}
}

func (s *story) expect(got, want int) {
	if s.err == nil && got != want {
		s.err = fmt.Errorf("read a price of %d, want %d", got, want)
	}
}

// writer runs the other process to its end or, with killAt, until it has come
// to that step, and kills it there.
func (s *story) writer(killAt string, price int) {
	if s.err != nil {
		return
	}
	args := append(os.Args[1:len(os.Args):len(os.Args)], "-price", fmt.Sprint(price), "-kill-at", killAt)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.err = err
		return
	}
	reached := bufio.NewScanner(stdout).Scan()
	if killAt != "" {
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	switch {
	case killAt == "":
		s.err = err
	case !reached:
		s.err = fmt.Errorf("the writer never came to %q: %w", killAt, err)
	}
}
