package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// What the driver asks in the caller's transaction must not cost it that transaction. An error
// would: a right that the role lacks, or has lost by SET LOCAL ROLE; a function that the server
// does not have; the caller's own statement_timeout or lock_timeout, which may be a few milliseconds
// because his statements take less. So a question is asked within a savepoint,
// to which the transaction returns whatever the answer is, and under limits of its own. All of it is one message:
//
//	SAVEPOINT; SET LOCAL the limits; question; ROLLBACK TO    the caller's limits are back
//	what is to last; RELEASE
//
// Who gets no answer does what is right without one: a read asks PostgreSQL, a write marks more.
const (
	asideBegins = "SAVEPOINT cachedpg_aside"
	asideLimits = "SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '250ms'"
	asideReturn = "ROLLBACK TO SAVEPOINT cachedpg_aside"
	asideEnds   = "RELEASE SAVEPOINT cachedpg_aside"
)

// RollbackTimeout bounds the ROLLBACK of what a context has ended.
const RollbackTimeout = 5 * time.Second

// RefusedFor is how long a role's missing right is remembered.
const RefusedFor = time.Minute

// asideRows asks a question of one row in the open transaction, and then runs lasting, whose effect on the
// transaction stays, such as a setting or a lock. Either may be "". After an error of PostgreSQL's the transaction is as it was.
func (s *pgxSession) asideRows(ctx context.Context, question, lasting string) (answer, kept *pgconn.Result, err error) {
	conn := s.pgxConn.PgConn()
	commands := []string{asideBegins}
	if question != "" {
		commands = append(commands, asideLimits, question, asideReturn)
	}
	if lasting != "" {
		commands = append(commands, lasting)
	}
	commands = append(commands, asideEnds)
	results, err := conn.Exec(ctx, strings.Join(commands, "; ")).ReadAll()
	if err != nil {
		if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && !conn.IsClosed() && conn.TxStatus() == 'E' {
			err = errors.Join(err, s.UndoAside(ctx))
		}
		return nil, nil, err
	}
	for _, r := range results {
		switch {
		case len(r.FieldDescriptions) == 0:
		case question != "" && answer == nil:
			answer = r
		default:
			kept = r
		}
	}
	return answer, kept, nil
}

// UndoAside leads a transaction that a question has made fail back to where it was. It takes RollbackTimeout at most.
func (s *pgxSession) UndoAside(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RollbackTimeout)
	defer cancel()
	return s.pgxConn.PgConn().Exec(ctx, asideReturn+"; "+asideEnds).Close()
}

// Aside asks a question of one value, see Conn.
func (s *pgxSession) Aside(ctx context.Context, question, lasting string) (answer, kept string, err error) {
	asked, last, err := s.asideRows(ctx, question, lasting)
	if err == nil && question != "" {
		answer, err = only(asked)
	}
	if err == nil && lasting != "" {
		kept, err = only(last)
	}
	return answer, kept, err
}

// only returns the one value of a result.
func only(result *pgconn.Result) (string, error) {
	switch {
	case result == nil:
		return "", errors.New("cachedpg: PostgreSQL gives no result")
	case len(result.Rows) != 1 || len(result.Rows[0]) != 1 || result.Rows[0][0] == nil:
		return "", fmt.Errorf("cachedpg: PostgreSQL gives %d rows, not one value", len(result.Rows))
	}
	return string(result.Rows[0][0]), nil
}

// AskIn asks a question of one value over in, and in the transaction that is open there without
// risk for it.
func AskIn(ctx context.Context, in Conn, question string) (string, error) {
	if in.TxStatus() != 'T' {
		return in.Ask(ctx, question)
	}
	answer, _, err := in.Aside(ctx, question, "")
	return answer, err
}

// KeepIn is AskIn of something whose effect lasts until the transaction ends.
func KeepIn(ctx context.Context, in Conn, statement string) (string, error) {
	if in.TxStatus() != 'T' {
		return in.Ask(ctx, statement)
	}
	_, kept, err := in.Aside(ctx, "", statement)
	return kept, err
}

// Unanswered reports that err is PostgreSQL's, to a question in the transaction that is open on in, and
// that the transaction has not suffered.
func Unanswered(in Conn, err error) bool {
	return errors.As(err, new(*pgconn.PgError)) && !in.Closed() && in.TxStatus() == 'T'
}

// Denials remembers what a role may not ask, or the server cannot answer, so that it is not asked
// for over and over. It is safe for concurrent use.
type Denials struct {
	mu    sync.Mutex // guards stand
	stand map[Denial]denied
}

// Denial is of which question and role.
type Denial struct {
	Question string
	Role     string // "" if it is not known
}

type denied struct {
	err   error
	until time.Time
}

const maxDenials = 256

// Add takes in an error. Only one that will come again is remembered.
func (r *Denials) Add(what Denial, err error) {
	if !pgerr.Is(err, pgerr.InsufficientPrivilege, pgerr.UndefinedFunction, pgerr.NotSupported) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stand == nil || len(r.stand) >= maxDenials {
		r.stand = make(map[Denial]denied)
	}
	r.stand[what] = denied{err, time.Now().Add(RefusedFor)}
}

// Of returns the error with which the question was refused lately, nil if it may be asked.
func (r *Denials) Of(what Denial) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.stand[what]; ok && time.Now().Before(known.until) {
		return known.err
	}
	return nil
}
