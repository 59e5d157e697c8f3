package catalog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Watch notices over one connection whether the schema of its database has
// changed, whoever has changed it, with a question that costs PostgreSQL some
// tens of microseconds however many tables there are. It is used by one
// goroutine at a time, and the connection by nobody else meanwhile.
//
// PostgreSQL tells every session of every change, so that none uses a plan that
// is out of date, and analyses a prepared statement again when a relation that
// it mentions has changed. The statement of a Watch mentions all relations, as
// constants and so without a lock, and gives the time of its own analysis,
// which is when its literal 'now' was read. What belongs to no relation
// (functions, types, casts) it counts, with the sum of the ids of the
// transactions that wrote it: a change adds a row, takes one away or replaces
// one by one with a higher id.
//
// PostgreSQL tells in the commit, before who commits gets the answer. So a question
// that is sent after that sees the change. The numbers of the cumulative
// statistics, which would be simpler, come up to ten seconds late on some
// versions and on others when the session does something else.
//
// ANALYZE and others let the statement be analysed anew and change nothing; then
// the rows of all catalog tables are counted, in the same way. Behind a pooler
// that gives each question another session nothing else is possible.
type Watch struct {
	// Also is an SQL expression of type text that is asked along; "" for none.
	Also string

	conn     *pgconn.PgConn
	prepared int  // statements so far
	armed    bool // there is one, and the fields below hold
	pooled   bool

	answer   string // of the statement
	rest     string // of it, what is counted
	versions string // count and sum for all catalog tables
	idle     string // the snapshot of then if no transaction was under way, else ""
}

// Asks reports that text, which may be cut off as pg_stat_activity does it, is one that
// Load or Reload sends outside a transaction, or a Watch. Its transaction writes nothing.
func Asks(text string) bool {
	return strings.HasPrefix(text, settle) || strings.HasPrefix(text, settleOpen) || strings.HasPrefix(text, factsBegin) || strings.HasPrefix(text, questionBegins) || strings.HasPrefix(text, snapshotBegins)
}

// NewWatch returns a Watch over conn. It does no I/O.
func NewWatch(conn *pgx.Conn) *Watch { return &Watch{conn: conn.PgConn()} }

// Answer is what a question gives.
type Answer struct {
	// Same: the schema is what it was when the question was asked that got the
	// last Answer without it. Of that one, and of the first, it holds for a
	// snapshot that is loaded when its Answer is there.
	Same bool

	Also string // what Watch.Also has given
}

// Ask asks. After an error the Watch has forgotten everything, and the
// connection may be closed.
func (w *Watch) Ask(ctx context.Context) (Answer, error) {
	a, err := w.ask(ctx)
	if err != nil {
		w.armed = false
		return Answer{}, fmt.Errorf("cachedpg: watch catalog: %w", err)
	}
	return a, nil
}

func (w *Watch) ask(ctx context.Context) (Answer, error) {
	if !w.armed {
		return w.arm(ctx)
	}
	if w.pooled {
		return w.askPooled(ctx)
	}
	seen, err := w.execute(ctx)
	var refused *pgconn.PgError
	switch {
	case err == nil && seen.text == w.answer && seen.pid == w.conn.PID():
		return Answer{Same: true, Also: seen.also}, nil
	case err != nil && (w.conn.IsClosed() || !errors.As(err, &refused)):
		return Answer{}, err
	}
	rest, versions := w.rest, w.versions
	a, err := w.arm(ctx)
	a.Same = err == nil && rest == w.rest && versions == w.versions
	return a, err
}

// seen is what one execution of the statement gives.
type seen struct {
	text, fresh, rest, also string
	pid                     uint32
}

// arm prepares a statement that mentions everything there is, and counts. A
// relation that appears while it does would not be mentioned: then it begins again.
func (w *Watch) arm(ctx context.Context) (Answer, error) {
	w.armed = false
	for range armAttempts {
		list, err := w.run(ctx, inventory)
		if err != nil {
			return Answer{}, err
		}
		if len(list) != 5 {
			return Answer{}, errors.New("an unexpected answer")
		}
		if pid, err := strconv.ParseUint(list[0], 10, 32); err != nil || uint32(pid) != w.conn.PID() {
			w.pooled, w.armed = true, err == nil
			w.versions, w.idle = "", ""
			a, err := w.askPooled(ctx)
			a.Same = false
			return a, err
		}
		if err := w.prepare(ctx, list); err != nil {
			return Answer{}, err
		}
		s, err := w.execute(ctx)
		if err != nil {
			return Answer{}, err
		}
		if s.fresh != "f" {
			continue
		}
		versions, err := w.run(ctx, versionsOfAll)
		if err != nil {
			return Answer{}, err
		}
		w.answer, w.rest, w.versions = s.text, s.rest, strings.Join(versions, " ")
		w.armed = true
		return Answer{Also: s.also}, nil
	}
	return Answer{}, errors.New("relations are made faster than they can be listed")
}

const armAttempts = 5

func (w *Watch) name() string { return "cachedpg_watch_" + strconv.Itoa(w.prepared) }

// prepare replaces the statement. The settings are those of the whole session,
// which is the Watch's own: the names in the statement are looked up again
// whenever it is analysed.
func (w *Watch) prepare(ctx context.Context, list []string) error {
	if w.prepared == 0 {
		if _, err := w.run(ctx, "SET search_path = pg_catalog, pg_temp; SET jit = off"); err != nil {
			return err
		}
	} else if _, err := w.run(ctx, "DEALLOCATE ALL"); err != nil {
		return err
	}
	w.prepared++
	also := w.Also
	if also == "" {
		also = "''"
	}
	_, err := w.conn.Prepare(ctx, w.name(), question(list[1], list[2], list[3], list[4], also), nil)
	return err
}

func (w *Watch) execute(ctx context.Context) (seen, error) {
	result := w.conn.ExecPrepared(ctx, w.name(), nil, nil, nil).Read()
	if result.Err != nil {
		return seen{}, result.Err
	}
	if len(result.Rows) != 1 || len(result.Rows[0]) != 5 {
		return seen{}, errors.New("an unexpected answer")
	}
	v := result.Rows[0]
	pid, err := strconv.ParseUint(string(v[0]), 10, 32)
	s := seen{pid: uint32(pid), fresh: string(v[2]), rest: string(v[3]), also: string(v[4])}
	s.text = string(v[1]) + " " + s.fresh + " " + s.rest
	return s, err
}

// askPooled counts everything, unless nothing was written since it did.
func (w *Watch) askPooled(ctx context.Context) (Answer, error) {
	also := w.Also
	if also == "" {
		also = "''"
	}
	now, err := w.run(ctx, snapshotBegins+also)
	if err != nil {
		return Answer{}, err
	}
	if len(now) != 2 {
		return Answer{}, errors.New("an unexpected answer")
	}
	if now[0] == w.idle {
		return Answer{Same: true, Also: now[1]}, nil
	}
	found, err := w.run(ctx, versionsOfAll)
	if err != nil {
		return Answer{}, err
	}
	versions := strings.Join(found, " ")
	same := versions == w.versions
	w.versions, w.idle = versions, ""
	if min, rest, ok := strings.Cut(now[0], ":"); ok && rest == min+":" {
		w.idle = now[0] // no transaction with an id was under way
	}
	return Answer{Same: same, Also: now[1]}, nil
}

// run sends commands in one message and returns the values of the only row.
func (w *Watch) run(ctx context.Context, commands string) (row []string, err error) {
	err = run(ctx, w.conn, commands, func(v [][]byte) {
		for _, b := range v {
			row = append(row, string(b))
		}
	})
	return row, errors.Join(err, abandonIf(ctx, w.conn, err))
}

func abandonIf(ctx context.Context, conn *pgconn.PgConn, err error) error {
	if err == nil {
		return nil
	}
	return abandon(ctx, conn, rollback)
}
