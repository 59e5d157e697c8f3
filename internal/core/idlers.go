package core

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/internal/space"
)

// idlers are the connections that database/sql has idle, as far as their backends are as new ones. Once PostgreSQL
// has had no place for a connection they lend themselves: to the driver, whose questions allow every hit, and to a caller
// whose connection has no backend. So a pool that may have as many connections as its role has one for the
// driver, as long as callers do not need all of them at a time:
//
//	pool, of 4 where 4 are allowed       driver                       PostgreSQL
//	4 are idle
//	                                     dials
//	                                                                  53300
//	                                     takes the backend of one
//	3 are used, 1 has none               asks; hits
//	4 are used: dials
//	                                                                  53300
//	                                     gives its own up: no hits
//	dials again
//
// It is taken again when one is idle, not sooner than retake says.
type idlers struct {
	tight  atomic.Bool // there was no place once; until then none is taken
	retake space.Backoff

	mu    sync.Mutex // guards the fields below, and is held while a backend is taken away
	conns []*Conn    // that have dialled, and are not closed
	last  time.Time  // when the driver took one
}

// What Conn.idle says.
const (
	inUse    int32 = iota
	isIdle         // its backend may be taken away
	isRobbed       // that is being done
)

// retakeForgets is after how long the driver's own connection counts as one that has lasted.
const retakeForgets = 2 * time.Minute

func (l *idlers) add(c *Conn) {
	if c.d.eager || c.d.places != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.conns, c) {
		l.conns = append(l.conns, c)
	}
}

func (l *idlers) remove(c *Conn) {
	if c.d.eager || c.d.places != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = slices.DeleteFunc(l.conns, func(other *Conn) bool { return other == c })
}

// awake notes that c is used again, or closed.
func (l *idlers) awake(c *Conn) {
	if !c.idle.CompareAndSwap(isIdle, inUse) {
		l.mu.Lock() // until it is robbed
		defer l.mu.Unlock()
		c.idle.Store(inUse)
	}
}

// take takes the backend of an idle one away, nil if there is none.
func (l *idlers) take() *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.takeLocked()
}

func (l *idlers) takeLocked() *link {
	for _, c := range l.conns {
		if !c.idle.CompareAndSwap(isIdle, isRobbed) {
			continue
		}
		b := c.link
		c.link = &c.undialled
		b.holder, b.needsReset = nil, true
		c.idle.Store(inUse) // who sees this sees what is above
		return b
	}
	return nil
}

// takeOwn takes a connection for the driver's own questions where PostgreSQL has no place for another one.
func (l *idlers) takeOwn() backend.Conn {
	l.tight.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last) > retakeForgets {
		l.retake.Helped()
	}
	if !slices.ContainsFunc(l.conns, func(c *Conn) bool { return c.idle.Load() == isIdle }) || !l.retake.Due(now) {
		return nil
	}
	b := l.takeLocked()
	if b == nil {
		return nil
	}
	l.last = now
	if sp := b.known.space; sp != nil {
		go sp.Leave() // it may be a goroutine of the space's that asks for it
	}
	return b.inner
}

// errNoPlace says what to do about it.
var errNoPlace = errors.New("cachedpg: PostgreSQL has no place for a connection of the driver's own; raise the role's CONNECTION LIMIT," +
	" or max_connections, by two above what the pools may have, or set cache_max_conns to two less than it")

func noPlace(err error) error {
	if pgerr.Is(err, pgerr.TooManyConnections) {
		return fmt.Errorf("%w: %w", errNoPlace, err)
	}
	return err
}
