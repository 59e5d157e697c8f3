package space

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store"
)

// Problem is cachedpg.Problem.
type Problem struct {
	Work, Text string
	Since      time.Time
}

// String returns the problem in one line, without the time.
func (p Problem) String() string { return p.Work + ": " + p.Text }

// Work is what problems are kept of.
type Work uint8

const (
	WorkSession Work = iota
	WorkCommit
	WorkCatalog
	WorkWatch
	workStore
	WorkPool
	works
)

// WorkNames are those of each Work, as cachedpg.Problem has them.
var WorkNames = [works]string{"session", "commit", "catalog", "watch", "store", "pool"}

// Problems holds the last failure of each kind of work, for who asks why nothing is
// cached. The zero value has none.
type Problems [works]atomic.Pointer[lastFailure]

type lastFailure struct {
	err   error
	since time.Time
}

// Note keeps how work went. What only another work's failure means, or a caller's
// haste, is none of its own and changes nothing.
func (p *Problems) Note(w Work, err error) {
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

// Err is why work failed when it was tried last, nil if it did not.
func (p *Problems) Err(w Work) error {
	if f := p[w].Load(); f != nil {
		return f.err
	}
	return nil
}

// List returns the failures that last, in the order of Work.
func (p *Problems) List() (all []Problem) {
	for w := range p {
		if f := p[w].Load(); f != nil {
			all = append(all, Problem{Work: WorkNames[w], Text: WithoutName(f.err), Since: f.since})
		}
	}
	return all
}

// WithoutName is the error's text without the project's name in front.
func WithoutName(err error) string { return strings.TrimPrefix(err.Error(), "cachedpg: ") }
