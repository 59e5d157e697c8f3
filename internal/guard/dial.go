package guard

import (
	"context"
	"slices"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// Add has d dial for the guard too.
func (g *Guard) Add(d Dialler) {
	g.list.Lock()
	defer g.list.Unlock()
	if !slices.Contains(g.connectors, d) {
		g.connectors = append(g.connectors, d)
	}
}

// Remove ends what Add began.
func (g *Guard) Remove(d Dialler) {
	g.list.Lock()
	defer g.list.Unlock()
	g.connectors = slices.DeleteFunc(g.connectors, func(other Dialler) bool { return other == d })
}

// all returns who dials.
func (g *Guard) all() []Dialler {
	g.list.Lock()
	defer g.list.Unlock()
	return slices.Clone(g.connectors)
}

// dial returns a new connection to the database of the space. A server of
// another identity, as after a failover, is none.
func (g *Guard) dial(ctx context.Context) (backend.Conn, error) {
	in, _, err := g.dialKnowing(ctx, false)
	return in, err
}

// dialKnowing is dial, and tells whether a pooler is between. Where PostgreSQL has no place for a connection more, one that is idle
// in the callers' pool does for what is to last.
func (g *Guard) dialKnowing(ctx context.Context, lasts bool) (in backend.Conn, pooled bool, err error) {
	err = ErrNone
	for _, d := range g.all() {
		ways, withheld := d.WaysFor(g.ID, lasts)
		if withheld != nil {
			err = withheld
			continue
		}
		for _, dial := range ways {
			if in, err = dial(ctx); err != nil {
				continue
			}
			var s *backend.Session
			var pid uint32
			if s, pid, err = in.Learn(ctx); err == nil && !s.Standby && s.ID == g.ID {
				return in, pid != in.PID(), nil
			}
			_ = in.Close()
			if err == nil {
				d.Heard(s)
				err = backend.Elsewhere{ID: g.ID}
			}
		}
	}
	return nil, false, err
}

// ask asks a question over in as text does.
func (g *Guard) ask(ctx context.Context, in backend.Conn, question string) (string, error) {
	if g.ID == (backend.Identity{}) {
		return in.Ask(ctx, question) // whichever database it is
	}
	return g.ID.Ask(ctx, in, question)
}

// take takes a lock in the transaction that is open on in.
func (g *Guard) take(ctx context.Context, in backend.Conn, p Lock) error {
	_, err := g.ask(ctx, in, p.Call("pg_advisory_xact_lock_shared"))
	return err
}
