package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/contrib/kafka"
)

// story asks region B for prices and says where the answers came from.
type story struct {
	ctx context.Context
	o   options
	db  *sql.DB
	out io.Writer
	err error // the first; nothing happens behind it

	consumer *kafka.Consumer
	stopped  func()
}

func (s *story) say(text string) {
	if s.err == nil {
		fmt.Fprintf(s.out, "\n%s\n", text)
	}
}

// consume starts region B's consumer. It is what cachedpg-kafka consume does.
func (s *story) consume() {
	if s.err != nil {
		return
	}
	config := kafka.Config{Brokers: strings.Split(s.o.brokers, ","), Topic: s.o.topic, Group: s.o.topic,
		OnError: func(err error) { fmt.Fprintln(os.Stderr, err) }}
	if s.consumer, s.err = kafka.NewConsumer(config); s.err != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	go func(c *kafka.Consumer) { done <- c.Run(ctx, s.db) }(s.consumer)
	s.stopped = func() {
		cancel()
		if err := <-done; s.err == nil && !errors.Is(err, context.Canceled) {
			s.err = err
		}
	}
}

// stop ends the consumer, if one runs.
func (s *story) stop() {
	if s.stopped != nil {
		s.stopped()
		s.stopped = nil
	}
}

// write has region A's application write.
func (s *story) write(price int) {
	if s.err != nil {
		return
	}
	cmd := exec.CommandContext(s.ctx, os.Args[0], append(s.o.args(), "-as", "writer", "-price", fmt.Sprint(price))...)
	cmd.Stdout, cmd.Stderr = s.out, os.Stderr
	s.err = cmd.Run()
}

// sent waits until Kafka has what is in the outbox.
func (s *story) sent() {
	s.await("the outbox to be empty", func() bool {
		var rows int
		s.err = s.db.QueryRowContext(cachedpg.WithBypass(s.ctx), "SELECT count(*) FROM cachedpg.outbox").Scan(&rows)
		return rows == 0
	})
}

// price reads a price and reports whether the cache answered.
func (s *story) price(id int) (price int, hit bool) {
	if s.err != nil {
		return 0, false
	}
	before := cachedpg.StatsOf(s.db).Hits
	s.err = s.db.QueryRowContext(s.ctx, query, id).Scan(&price)
	return price, cachedpg.StatsOf(s.db).Hits > before
}

// reads reads until the cache is asked, which it is not while its lease is being
// renewed late.
func (s *story) reads(id, want int) {
	var price int
	var hit bool
	s.await("an answer", func() bool {
		before := cachedpg.StatsOf(s.db).Lookups
		price, hit = s.price(id)
		return cachedpg.StatsOf(s.db).Lookups > before
	})
	if s.err == nil && price != want {
		s.err = fmt.Errorf("read a price of %d, want %d", price, want)
	}
	s.tell(id, price, hit)
}

// cached reads until the cache answers.
func (s *story) cached(id, want int) {
	s.await("a hit", func() bool {
		price, hit := s.price(id)
		if s.err == nil && price != want {
			s.err = fmt.Errorf("read a price of %d, want %d", price, want)
		}
		return hit
	})
	s.tell(id, want, true)
}

// until reads the old price until it is the new one, which the cache does not
// have yet.
func (s *story) until(id, old, want int) {
	s.await(fmt.Sprintf("a price of %d", want), func() bool {
		price, hit := s.price(id)
		switch {
		case s.err != nil || price == old:
			return false
		case price != want || hit:
			s.err = fmt.Errorf("read a price of %d (cached: %t), want %d", price, hit, want)
			return false
		}
		return true
	})
	s.tell(id, want, false)
}

func (s *story) tell(id, price int, hit bool) {
	if s.err == nil {
		fmt.Fprintf(s.out, "  B: item %d, price %d, from %s\n", id, price, map[bool]string{true: "the cache", false: "PostgreSQL"}[hit])
	}
}

// patience bounds a wait for what other processes do.
const patience = 20 * time.Second

// await waits for what other processes do.
func (s *story) await(what string, is func() bool) {
	for until := time.Now().Add(patience); s.err == nil && !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			s.err = errors.New("not seen: " + what)
		}
	}
}
