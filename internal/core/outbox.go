package core

import (
	"context"
	"fmt"
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/outbox"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/store"
)

// Where the outbox, which is package internal/outbox, meets the driver.

// Relay carries the outbox of the database, see cachedpg.Relay.
func (d *DB) Relay(ctx context.Context, o outbox.RelayOptions) error {
	if d.Target == nil {
		return fmt.Errorf("cachedpg: relay: cache_store=%s is not shared; name the Redis of the writers", d.Config.Store)
	}
	return d.outbox.Relay(ctx, outbox.Host{Dial: d.dialRelay, Adopt: d.adoptRelay, Lasting: []error{errClosed, space.ErrOtherStore}}, o)
}

func (d *DB) dialRelay(ctx context.Context) (backend.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	return d.dial(ctx)
}

func (d *DB) adoptRelay(s *backend.Session, direct bool) (*outbox.Place, error) {
	_, sp, err := d.adopt(s, sighting{direct: direct})
	switch {
	case err != nil || s.Standby:
		return nil, err
	case sp == nil:
		return nil, errClosed
	case d.Stranger(sp):
		return nil, space.ErrOtherStore
	}
	sp.Enter()
	return &outbox.Place{ID: sp.Key.Identity, Store: sp.Keeper.Store, Log: &sp.Log, Guard: sp.Guard, Everything: space.Everything,
		Superseded: sp.Superseded.Load, Leave: sp.Leave}, nil
}

// outboxEvent is what became of the event of a write, see post.
type outboxEvent struct {
	sent     bool // together with the statement
	readOnly bool // the transaction takes no more writes
}

// eventOf is the event of the commit.
func (e *effect) eventOf(tags []store.Tag) outbox.Event {
	return outbox.Event{Tags: tags, Local: e.marking() == markedAfterwards}
}

// eventWith is the command that writes the event in the round trip of the statement of
// q, or nothing where that will not do: the tags may not be known yet.
func (e *effect) eventWith(q *call) []string {
	if !isPlain(q) || e.also.asks || e.c.d.Config.Outbox != config.OutboxAlways || !e.posts() || len(e.tags) == 0 {
		return nil
	}
	e.event.sent = true
	return []string{e.eventOf(e.tags).SQL()}
}

// post writes the event of a commit that is about to be sent. It comes after the
// marks, which tell whether the tags are complete.
func (e *effect) post(ctx context.Context) error {
	if e.write == nil || !e.posts() || e.c.inner.TxStatus() == 'E' {
		return nil
	}
	tags := e.tags
	if e.schema {
		tags = append(slices.Clip(tags), space.Everything...)
	}
	if e.kind == writeAlone {
		return e.postAlone(ctx, tags)
	}
	if err := e.transaction(ctx); err != nil || !e.hasWritten() {
		return err
	}
	if e.event.sent && !e.schema {
		e.c.d.outbox.Posted()
		return nil
	}
	c := e.c
	if e.kind == writeWrapped || e.also.asks || e.nameless { // else it was asked for together with the id
		var err error
		if e.event.readOnly, err = outbox.IsReadOnly(ctx, c.inner); err != nil {
			return err
		}
	}
	if e.event.readOnly {
		return e.postApart(ctx, tags, e.xid)
	}
	if c.d.Config.Outbox == config.OutboxAuto { // without the table there is no such way
		if may, err := outbox.MayPost(ctx, c.inner); err != nil || !may {
			return err
		}
	}
	return c.d.outbox.Post(ctx, c.inner, e.eventOf(tags))
}

// postAlone writes the event of a statement that runs outside of transactions, under the lock that says
// that one does (alone.go).
func (e *effect) postAlone(ctx context.Context, tags []store.Tag) error {
	if e.marking() == markedAfterwards {
		if err := e.announce(ctx); err != nil {
			return err
		}
	}
	return e.postApart(ctx, tags, "")
}

// postApart writes the event outside of the transaction that it tells of. With "auto" its commit does without if need be.
func (e *effect) postApart(ctx context.Context, tags []store.Tag, xid string) error {
	err := e.c.d.outbox.PostApart(ctx, &e.space.Keeper.Guard, e.eventOf(tags), e.kind == writeAlone || e.nameless, xid)
	if err != nil && e.c.d.Config.Outbox == config.OutboxAuto {
		e.c.d.outbox.Unposted(err)
		return nil
	}
	return err
}

// explainOutbox is the error of a statement, or that of its event, if that was sent together with it.
func (e *effect) explainOutbox(ctx context.Context, cause error) error {
	if !e.event.sent {
		return cause
	}
	return outbox.ExplainWith(ctx, e.c.inner, cause)
}

// markByRelay has a relay mark what this process could not mark in the store. It reports
// that this was done, as well as if the writer had done it.
func (e *effect) markByRelay(ctx context.Context, planned store.Stamp) bool {
	d := e.c.d
	return d.Config.Outbox != config.OutboxOff && d.outbox.Ask(ctx, &e.space.Keeper.Guard, e.write.ID(), e.tags, planned)
}
