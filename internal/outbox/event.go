package outbox

import (
	"context"
	"fmt"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// Event tells of one commit.
type Event struct {
	Tags  []store.Tag // what it changes
	Local bool        // the writer's own store may not have been told
}

// SQL is the statement that writes an event into the transaction that is open.
// If that has written nothing else there is nothing to tell of.
func (v Event) SQL() string {
	return fmt.Sprintf("INSERT INTO cachedpg.outbox (tags, local) SELECT %s, %t WHERE pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL",
		encodeTags(v.Tags), v.Local)
}

// Post writes the event into the transaction that is open on in.
func (o *Outbox) Post(ctx context.Context, in backend.Conn, v Event) error {
	if _, err := in.ExecContext(ctx, v.SQL(), nil); err != nil {
		return Explain(err)
	}
	o.Posted()
	return nil
}

// Posted counts an event that was written together with another statement.
func (o *Outbox) Posted() { o.posted.Add(1) }

// PostApart writes an event outside of the transaction that it tells of: a
// read-only one, which may have written before it was made so, or none. alone: it is over when nobody holds
// guard.LockAlone; xid is the id of the transaction, or "" if that is not known.
func (o *Outbox) PostApart(ctx context.Context, g *guard.Guard, v Event, alone bool, xid string) error {
	if xid = "'" + xid + "'"; xid == "''" {
		xid = "NULL"
	}
	_, err := g.Write(ctx, fmt.Sprintf("INSERT INTO cachedpg.outbox (tags, local, alone, xid) VALUES (%s, %t, %t, %s) RETURNING ''",
		encodeTags(v.Tags), v.Local, alone, xid))
	if err != nil {
		return Explain(err)
	}
	o.Posted()
	return nil
}

// Unposted has Stats tell of an event that was not written, and which its commit does without.
func (o *Outbox) Unposted(err error) { o.note(err.Error()) }
