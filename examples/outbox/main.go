// Command outbox shows what a row in the database is good for that says what a
// commit has changed. A process that is cut off from Redis goes on writing while
// the others keep their cache, and a process that is killed between its commit
// and the message about it leaves the message behind.
//
// This process reads, and runs the relay. It starts itself again as the writer,
// which reaches Redis by way of a proxy here, so that it alone can be cut off.
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
	"github.com/cachedpg/cachedpg/invalidation"
)

func main() {
	database := flag.String("database", os.Getenv("CACHEDPG_TEST_DATABASE"), "URL of a database to make tables in")
	redis := flag.String("redis", os.Getenv("CACHEDPG_TEST_REDIS"), "URL of a Redis")
	outbox := flag.String("outbox", "", "be the writer, with this cache_outbox")
	flag.Parse()
	var err error
	if *outbox == "" {
		err = run(*database, *redis, os.Stdout)
	} else {
		err = write(*database, *redis, *outbox)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const stock = "SELECT stock FROM cachedpg_outbox WHERE id = $1"

// write is the writer. Each line of its input is a new stock of item 1.
func write(database, redis, outbox string) error {
	db, err := sql.Open("cachedpg", withKeys(database, "cache_store", redis, "cache_outbox", outbox))
	if err != nil {
		return err
	}
	defer db.Close()
	var n int
	if err := db.QueryRow(stock, 1).Scan(&n); err != nil { // it knows the schema before it is cut off
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if _, err := db.Exec("UPDATE cachedpg_outbox SET stock = $1::text::int WHERE id = 1", lines.Text()); err != nil {
			return err
		}
		fmt.Println("committed")
	}
	return nil
}

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

func run(database, redis string, out io.Writer) (err error) {
	if database == "" || redis == "" {
		return errors.New("give -database and -redis, or run this by: make examples")
	}
	db, err := sql.Open("cachedpg", withKeys(database, "cache_store", redis))
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := cachedpg.Setup(ctx, db); err != nil {
		return err
	}
	if _, err := db.Exec("DROP TABLE IF EXISTS cachedpg_outbox; CREATE TABLE cachedpg_outbox (id int PRIMARY KEY, stock int NOT NULL);" +
		" INSERT INTO cachedpg_outbox VALUES (1, 10), (2, 20)"); err != nil {
		return err
	}
	defer func() {
		_, dropped := db.Exec("DROP TABLE cachedpg_outbox")
		err = errors.Join(err, dropped)
	}()
	s := &story{ctx: ctx, db: db, database: database, redis: redis, out: out}
	s.cutOff()
	s.killed()
	return s.err
}

// story tells what happens and remembers the first error.
type story struct {
	ctx             context.Context
	db              *sql.DB
	database, redis string
	out             io.Writer
	err             error
}

func (s *story) say(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

// cutOff is the story of a writer without Redis.
func (s *story) cutOff() {
	s.say("Two items are cached. A relay runs.")
	stop := s.relay(nil)
	defer stop()
	proxy, address := s.proxy()
	if s.err != nil {
		return
	}
	defer proxy.close()
	w := s.writer(address, "auto")
	defer w.end()
	s.cached(1, 10)
	s.cached(2, 20)

	s.say("\nAnother process is cut off from Redis, and sets the stock of item 1 to 9. Before")
	s.say("its COMMIT it asks the relay, through PostgreSQL, to mark the row in its place.")
	proxy.cut()
	s.say("  its write is %s", w.writes(9))
	s.reads(1, 9)
	s.say("Nobody has lost anything else from the cache.")
	s.cached(2, 20)
	s.cached(1, 9)
}

// killed is the story of a writer that dies too early.
func (s *story) killed() {
	s.say("\nA process with cache_outbox=always sets it to 8 and is killed. No relay runs.")
	w := s.writer(s.redis, "always")
	s.say("  its write is %s", w.writes(8))
	w.kill()
	s.say("  rows that wait: %d", s.waiting())
	s.say("A relay is started, with a sink that fails once, after it has got the event.")
	var got []string
	delivered := make(chan struct{})
	stop := s.relay(invalidation.SinkFunc(func(_ context.Context, events []invalidation.Event) error {
		for _, e := range events {
			got = append(got, e.ID)
		}
		if len(got) == 1 {
			return errors.New("connection lost")
		}
		close(delivered)
		return nil
	}))
	select {
	case <-delivered:
	case <-s.ctx.Done():
		s.err = errors.Join(s.err, s.ctx.Err())
	}
	for s.waiting() > 0 && s.err == nil {
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	s.say("  deliveries: %d, of the same event: %t", len(got), len(got) == 2 && got[0] == got[1])
	s.say("  rows that wait: %d", s.waiting())
	s.cached(1, 8)
}

// relay starts a relay, and returns when it is there for writers.
func (s *story) relay(sink invalidation.Sink) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	go func() {
		done <- cachedpg.Relay(ctx, s.db, cachedpg.RelayOptions{Sink: sink, Interval: 20 * time.Millisecond})
	}()
	for s.err == nil && s.ask("SELECT count(*)::int FROM pg_locks JOIN pg_stat_activity a USING (pid)"+
		" WHERE locktype = 'advisory' AND datname = current_database() AND query LIKE '%FROM cachedpg.outbox%'") == 0 {
		select {
		case err := <-done:
			s.err = err
		case <-time.After(5 * time.Millisecond):
		}
	}
	return func() {
		cancel()
		<-done
	}
}

func (s *story) waiting() int { return s.ask("SELECT count(*)::int FROM cachedpg.outbox") }

func (s *story) ask(query string, args ...any) (n int) {
	if s.err == nil {
		s.err = s.db.QueryRowContext(s.ctx, query, args...).Scan(&n)
	}
	return n
}

// reads reads once, right now.
func (s *story) reads(id, want int) { s.read(id, want, false) }

// cached reads until the cache answers. Every answer on the way must be right.
func (s *story) cached(id, want int) { s.read(id, want, true) }

func (s *story) read(id, want int, cached bool) {
	for s.err == nil {
		before := cachedpg.StatsOf(s.db).Hits
		got := s.ask(stock, id)
		hit := cachedpg.StatsOf(s.db).Hits > before
		if s.err == nil && got != want {
			s.err = fmt.Errorf("read a stock of %d, want %d", got, want)
		}
		if hit || !cached {
			s.say("  item %d: %d, from %s", id, got, map[bool]string{true: "the cache", false: "PostgreSQL"}[hit])
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// writer is the other process.
type writer struct {
	s   *story
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (s *story) writer(redis, outbox string) *writer {
	w := &writer{s: s}
	if s.err != nil {
		return w
	}
	cmd := exec.CommandContext(s.ctx, os.Args[0], "-database", s.database, "-redis", redis, "-outbox", outbox)
	cmd.Stderr = os.Stderr
	var out io.ReadCloser
	if w.in, s.err = cmd.StdinPipe(); s.err == nil {
		out, s.err = cmd.StdoutPipe()
	}
	if s.err == nil {
		s.err = cmd.Start()
	}
	if s.err == nil {
		w.cmd, w.out = cmd, bufio.NewScanner(out)
		w.line()
	}
	return w
}

func (w *writer) line() string {
	if w.cmd == nil || w.s.err != nil {
		return ""
	}
	if !w.out.Scan() {
		w.s.err = errors.New("the writer is gone")
	}
	return w.out.Text()
}

// writes sets the stock of item 1 and returns what the writer says of it.
func (w *writer) writes(stock int) string {
	if w.cmd != nil && w.s.err == nil {
		_, w.s.err = fmt.Fprintln(w.in, stock)
	}
	return w.line()
}

func (w *writer) kill() {
	if w.cmd != nil {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
	}
}

func (w *writer) end() {
	if w.cmd != nil {
		_ = w.in.Close()
		_ = w.cmd.Wait()
	}
}
