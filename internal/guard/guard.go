package guard

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/turnstile"
	"github.com/cachedpg/cachedpg/store"
)

// Guard asks PostgreSQL what the protocol of a shared store needs to know, over
// a connection of its own: the pool may be exhausted just when it matters. The
// connection is closed when it was not needed for a while, so that of many
// processes about one has it. The zero value with an ID has nobody to dial. It is safe for concurrent use.
type Guard struct {
	ID backend.Identity

	list       sync.Mutex // guards connectors
	connectors []Dialler

	mu    turnstile.Mutex // guards the fields below, and is held while PostgreSQL answers
	in    backend.Conn
	used  time.Time
	stale bool // see lost
	posts posts

	pooled atomic.Bool // a pooler is between it and PostgreSQL, as far as is known
	begun  sync.Once   // guards turns
	turns  *Rotation   // holds there what posts do elsewhere

	statementPool atomic.Int64 // when a pooler in statement mode was in between, see internal/core/statementpool.go
}

const (
	// Rest is how long a connection stays that nobody needs.
	Rest = 10 * time.Second

	// AskTimeout bounds one question to PostgreSQL.
	AskTimeout = 2 * time.Second
)

// ErrNone: a guard has nobody to dial.
var ErrNone = errors.New("cachedpg: no connector is open to ask PostgreSQL with")

// Dialler dials for a guard. It is a core.DB.
type Dialler interface {
	// WaysFor are those in which the database of id may be reached, for a connection that lasts or for one
	// question. The error says why there is to be none now.
	WaysFor(id backend.Identity, lasts bool) ([]func(context.Context) (backend.Conn, error), error)
	// DialOutcome dials who may know the outcome of a commit on the server of id.
	DialOutcome(ctx context.Context, id backend.Identity) (backend.Conn, error)
	// Replicates is how to connect for replication, nil if it does not know.
	Replicates() *pgconn.Config
	// Heard is called with the session of a connection of the guard's own: the server and database that it leads to.
	Heard(s *backend.Session)
}

// Over returns a guard that asks over in for as long as that answers, and has nobody to dial.
func Over(in backend.Conn) *Guard { return &Guard{in: in} }

// IsPooled reports that a pooler is between it and PostgreSQL, as far as is known.
func (g *Guard) IsPooled() bool { return g.pooled.Load() }

// Rest closes the connection if it was not used for a while.
func (g *Guard) Rest(while time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in != nil && time.Since(g.used) > while {
		g.dropLocked()
	}
}

// Close closes the connections, and gives the locks back. Who asks has them dialled again.
func (g *Guard) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropLocked()
	g.rotation().Close()
}

// rotation is the guard's own.
func (g *Guard) rotation() *Rotation {
	g.begun.Do(func() { g.turns = NewRotation(g, Rest, false) })
	return g.turns
}

func (g *Guard) dropLocked() {
	g.posts = posts{}
	if g.in != nil {
		_ = g.in.Close()
		g.in = nil
	}
}

// Text asks the database of the space a question, a SELECT of one value, see
// backend.Identity.Only: any other gives no answer.
func (g *Guard) Text(ctx context.Context, question string) (answer string, err error) {
	err = g.With(ctx, func(in backend.Conn) error {
		answer, err = g.ask(ctx, in, question)
		return err // one of elsewhere closes the connection: what is dialled next tells where it leads
	})
	return answer, err
}

// Write runs a statement that gives one value, and which PostgreSQL does not take
// as a part of another. Behind a pooler another database may get it.
func (g *Guard) Write(ctx context.Context, sql string) (answer string, err error) {
	err = g.With(ctx, func(in backend.Conn) error {
		answer, err = in.Ask(ctx, sql)
		return err
	})
	return answer, err
}

// With lends the connection, dialled if need be. After an error that is not
// PostgreSQL's it is closed.
func (g *Guard) With(ctx context.Context, f func(backend.Conn) error) error {
	if err := g.mu.LockContext(ctx); err != nil {
		return err
	}
	defer g.mu.Unlock()
	g.stale = g.in != nil
	if err := g.connectLocked(ctx); err != nil {
		return err
	}
	err := f(g.in)
	if refused := (*pgconn.PgError)(nil); err != nil && (g.in.Closed() || !errors.As(err, &refused)) {
		g.dropLocked()
	} else {
		g.stale = false
	}
	return err
}

// Lost reports that the last question failed with a connection that was there
// before, and not with a new one.
func (g *Guard) Lost() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stale
}

func (g *Guard) connectLocked(ctx context.Context) error {
	if g.in == nil {
		in, pooled, err := g.dialKnowing(ctx, true)
		if err != nil {
			return err
		}
		g.in = in
		if g.pooled.Swap(pooled) && !pooled {
			g.rotation().drop()
		}
	}
	g.used = time.Now()
	return nil
}

// Yes is Text for a question of one boolean.
func (g *Guard) Yes(ctx context.Context, sql string) (bool, error) {
	answer, err := g.Text(ctx, sql)
	return backend.IsTrue(answer), err
}

// Over returns those of the writers whose effect is visible by now, or never
// will be. A transaction's id is in progress until its effect can be seen, also
// while it is prepared or waits for a replica; a backend ends after its last
// transaction has. Of a writer with neither nothing can be proved.
func (g *Guard) Over(ctx context.Context, writers []store.WriterID) []store.WriterID {
	var asked []store.WriterID
	var questions []string
	for _, w := range writers {
		if xid, ok := w.Transaction(); ok {
			asked = append(asked, w)
			questions = append(questions, backend.TransactionOverSQL(strconv.FormatUint(xid, 10)))
		} else if pid, start, ok := w.Backend(); ok {
			asked = append(asked, w)
			questions = append(questions, fmt.Sprintf("NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) %d"+
				" AND coalesce((extract(epoch FROM backend_start) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 OPERATOR(pg_catalog.=) %d, true))", pid, start.UnixMicro()))
		}
	}
	if len(asked) == 0 {
		return nil
	}
	answers, err := g.Text(ctx, "SELECT pg_catalog.array_to_string(ARRAY["+strings.Join(questions, ", ")+"], '')")
	if err != nil && len(asked) > 1 && backend.IsFuture(err) { // one by one
		var over []store.WriterID
		for _, w := range asked {
			over = append(over, g.Over(ctx, []store.WriterID{w})...)
		}
		return over
	}
	if backend.IsFuture(err) {
		return asked
	}
	if err != nil || len(answers) != len(asked) {
		return nil
	}
	var over []store.WriterID
	for i, w := range asked {
		if answers[i] == 't' {
			over = append(over, w)
		}
	}
	return over
}

// Outcome asks a question about commits, see backend.Identity.Outcome.
func (g *Guard) Outcome(ctx context.Context, question string) (answer string, err error) {
	err = g.With(ctx, func(in backend.Conn) error {
		answer, err = g.ID.AskOutcome(ctx, in, question)
		return err // if it is not PostgreSQL's it closes the connection: what is dialled next may be the one
	})
	if gone := (backend.Elsewhere{}); !errors.As(err, &gone) {
		return answer, err
	}
	// Somebody else has the place. The guard keeps no connection to that.
	for _, d := range g.all() {
		in, failed := d.DialOutcome(ctx, g.ID)
		if failed != nil {
			continue
		}
		answer, err = g.ID.AskOutcome(ctx, in, question)
		_ = in.Close()
		if err == nil || errors.Is(err, backend.ErrServerReplaced) {
			break
		}
	}
	return answer, err
}

// MakesRoom closes the guard's connection unless a question is under way. It reports whether there is one.
func (g *Guard) MakesRoom() bool {
	if !g.mu.TryLock() {
		return true // it ends soon, and with it perhaps the need
	}
	defer g.mu.Unlock()
	if g.in == nil {
		return false
	}
	g.dropLocked()
	return true
}

// LoadCatalog loads the catalog over the guard's connection, see backend.Conn.
func (g *Guard) LoadCatalog(ctx context.Context, before *catalog.Snapshot) (snapshot *catalog.Snapshot, err error) {
	err = g.With(ctx, func(in backend.Conn) error {
		snapshot, err = in.LoadCatalog(ctx, before)
		return err
	})
	return snapshot, err
}

// LoadCatalogAside loads the catalog over a connection of its own, so that questions are
// answered meanwhile; where none is to be had, over the guard's.
func (g *Guard) LoadCatalogAside(ctx context.Context, before *catalog.Snapshot) (*catalog.Snapshot, error) {
	in, err := g.dial(ctx)
	if err != nil {
		return g.LoadCatalog(ctx, before)
	}
	defer in.Close()
	return in.LoadCatalog(ctx, before)
}

// Replication returns how to connect for replication.
func (g *Guard) Replication() (*pgconn.Config, error) {
	for _, d := range g.all() {
		if config := d.Replicates(); config != nil {
			return config, nil
		}
	}
	return nil, ErrNone
}
