package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// ErrServerReplaced: another server has taken the place of the one that knows.
var ErrServerReplaced = errors.New("cachedpg: the PostgreSQL server that a commit was sent to has been replaced, or was started anew")

const (
	outcomeKnown    = "="
	outcomeReplaced = "replaced"
)

// Outcome makes of a question, a SELECT of one value, one that tells in the same
// statement who answers it. See ReadOutcome.
func (id Identity) Outcome(question string) string {
	if id == (Identity{}) { // whichever server it is
		return "SELECT pg_catalog.concat('" + outcomeKnown + "', (" + question + "))"
	}
	return "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby'" +
		" WHEN " + systemSQL + " OPERATOR(pg_catalog.<>) " + Literal(id.System) + " THEN 'system'" +
		" WHEN " + TimelineSQL + " OPERATOR(pg_catalog.<>) " + Literal(id.Timeline) +
		" OR " + StartedSQL + " OPERATOR(pg_catalog.<>) " + Literal(id.Started) + " THEN '" + outcomeReplaced + "'" +
		" ELSE pg_catalog.concat('" + outcomeKnown + "', (" + question + ")) END"
}

// AskOutcome asks a question about commits over a connection that may lead anywhere.
func (id Identity) AskOutcome(ctx context.Context, in Conn, question string) (string, error) {
	answer, err := in.Ask(ctx, id.Outcome(question))
	if err != nil {
		return "", err
	}
	return id.ReadOutcome(answer)
}

// Asker is AskOutcome over in.
func (id Identity) Asker(in Conn) AskFunc {
	return func(ctx context.Context, question string) (string, error) { return id.AskOutcome(ctx, in, question) }
}

// ReadOutcome returns the answer to a question of Outcome. It is ErrServerReplaced if there
// will never be one, and another error if there is none now.
func (id Identity) ReadOutcome(answer string) (string, error) {
	if answer, ok := strings.CutPrefix(answer, outcomeKnown); ok {
		return answer, nil
	}
	if answer == outcomeReplaced {
		return "", ErrServerReplaced
	}
	return "", fmt.Errorf("cachedpg: of the outcome of a commit a %s knows nothing: PostgreSQL is not %s", answer, id)
}

// IsTrue reads a boolean as PostgreSQL writes it, alone or as a text.
func IsTrue(answer string) bool { return answer == "t" || answer == "true" }

// AskFunc asks PostgreSQL a question, a SELECT of one value.
type AskFunc func(ctx context.Context, question string) (string, error)
