package guard

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// posts are the shared advisory locks by which a guard shows its process to
// others. They are its session's: an idle session costs PostgreSQL less than an
// open transaction. Behind a pooler a rotation holds them.
type posts struct {
	of    backend.Conn // the guard's connection that holds them
	since map[Lock]time.Time
}

// Holding makes the process hold exactly the locks, and then asks a question over
// the connection that holds them, so that an answer proves that it still does.
// It returns since when it has held each without a break.
func (g *Guard) Holding(ctx context.Context, wanted []Lock, question string) (answer string, since map[Lock]time.Time, err error) {
	if !g.pooled.Load() {
		direct, answer, since, err := g.posting(ctx, wanted, question)
		if direct || err != nil {
			return answer, since, err
		}
	}
	return g.rotation().Hold(ctx, wanted, question)
}

// posting is holding where no pooler is between; else direct is false.
func (g *Guard) posting(ctx context.Context, wanted []Lock, question string) (direct bool, answer string, since map[Lock]time.Time, err error) {
	if err = g.mu.LockContext(ctx); err != nil {
		return false, "", nil, err
	}
	defer g.mu.Unlock()
	if err = g.connectLocked(ctx); err != nil || g.pooled.Load() {
		return false, "", nil, err
	}
	if err = g.postLocked(ctx, wanted); err == nil {
		answer, err = g.ask(ctx, g.in, question)
	}
	if err != nil { // whatever it was, what is held now is not known
		g.dropLocked()
		return false, "", nil, err
	}
	return true, answer, maps.Clone(g.posts.since), nil
}

func (g *Guard) postLocked(ctx context.Context, wanted []Lock) error {
	p := &g.posts
	if p.of != g.in {
		*p = posts{of: g.in, since: make(map[Lock]time.Time)}
	}
	for held := range p.since {
		if !slices.Contains(wanted, held) {
			if _, err := g.in.Ask(ctx, held.Call("pg_advisory_unlock_shared")); err != nil {
				return err
			}
			delete(p.since, held)
		}
	}
	for _, w := range wanted {
		if p.since[w].IsZero() {
			if _, err := g.ask(ctx, g.in, w.Call("pg_advisory_lock_shared")); err != nil {
				return err
			}
			p.since[w] = time.Now()
		}
	}
	return nil
}

// Refused reports that PostgreSQL, or a pooler, has answered and will not let
// this process in or ask, rather than that nobody answers.
func Refused(err error) bool {
	if errors.Is(err, backend.ErrStatementPool) {
		return true
	}
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || len(answer.Code) != 5 {
		return false
	}
	class := answer.Code[:2]
	return class != "57" && class != "08" // it is starting or shutting down, or has lost the client
}
