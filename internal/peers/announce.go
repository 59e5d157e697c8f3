package peers

import (
	"context"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/internal/pause"
)

// aboutOthers names the question, among those that PostgreSQL may deny.
const aboutOthers = "which processes have caches"

// Committer is the connection that is about to commit what the process has written.
type Committer interface {
	Inner() backend.Conn
	// Denials are the questions that PostgreSQL does not answer to its role.
	Denials() *backend.Denials
	// ShowOn has others see, by a lock of the connection itself, that a process of camp own writes; caches makes out
	// of the answer to question whether somebody has to be waited for, who may have a cache.
	ShowOn(ctx context.Context, own Camp, question string, caches func(answer string) (bool, error)) error
}

// Keep asks if a commit would have to soon.
func (p *Peers) Keep() {
	p.mu.Lock()
	idle, moved, writes := p.writing.IsZero() && p.asked.IsZero(), p.camp != p.self(), p.writes
	p.mu.Unlock()
	soon := elapsed(time.Now().Add(patience.Lease - RenewEvery))
	if !idle && (moved || writes && p.commits.Load() < soon) {
		_ = p.round(func() bool { return !moved && p.commits.Load() >= soon })
	}
}

// Announce returns when c may commit what it has written.
func (p *Peers) Announce(ctx context.Context, c Committer) error {
	mayCommit := func() bool { return elapsed(time.Now()) < p.commits.Load() }
	if p == nil || mayCommit() || p.ctx.Err() != nil {
		return nil
	}
	p.mu.Lock()
	p.writes = true
	p.mu.Unlock()
	if p.Watches {
		p.Watch()
	}
	for {
		err := c.Denials().Of(backend.Denial{Question: aboutOthers})
		if err == nil {
			err = p.round(mayCommit)
			c.Denials().Add(backend.Denial{Question: aboutOthers}, err)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case mayCommit() || p.ctx.Err() != nil:
			return nil
		case err != nil:
			return p.AnnounceOn(ctx, c, p.guard.ID.Database)
		}
		p.mu.Lock()
		unknown, due := p.camp.kind == unknown, p.due
		p.mu.Unlock()
		if unknown {
			return nil // its store is gone meanwhile; who wrote there is told so by its notice
		}
		if err := Patiently(ctx, c.Inner(), time.Until(due)); err != nil {
			return err
		}
	}
}

// AnnounceOn is announce where no connection is to be had but the one that commits, in
// the database with an OID.
func (p *Peers) AnnounceOn(ctx context.Context, c Committer, database string) error {
	p.mu.Lock()
	own := p.camp
	p.mu.Unlock()
	if own.kind == unknown {
		return nil
	}
	return c.ShowOn(ctx, own, censusOf(database), func(answer string) (bool, error) {
		s, err := parseCensus(answer)
		return s.young || len(others(s.caches, own)) > 0, err
	})
}

// Patiently waits in a transaction, if there is one.
func Patiently(ctx context.Context, in backend.Conn, d time.Duration) error {
	if d > 0 && in.TxStatus() == 'T' {
		if err := backend.Patient(ctx, in); err != nil {
			return err
		}
	}
	return pause.For(ctx, d)
}
