package core

import (
	"context"
	"fmt"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
)

// DialOutcome dials somebody who may know the outcome of a commit on the server of id,
// past the standbys among the hosts of the DSN. The question will tell who answers.
func (d *DB) DialOutcome(ctx context.Context, id backend.Identity) (in backend.Conn, err error) {
	for _, dial := range d.ways(id) {
		if in, err = dial(backend.ToPrimary(ctx)); err == nil {
			return in, nil
		}
	}
	return nil, err
}

// ended returns how to find out that a transaction has ended whose answer did
// not arrive: by its id, or by its backend being gone. A backend ends only
// after its transaction has, and a transaction's effect is visible, or never
// will be, when its id is no longer in progress. If it may have committed without
// waiting for the disk, it must be there as well.
func (d *DB) ended(sp *space.Space, pid uint32, xid string, commits backend.CommitMode) func(context.Context) (bool, error) {
	var seen string // PostgreSQL's clock at the first question
	var over bool
	var disk backend.FlushPoint
	return func(ctx context.Context) (bool, error) {
		id := sp.Key.Identity
		in, err := d.DialOutcome(ctx, id)
		if err != nil {
			return false, err
		}
		defer in.Close()
		ask := id.Asker(in)
		var answer string
		switch {
		case over:
		case xid != "":
			answer, err = ask(ctx, "SELECT "+backend.TransactionOverSQL(xid))
			over = backend.IsTrue(answer) || backend.IsFuture(err)
		case pid == 0:
			return false, nil // behind a pooler without an id nothing can be proved: the tags stay marked
		case seen == "":
			seen, err = ask(ctx, "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.text")
			return false, err
		default:
			// A backend of the same PID that started later is another one.
			answer, err = ask(ctx, fmt.Sprintf("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity"+
				" WHERE pid OPERATOR(pg_catalog.=) %d AND coalesce(backend_start OPERATOR(pg_catalog.<=) pg_catalog.to_timestamp(%s), true))", pid, seen))
			over = backend.IsTrue(answer)
		}
		if !over || commits == backend.CommitSync {
			return over, err
		}
		return disk.Forced(ctx, &sp.Log, ask)
	}
}
