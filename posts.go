package cachedpg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/store"
)

// posts are the shared advisory locks by which a guard shows its process to
// others. They are its session's: an idle session costs PostgreSQL less than an
// open transaction. Behind a pooler, which may give each transaction another
// session, a transaction on a connection of their own holds them. It is not left
// open for long: PAUSE, with which a planned switchover begins, waits for it. So two
// connections take turns, and the next has the locks before the last one ends:
//
//	beside                  spare                   pgbouncer
//	holds the locks
//	                        BEGIN, the locks
//	COMMIT
//	                        holds them              PAUSE waits for it
//	BEGIN: has to wait,
//	and gives up
//	                        is closed               is paused
//
// Then the locks are gone, and taken anew they are held since then.
type posts struct {
	of     inner // the guard's connection to which the rest applies
	pooled bool
	beside inner // nil unless pooled
	spare  inner // nil unless it had its turn
	begun  time.Time
	since  map[post]time.Time
}

// besideTurn is how long one transaction holds the locks behind a pooler.
const besideTurn = store.Lease / 4

// post is one such lock.
type post struct{ class, object int }

func (p post) call(function string) string {
	return fmt.Sprintf("SELECT pg_catalog.%s(%d, %d)::pg_catalog.text", function, p.class, p.object)
}

// holding makes the process hold exactly the locks, and then asks a question over
// the connection that holds them, so that an answer proves that it still does.
// It returns since when it has held each without a break.
func (g *guard) holding(ctx context.Context, wanted []post, question string) (answer string, since map[post]time.Time, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.connectLocked(ctx); err != nil {
		return "", nil, err
	}
	in, err := g.postLocked(ctx, wanted)
	if err == nil {
		answer, err = in.text(ctx, question)
	}
	if errors.Is(err, errStatementPool) {
		return "", nil, err
	}
	if err != nil { // whatever it was, what is held now is not known
		g.dropLocked()
		return "", nil, err
	}
	return answer, maps.Clone(g.posts.since), nil
}

// isPooled reports that a pooler is between the guard and PostgreSQL, as far as is known.
func (g *guard) isPooled() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.posts.pooled
}

// postLocked returns the connection that holds the locks.
func (g *guard) postLocked(ctx context.Context, wanted []post) (in inner, err error) {
	p := &g.posts
	if p.of != g.in {
		p.dropLocked()
		pid, err := g.in.text(ctx, "SELECT pg_catalog.pg_backend_pid()::pg_catalog.text")
		if err != nil {
			return nil, err
		}
		*p = posts{of: g.in, pooled: pid != strconv.FormatUint(uint64(g.in.backend()), 10), since: make(map[post]time.Time)}
	}
	lock, holder := "pg_advisory_lock_shared", g.in
	if p.pooled {
		if !slices.ContainsFunc(wanted, func(w post) bool { return !p.since[w].IsZero() }) {
			p.dropBeside() // a transaction gives no single lock back
		}
		if len(wanted) > 0 && p.beside == nil {
			if p.beside, err = g.dialBeside(ctx); err != nil {
				return nil, err
			}
			p.begun = time.Now()
		}
		if err := g.turnLocked(ctx); err != nil {
			return nil, err
		}
		if lock = lockOfTransaction; p.beside != nil {
			holder = p.beside
		}
	}
	for held := range p.since {
		if !p.pooled && !slices.Contains(wanted, held) {
			if _, err := holder.text(ctx, held.call("pg_advisory_unlock_shared")); err != nil {
				return nil, err
			}
			delete(p.since, held)
		}
	}
	for _, w := range wanted {
		if p.since[w].IsZero() {
			if _, err := holder.text(ctx, w.call(lock)); err != nil {
				return nil, err
			}
			p.since[w] = time.Now()
		}
	}
	return holder, nil
}

const lockOfTransaction = "pg_advisory_xact_lock_shared"

// overdue reports that a transaction holds the locks for longer than its turn.
func (g *guard) overdue() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.posts.overdue()
}

func (p *posts) overdue() bool { return p.beside != nil && time.Since(p.begun) >= besideTurn }

// turnLocked has the other connection hold the locks, if it is its turn.
func (g *guard) turnLocked(ctx context.Context) (err error) {
	p := &g.posts
	if !p.overdue() {
		return nil
	}
	next := p.spare
	p.spare = nil
	if next == nil || next.closed() {
		next, err = g.dialBeside(ctx)
	} else {
		err = beginBeside(ctx, next)
	}
	for held := range p.since {
		if err == nil {
			_, err = next.text(ctx, held.call(lockOfTransaction))
		}
	}
	if err != nil {
		if next != nil {
			_ = next.Close()
		}
		return err
	}
	last := p.beside
	p.beside, p.begun = next, time.Now()
	if _, err := last.ExecContext(ctx, "COMMIT", nil); err != nil {
		_ = last.Close() // the locks are held all the same
	} else {
		p.spare = last
	}
	return nil
}

// dialBeside returns a connection with an open transaction that keeps no
// snapshot, so that it is in nobody's way for as long as it lasts.
func (g *guard) dialBeside(ctx context.Context) (inner, error) {
	if time.Since(g.statementPool) < guardRest {
		return nil, errStatementPool // each try costs a connection of the pooler's
	}
	in, err := g.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := beginBeside(ctx, in); err != nil {
		if _ = in.Close(); err == errStatementPool {
			g.statementPool = time.Now()
		}
		return nil, err
	}
	return in, nil
}

func beginBeside(ctx context.Context, in inner) error {
	if _, err := in.ExecContext(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", nil); err != nil {
		return ofStatementPool(err)
	}
	return patient(ctx, in)
}

func (p *posts) dropBeside() {
	for _, in := range []*inner{&p.beside, &p.spare} {
		if *in != nil {
			_ = (*in).Close()
			*in = nil
		}
	}
	clear(p.since)
}

func (p *posts) dropLocked() {
	p.dropBeside()
	*p = posts{}
}

// refused reports that PostgreSQL, or a pooler, has answered and will not let
// this process in or ask, rather than that nobody answers.
func refused(err error) bool {
	if errors.Is(err, errStatementPool) {
		return true
	}
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || len(answer.Code) != 5 {
		return false
	}
	class := answer.Code[:2]
	return class != "57" && class != "08" // it is starting or shutting down, or has lost the client
}
