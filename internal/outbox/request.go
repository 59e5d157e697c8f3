package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/store"
)

const (
	// A commit waits so long for a relay. It answers in milliseconds or not at all.
	patience = 500 * time.Millisecond
	// After no answer the others do not wait for one.
	rest = 5 * time.Second
)

var (
	errRefused = errors.New("cachedpg: cache_outbox: the catalog or the store has changed since the statement was planned")
	errNoRelay = errors.New("cachedpg: cache_outbox: no relay is there that can reach the store; run: cachedpg relay --dsn …")
	errSilent  = errors.New("cachedpg: cache_outbox: no relay answered in time")
)

// Ask has a relay mark the tags of the open transaction w, which were planned with the catalog of that stamp. It reports
// that this was done, as well as if the writer had done it. Where nothing can be asked it is false at once.
func (o *Outbox) Ask(ctx context.Context, g *guard.Guard, w store.WriterID, tags []store.Tag, planned store.Stamp) bool {
	xid, ok := w.Transaction()
	if !ok || planned == 0 || time.Now().UnixNano() < o.silent.Load() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	problem := o.request(ctx, g, w, xid, tags, planned)
	if problem == nil {
		o.marked.Add(1)
		o.note("")
		return true
	}
	if !errors.Is(problem, errRefused) { // which is about this commit alone
		o.silent.Store(time.Now().Add(rest).UnixNano())
	}
	o.note(problem.Error())
	return false
}

// request writes a request, unless no relay is there, and waits for the answer.
func (o *Outbox) request(ctx context.Context, g *guard.Guard, w store.WriterID, xid uint64, tags []store.Tag, planned store.Stamp) error {
	id, err := g.Write(ctx, fmt.Sprintf("WITH request AS (INSERT INTO cachedpg.outbox (tags, xid, writer, catalog)"+
		" SELECT %s, '%d', pg_catalog.decode('%x', 'hex'), %d WHERE %s RETURNING id::pg_catalog.text OPERATOR(pg_catalog.||) pg_catalog.pg_notify('%s', '')::pg_catalog.text AS id)"+
		" SELECT coalesce((SELECT id FROM request), '')", encodeTags(tags), xid, w[:], int64(planned), guard.Held(guard.LockRelay), channel))
	switch {
	case err != nil:
		return Explain(err)
	case id == "":
		return errNoRelay
	}
	o.asked.Add(1)
	step.At(step.Asked)
	if _, err := strconv.ParseInt(id, 10, 64); err != nil {
		return fmt.Errorf("cachedpg: cache_outbox: PostgreSQL gives %q as a row's id", id)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		answer, err := g.Text(ctx, "SELECT coalesce((SELECT marked::pg_catalog.text FROM cachedpg.outbox WHERE id OPERATOR(pg_catalog.=) "+id+"), '')")
		switch {
		case answer == "true":
			return nil
		case answer == "false":
			return errRefused
		case err != nil && ctx.Err() == nil:
			return Explain(err)
		}
		if pause.For(ctx, wait) != nil {
			return errSilent
		}
	}
}
