// Command writebehind counts page views with strategy "write-behind": an UPDATE
// returns when Redis has queued it, and PostgreSQL runs it later, with others in one
// transaction. Who reads a counter reads all that was counted.
//
// It starts itself again as another program that counts, and kills that.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // to look past the driver

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/step"
)

const count = "UPDATE cachedpg_views SET n = n + 1 WHERE page = $1"

func main() {
	database := flag.String("database", os.Getenv("CACHEDPG_TEST_DATABASE"), "DSN of a database to make a table in")
	redis := flag.String("redis", os.Getenv("CACHEDPG_TEST_REDIS"), "URL of a Redis")
	dieAfter := flag.Int("die-after", 0, "be the other program, which dies when so many writes are queued")
	flag.Parse()
	if err := run(*database, *redis, *dieAfter, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(database, redis string, dieAfter int, out io.Writer) error {
	if database == "" || redis == "" {
		return errors.New("give -database and -redis, or run this by: scripts/services run -- go run ./examples/writebehind")
	}
	pg, err := pgx.ParseConfig(database)
	if err != nil {
		return err
	}
	dead := make(chan cachedpg.DeadLetter, 1)
	db, err := cachedpg.OpenDB(*pg, cachedpg.Config{
		Store:        redis,
		Policies:     []cachedpg.Policy{{Relation: "cachedpg_views", Strategy: "write-behind"}},
		OnDeadLetter: func(l cachedpg.DeadLetter) { dead <- l },
	})
	if err != nil {
		return err
	}
	defer db.Close()
	if dieAfter > 0 {
		return other(db, dieAfter)
	}
	plain, err := sql.Open("pgx", database)
	if err != nil {
		return err
	}
	defer plain.Close()
	if err := cachedpg.Setup(context.Background(), plain); err != nil { // as "cachedpg setup" does
		return err
	}
	if _, err := plain.Exec(`
		DROP TABLE IF EXISTS cachedpg_views; CREATE TABLE cachedpg_views (page text PRIMARY KEY, n int NOT NULL CHECK (n >= 0));
		INSERT INTO cachedpg_views VALUES ('home', 0), ('about', 0)`); err != nil {
		return err
	}
	s := &story{db: db, plain: plain, out: out}
	s.tell(dead)
	_, err = plain.Exec("DROP TABLE cachedpg_views")
	return errors.Join(s.err, err)
}

// other queues writes and dies before the last of them returns.
func other(db *sql.DB, dieAfter int) error {
	var queued atomic.Int64
	step.Hook = func(at string) {
		if at == step.Queued && queued.Add(1) == int64(dieAfter) {
			os.Exit(9) // nothing is closed, nothing is drained
		}
	}
	for {
		if _, err := db.Exec(count, "home"); err != nil {
			return err
		}
	}
}

type story struct {
	db, plain *sql.DB
	out       io.Writer
	err       error
}

func (s *story) say(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

func (s *story) tell(dead <-chan cachedpg.DeadLetter) {
	for s.err == nil && cachedpg.StatsOf(s.db).Queue.Queued == 0 { // the cache may have to begin
		s.exec(count, "about")
	}
	queued := cachedpg.StatsOf(s.db).Queue.Queued
	s.say("Nobody applies anything while PostgreSQL's row of the queue is locked.")
	s.reads()
	unlock := s.lock()
	s.say("100 views are counted.")
	for range 100 {
		if result := s.exec(count, "home"); result != nil {
			if _, err := result.RowsAffected(); err == nil {
				s.err = errors.New("RowsAffected is known before the statement has run")
			}
		}
	}
	s.say("  %d are acknowledged, PostgreSQL has %d", cachedpg.StatsOf(s.db).Queue.Queued-queued, s.truth())
	unlock()

	s.say("\nA read through the driver comes after them.")
	s.reads()

	s.say("\nAnother program counts 10 views and dies in the middle of the tenth call.")
	if s.err == nil {
		args := append(os.Args[1:len(os.Args):len(os.Args)], "-die-after", "10")
		cmd := exec.Command(os.Args[0], args...)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 9 {
			s.err = fmt.Errorf("the other program: %w", err)
		}
	}
	s.reads()

	s.say("\nA write that PostgreSQL refuses is found out later.")
	s.exec("UPDATE cachedpg_views SET n = $2 WHERE page = $1", "home", -1)
	s.exec(count, "home")
	s.reads()
	if s.err == nil {
		l := <-dead
		s.say("  dead letter: SQLSTATE %s, %s", l.SQLState, l.SQL)
	}

	s.say("\nWhat is not one row by its key runs at once, after what is queued.")
	s.exec(count, "home")
	if result := s.exec("UPDATE cachedpg_views SET n = n * 2"); result != nil {
		n, err := result.RowsAffected()
		s.err = err
		s.say("  %d rows", n)
	}
	s.say("  PostgreSQL has %d", s.truth())
}

func (s *story) exec(query string, args ...any) sql.Result {
	if s.err != nil {
		return nil
	}
	var result sql.Result
	if result, s.err = s.db.Exec(query, args...); s.err != nil {
		return nil
	}
	return result
}

// reads reads through the driver.
func (s *story) reads() {
	if s.err != nil {
		return
	}
	var n int
	s.err = s.db.QueryRow("SELECT n FROM cachedpg_views WHERE page = 'home'").Scan(&n)
	s.say("  %d views", n)
}

// truth reads past the driver.
func (s *story) truth() (n int) {
	if s.err == nil {
		s.err = s.plain.QueryRow("SELECT n FROM cachedpg_views WHERE page = 'home'").Scan(&n)
	}
	return n
}

// lock keeps the queue from being emptied.
func (s *story) lock() (unlock func()) {
	tx, err := s.plain.BeginTx(context.Background(), nil)
	if err != nil {
		s.err = errors.Join(s.err, err)
		return func() {}
	}
	if _, err := tx.Exec("LOCK TABLE cachedpg.queue IN EXCLUSIVE MODE"); err != nil {
		s.err = errors.Join(s.err, err)
	}
	return func() { s.err = errors.Join(s.err, tx.Rollback()) }
}
