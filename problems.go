package cachedpg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// Problem is why work of the driver's own did not succeed when it was tried last.
// Queries go to PostgreSQL meanwhile, as far as they need what it is for.
type Problem struct {
	// Work is what failed: "session" (to ask what it is set to), "commit" (to ask the transaction for its
	// id, or what it has written; it makes more stale instead), "catalog" (to load it),
	// "watch" (to ask PostgreSQL, beside the pool, what hits rest on) or "store" (to use
	// the one that processes share), "driver" (to find this one under what is wrapped around it),
	// "pool" (to hear from it when a connection is not in use, for Config.MaxConns).
	Work string

	// Text is what was answered, with its SQLSTATE or Redis' code, and no values.
	Text string

	// Since is when it failed first since it succeeded.
	Since time.Time
}

// String returns the problem in one line, without the time.
func (p Problem) String() string { return p.Work + ": " + p.Text }

// work is what problems are kept of.
type work uint8

const (
	workSession work = iota
	workCommit
	workCatalog
	workWatch
	workStore
	workPool
	works
)

var workNames = [works]string{"session", "commit", "catalog", "watch", "store", "pool"}

// problems holds the last failure of each kind of work, for who asks why nothing is
// cached. The zero value has none.
type problems [works]atomic.Pointer[lastFailure]

type lastFailure struct {
	err   error
	since time.Time
}

// note keeps how work went. What only another work's failure means, or a caller's
// haste, is none of its own and changes nothing.
func (p *problems) note(w work, err error) {
	before := p[w].Load()
	switch {
	case err == nil:
		if before != nil {
			p[w].Store(nil)
		}
		return
	case errors.Is(err, context.Canceled), errors.Is(err, store.ErrCold), errors.Is(err, guard.ErrNone), w != workStore && errors.Is(err, store.ErrDown):
		return
	}
	now := &lastFailure{err: err, since: time.Now()}
	if before != nil {
		now.since = before.since
	}
	p[w].Store(now)
}

// err is why work failed when it was tried last, nil if it did not.
func (p *problems) err(w work) error {
	if f := p[w].Load(); f != nil {
		return f.err
	}
	return nil
}

func (p *problems) list() (all []Problem) {
	for w := range p {
		if f := p[w].Load(); f != nil {
			all = append(all, Problem{Work: workNames[w], Text: withoutName(f.err), Since: f.since})
		}
	}
	return all
}

// problems are those of the connector and of the space that it uses.
func (d *connector) allProblems() []Problem {
	all := d.problems.list()
	if sp := d.space(); sp != nil {
		all = append(all, sp.problems.list()...)
	}
	return all
}

// refusal says which of the driver's own work PostgreSQL refuses, which does not pass by
// itself. It has it tried again: perhaps it was granted since.
func (c *Conn) refusal(ctx context.Context) error {
	if c.d.config.Store == storeOff {
		return nil
	}
	if sp := c.known.space; guard.Refused(c.d.problems.err(workSession)) || sp != nil && guard.Refused(sp.problems.err(workCatalog)) {
		c.refused = time.Time{}
		if _, err := c.state(ctx); err != nil {
			return err
		}
	}
	found := &c.d.problems
	if sp := c.known.space; sp != nil && !guard.Refused(found.err(workSession)) {
		found = &sp.problems
		if sp.lease != nil && guard.Refused(found.err(workWatch)) {
			sp.lease.holds(ctx)
		}
	}
	for w := range found {
		if err := found.err(work(w)); guard.Refused(err) && work(w) != workCommit {
			return fmt.Errorf("%w: PostgreSQL refuses what the driver asks (%s): %w", ErrWithheld, workNames[w], err)
		}
	}
	return nil
}

// withoutName is the error's text without the project's name in front.
func withoutName(err error) string { return strings.TrimPrefix(err.Error(), "cachedpg: ") }
