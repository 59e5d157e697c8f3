package kafka

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// batch is what records say, by the database that they are of. What cannot be
// read at all may be of any and has the source "".
type batch map[string]*changes

type changes struct {
	tags    map[store.Tag]bool
	records int64
	oldest  time.Time // zero if no event says when it was

	unreadable int64 // of records
	problem    error // with one of them
}

func newBatch(records []*kgo.Record) batch {
	b := make(batch)
	for _, r := range records {
		e, err := parseRecord(r)
		c := b[e.Source]
		if c == nil {
			c = &changes{tags: make(map[store.Tag]bool)}
			b[e.Source] = c
		}
		c.records++
		if err != nil {
			c.unreadable++
			c.problem = fmt.Errorf("cachedpg: kafka: topic %s, partition %d, offset %d cannot be read: %w", r.Topic, r.Partition, r.Offset, err)
			continue
		}
		for _, t := range e.Tags {
			c.tags[t] = true
		}
		if !e.Time.IsZero() && (c.oldest.IsZero() || e.Time.Before(c.oldest)) {
			c.oldest = e.Time
		}
	}
	return b
}

// of returns what the batch says of a database, never nil.
func (b batch) of(source string) *changes {
	if c := b[source]; c != nil {
		return c
	}
	return &changes{}
}

// applier applies batches to a store. It belongs to one goroutine.
type applier struct {
	consumer *Consumer
	db       *sql.DB
	source   string // of the database that db reaches, as far as is known

	// ahead says that events were left out which may concern db one day: they
	// are of a later life of its database. Until it is there nothing is
	// committed, so that a restart finds them again.
	ahead bool
}

// apply applies b, and returns nil when its offsets may be committed (K2).
//
// Whose the events are is asked again whenever some are of a stranger, since a
// promotion makes another database of the one that db reaches. It may reach it
// later than others do:
//
//	consumer                        PostgreSQL              another process
//	                                a standby is promoted
//	                                                        reaches it, caches x
//	                                x changes there: event
//	the event is of a stranger:
//	the old one answers yet
//	                                the old one dies
//	reaches the new one                                     (… and hits the old x)
//
// So when another database is found than before, everything is invalidated in it.
func (a *applier) apply(ctx context.Context, b batch) error {
	if a.source == "" || b.of(a.source).records != b.records() {
		origin, err := cachedpg.OriginOf(ctx, a.db)
		if err != nil {
			return fmt.Errorf("cachedpg: kafka: nothing is applied until it is known which database this is: %w", err)
		}
		if origin.Source != a.source {
			if err := a.consumer.invalidateAll(ctx, a.db); err != nil {
				return err
			}
			a.source, a.ahead = origin.Source, false
		}
	}
	mine := b.of(a.source)
	if err := a.applyChanges(ctx, mine, b.of("")); err != nil {
		a.source = "" // it may be another database by now
		return err
	}
	c := a.consumer
	unreadable := mine.unreadable + b.of("").unreadable
	c.applied.Add(mine.records - mine.unreadable)
	c.unreadable.Add(unreadable)
	c.others.Add(b.records() - mine.records - b.of("").records)
	if !mine.oldest.IsZero() {
		c.lag.Store(int64(max(time.Since(mine.oldest), 0)))
	}
	for source := range b {
		a.ahead = a.ahead || later(source, a.source)
	}
	return nil
}

// applyChanges applies what is of this database, or may be.
func (a *applier) applyChanges(ctx context.Context, mine, unknown *changes) error {
	for _, c := range []*changes{unknown, mine} {
		if c.problem != nil {
			// K4. Once for all that was read together, or somebody who writes
			// nonsense would have the consumer do nothing else.
			if err := a.consumer.invalidateAll(ctx, a.db); err != nil {
				return err
			}
			a.consumer.tell(c.problem)
			return nil
		}
	}
	if len(mine.tags) == 0 {
		return nil
	}
	e := invalidation.Event{Source: a.source, Time: mine.oldest, Tags: make([]store.Tag, 0, len(mine.tags))}
	for t := range mine.tags {
		e.Tags = append(e.Tags, t)
	}
	return cachedpg.Apply(ctx, a.db, e)
}

func (b batch) records() (n int64) {
	for _, c := range b {
		n += c.records
	}
	return n
}

// later reports whether a is what a promotion or a restart makes of b: the Source
// of an event is "system/timeline/start/name/oid".
func later(a, b string) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	if len(x) != 5 || len(y) != 5 || x[0] != y[0] || x[4] != y[4] {
		return false
	}
	greater := func(a, b string) bool { return len(a) > len(b) || len(a) == len(b) && a > b }
	return greater(x[1], y[1]) || x[1] == y[1] && greater(x[2], y[2])
}
