package cachedpg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// When a commit is over only the server knows to which it was sent. Any other one
// that answers in its place has something to say, and it is wrong:
//
//	writer                    primary              standby              resolver
//	intend, COMMIT →          (waits for its
//	connection lost            replica's disk)
//	                                               (has not heard of
//	                                                the transaction)
//	                                                                    "is it over?"
//	                                               "not in progress"
//	                                                                    release
//	(reader: miss, SELECT → old, fill)
//	                          visible
//	(a hit of old)
//
// So a question for an outcome holds the check of who answers: behind a pooler, or
// with several hosts in the DSN, the statement before may have gone elsewhere.
// Who is none of these three gives no answer, and is asked again:
//
//   - the server itself: its answer counts;
//   - what took its place: the same system, out of recovery, on another timeline or
//     with another beginning. It cannot tell whether the server of before is gone
//     for good. But what was cached belonged to that, and is not asked for here any
//     more, so its marks may stay as they are: nobody waits for them;
//   - a standby, or a system of another name: no answer.

// errServerReplaced: another server has taken the place of the one that knows.
var errServerReplaced = errors.New("cachedpg: the PostgreSQL server that a commit was sent to has been replaced, or was started anew")

var errNotPrimary = errors.New("cachedpg: PostgreSQL is a standby, and knows no outcome of a commit")

const (
	outcomeKnown    = "="
	outcomeReplaced = "replaced"
)

// outcome makes of a question, a SELECT of one value, one that tells in the same
// statement who answers it. See readOutcome.
func (id identity) outcome(question string) string {
	if id == (identity{}) { // whichever server it is
		return "SELECT pg_catalog.concat('" + outcomeKnown + "', (" + question + "))"
	}
	return "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby'" +
		" WHEN " + systemSQL + " OPERATOR(pg_catalog.<>) " + quoteText(id.system) + " THEN 'system'" +
		" WHEN " + timelineSQL + " OPERATOR(pg_catalog.<>) " + quoteText(id.timeline) +
		" OR " + startedSQL + " OPERATOR(pg_catalog.<>) " + quoteText(id.started) + " THEN '" + outcomeReplaced + "'" +
		" ELSE pg_catalog.concat('" + outcomeKnown + "', (" + question + ")) END"
}

// askOutcome asks a question about commits over a connection that may lead anywhere.
func (id identity) askOutcome(ctx context.Context, in inner, question string) (string, error) {
	answer, err := in.text(ctx, id.outcome(question))
	if err != nil {
		return "", err
	}
	return id.readOutcome(answer)
}

// asker is askOutcome over in.
func (id identity) asker(in inner) askFunc {
	return func(ctx context.Context, question string) (string, error) { return id.askOutcome(ctx, in, question) }
}

// readOutcome returns the answer to such a question. It is errServerReplaced if there
// will never be one, and another error if there is none now.
func (id identity) readOutcome(answer string) (string, error) {
	if answer, ok := strings.CutPrefix(answer, outcomeKnown); ok {
		return answer, nil
	}
	if answer == outcomeReplaced {
		return "", errServerReplaced
	}
	return "", fmt.Errorf("cachedpg: of the outcome of a commit a %s knows nothing: PostgreSQL is not %s", answer, id)
}

// primaryOnly is the key of a context in which connections are dialled for
// questions that a standby cannot answer. Of several hosts the DSN may name one first.
type primaryOnly struct{}

func toPrimary(ctx context.Context) context.Context {
	return context.WithValue(ctx, primaryOnly{}, true)
}

// asPrimary makes a dial of such a context look for a primary.
func asPrimary(ctx context.Context, config *pgx.ConnConfig) {
	if ctx.Value(primaryOnly{}) == nil {
		return
	}
	asked := config.ValidateConnect
	config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		var notPreferred *pgconn.NotPreferredError
		if asked != nil {
			if err := asked(ctx, conn); err != nil && !errors.As(err, &notPreferred) {
				return err
			}
		}
		result := conn.ExecParams(ctx, "SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text", nil, nil, nil, nil).Read()
		if result.Err == nil && string(result.Rows[0][0]) != "false" {
			return errNotPrimary
		}
		return result.Err
	}
}

// dialOutcome dials somebody who may know the outcome of a commit on the server of id,
// past the standbys among the hosts of the DSN. The question will tell who answers.
func (d *connector) dialOutcome(ctx context.Context, id identity) (in inner, err error) {
	for _, dial := range d.ways(id) {
		if in, err = dial(toPrimary(ctx)); err == nil {
			return in, nil
		}
	}
	return nil, err
}

// outcome asks a question about commits, see identity.outcome.
func (g *guard) outcome(ctx context.Context, question string) (answer string, err error) {
	err = g.with(ctx, func(in inner) error {
		answer, err = g.id.askOutcome(ctx, in, question)
		return err // if it is not PostgreSQL's it closes the connection: what is dialled next may be the one
	})
	if gone := (elsewhere{}); !errors.As(err, &gone) {
		return answer, err
	}
	// Somebody else has the place. The guard keeps no connection to that.
	for _, d := range g.all() {
		in, failed := d.dialOutcome(ctx, g.id)
		if failed != nil {
			continue
		}
		answer, err = g.id.askOutcome(ctx, in, question)
		_ = in.Close()
		if err == nil || errors.Is(err, errServerReplaced) {
			break
		}
	}
	return answer, err
}

// ended returns how to find out that a transaction has ended whose answer did
// not arrive: by its id, or by its backend being gone. A backend ends only
// after its transaction has, and a transaction's effect is visible, or never
// will be, when its id is no longer in progress. If it may have committed without
// waiting for the disk, it must be there as well.
func (d *connector) ended(sp *space, pid uint32, xid string, commits commitMode) func(context.Context) (bool, error) {
	var seen string // PostgreSQL's clock at the first question
	var over bool
	var disk flushPoint
	return func(ctx context.Context) (bool, error) {
		id := sp.key.identity
		in, err := d.dialOutcome(ctx, id)
		if err != nil {
			return false, err
		}
		defer in.Close()
		ask := id.asker(in)
		var answer string
		switch {
		case over:
		case xid != "":
			answer, err = ask(ctx, "SELECT "+transactionOver(xid))
			over = isTrue(answer) || isFuture(err)
		case pid == 0:
			return false, nil // behind a pooler without an id nothing can be proved: the tags stay marked
		case seen == "":
			seen, err = ask(ctx, "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.text")
			return false, err
		default:
			// A backend of the same PID that started later is another one.
			answer, err = ask(ctx, fmt.Sprintf("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity"+
				" WHERE pid OPERATOR(pg_catalog.=) %d AND coalesce(backend_start OPERATOR(pg_catalog.<=) pg_catalog.to_timestamp(%s), true))", pid, seen))
			over = isTrue(answer)
		}
		if !over || commits == commitSync {
			return over, err
		}
		return disk.forced(ctx, &sp.log, ask)
	}
}

// isTrue reads a boolean as PostgreSQL writes it, alone or as a text.
func isTrue(answer string) bool { return answer == "t" || answer == "true" }
