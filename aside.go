package cachedpg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgerr"

	"github.com/jackc/pgx/v5/pgconn"
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

// rollbackTimeout bounds the ROLLBACK of what a context has ended.
const rollbackTimeout = 5 * time.Second

// refusedFor is how long a role's missing right is remembered.
const refusedFor = time.Minute

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
			err = errors.Join(err, s.undoAside(ctx))
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

// undoAside leads a transaction that a question has made fail back to where it was.
func (s *pgxSession) undoAside(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	return s.pgxConn.PgConn().Exec(ctx, asideReturn+"; "+asideEnds).Close()
}

// aside is asideRows for questions of one value.
func (s *pgxSession) aside(ctx context.Context, question, lasting string) (answer, kept string, err error) {
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

// askIn asks a question of one value over in, and in the transaction that is open there without
// risk for it.
func askIn(ctx context.Context, in inner, question string) (string, error) {
	if in.txStatus() != 'T' {
		return in.text(ctx, question)
	}
	answer, _, err := in.aside(ctx, question, "")
	return answer, err
}

// keepIn is askIn of something that lasts until the transaction ends.
func keepIn(ctx context.Context, in inner, statement string) (string, error) {
	if in.txStatus() != 'T' {
		return in.text(ctx, statement)
	}
	_, kept, err := in.aside(ctx, "", statement)
	return kept, err
}

// unanswered reports that err is PostgreSQL's, to a question in the transaction that is open on in, and
// that the transaction has not suffered.
func unanswered(in inner, err error) bool {
	return errors.As(err, new(*pgconn.PgError)) && !in.closed() && in.txStatus() == 'T'
}

// denials remembers what a role may not ask, or the server cannot answer, so that it is not asked
// for over and over. It is safe for concurrent use.
type denials struct {
	mu    sync.Mutex // guards stand
	stand map[denial]denied
}

// denial is of which question and role.
type denial struct {
	question string
	role     string // "" if it is not known
}

type denied struct {
	err   error
	until time.Time
}

const maxDenials = 256

// add takes in an error. Only one that will come again is remembered.
func (r *denials) add(what denial, err error) {
	if !pgerr.Is(err, pgerr.InsufficientPrivilege, pgerr.UndefinedFunction, pgerr.NotSupported) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stand == nil || len(r.stand) >= maxDenials {
		r.stand = make(map[denial]denied)
	}
	r.stand[what] = denied{err, time.Now().Add(refusedFor)}
}

// of returns the error with which the question was refused lately, nil if it may be asked.
func (r *denials) of(what denial) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.stand[what]; ok && time.Now().Before(known.until) {
		return known.err
	}
	return nil
}
