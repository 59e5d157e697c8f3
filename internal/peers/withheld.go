package peers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/keying"
)

// MayHit reports why nothing may come from a cache in memory now. It waits for an
// answer that is on its way.
func (p *Peers) MayHit(ctx context.Context) keying.Reason {
	if p == nil || elapsed(time.Now()) < p.hitsUntil.Load() {
		return keying.NoReason
	}
	p.Watch()
	p.mu.Lock()
	answered, known := p.answered, len(p.met) > 0 || p.problem != nil || !p.restedLocked()
	p.mu.Unlock()
	if !known {
		select {
		case p.nudged <- struct{}{}:
		default:
		}
		timer := time.NewTimer(patience.For(ctx, guard.AskTimeout))
		defer timer.Stop()
		select {
		case <-answered:
		case <-timer.C:
		case <-ctx.Done():
		case <-p.ctx.Done():
		}
		if elapsed(time.Now()) < p.hitsUntil.Load() {
			return keying.NoReason
		}
	}
	return p.Reason()
}

// Reason is that of results which do not come from the cache.
func (p *Peers) Reason() keying.Reason {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.met) > 0 || p.problem != nil && guard.Refused(p.problem) {
		return keying.OtherWriter
	}
	return keying.Warming
}

// Alone reports that hits in a shared store may go on for a lease from now.
func (p *Peers) Alone() (bool, error) {
	if err := p.round(func() bool { return false }); err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.asked.IsZero() && !p.notice, nil
}

// HasMet reports that writers of other camps were seen: the last commit of one may be
// under way, and nothing marks it.
func (p *Peers) HasMet() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.metAt.IsZero()
}

// ErrWithheld is what Ping's error is while nothing comes from the cache because of
// other processes, or because PostgreSQL refuses what the driver has to ask. The database can be used all the same.
var ErrWithheld = errors.New("cachedpg: nothing comes from the cache")

// Trouble says why hits are withheld, nil if they are not.
func (p *Peers) Trouble() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.camp.kind == Off:
		return nil
	case len(p.met) > 0 && p.met[0].kind == Shared && p.camp.kind == Shared && time.Since(p.metFrom) < Wait():
		return nil // it may not have noticed yet that the server was replaced
	case len(p.met) > 0:
		return fmt.Errorf("%w: cache_store: %s writes to this database; name the same Redis in all, set cache_external=events if Kafka or Apply tells this cache, or see docs/rollout.md", ErrWithheld, p.met[0])
	case errors.Is(p.problem, backend.ErrStatementPool):
		return fmt.Errorf("%w: %w", ErrWithheld, p.problem)
	case p.problem != nil && guard.Refused(p.problem):
		return fmt.Errorf("%w: PostgreSQL does not let the driver ask who else writes to this database: %w", ErrWithheld, p.problem)
	}
	return nil
}

// Check is trouble of now.
func (p *Peers) Check() error {
	if p == nil {
		return nil
	}
	_ = p.round(func() bool { return false }) // an error is for trouble to tell
	return p.Trouble()
}

// Stats is cachedpg.PeerStats.
type Stats struct {
	Withheld string
	Differs  string
}

// Stats is what the statistics say of other processes.
func (p *Peers) Stats() (s Stats) {
	if p == nil {
		return s
	}
	if err := p.Trouble(); err != nil {
		s.Withheld = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rivals {
		s.Differs = "cachedpg: cache_policy, cache_external: another process with the same store has others; they must be equal in all"
	}
	return s
}
