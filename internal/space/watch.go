package space

import (
	"context"
	"sync"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/turnstile"
)

// watch asks PostgreSQL, over a guard's connection, whether anybody has changed
// the catalog. What it has been told while nothing changed has one number: a
// catalog that was loaded under the number that the next question gives too is still
// what PostgreSQL has.
type watch struct {
	guard        *guard.Guard
	reconfigured func(ctx context.Context, before, now backend.Configuration) // nil if nobody wants to know

	asking     turnstile.Mutex // guards the fields below
	in         backend.Conn    // that of over
	over       *catalog.Watch
	configured backend.Configuration

	mu      sync.Mutex // guards the fields below
	last    uint64     // number given out
	number  uint64     // 0 while nothing holds
	knownAt uint64     // the number under which known was loaded
	known   catalog.Digest
}

// catalogTimeout bounds what the driver does with the whole catalog for itself.
const catalogTimeout = time.Minute

// now is the number to load a catalog under, 0 if there is none.
func (w *watch) now() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.number
}

// saw takes in the digest of a catalog that was loaded after number was current.
func (w *watch) saw(number uint64, digest catalog.Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if number != 0 && number == w.number && digest != (catalog.Digest{}) {
		w.knownAt, w.known = number, digest
	}
}

// ask returns the number that holds at a moment after it was called.
func (w *watch) ask(ctx context.Context) (number uint64, err error) {
	if err := w.asking.LockContext(ctx); err != nil {
		return 0, err
	}
	defer w.asking.Unlock()
	var now backend.Configuration
	err = w.guard.With(ctx, func(in backend.Conn) error {
		p, ok := in.(backend.Wire)
		if !ok {
			return backend.ErrNotPgx
		}
		fresh := w.in != in
		if fresh {
			w.in, w.over = in, p.NewWatch()
			w.over.Also = "pg_catalog.concat(" + backend.IdentitySQL + ", pg_catalog.chr(10), " + backend.ConfigurationSQL + ")"
		}
		answer, err := w.over.Ask(ctx)
		where, settings := backend.CutIdentity(answer.Also)
		if err == nil && where != w.guard.ID.Text() {
			err = backend.Elsewhere{ID: w.guard.ID}
		}
		now = backend.ParseConfiguration(settings, in.PID())
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case err != nil:
			w.number = 0
		case fresh || !answer.Same || w.number == 0:
			w.last++
			w.number = w.last
		}
		number = w.number
		return err
	})
	if err == nil && w.reconfigured != nil {
		w.reconfigured(ctx, w.configured, now)
		w.configured = now
	}
	return number, err
}

// digest returns the digest of the catalog as it was when ask gave number, or
// later, if it was loaded under that number.
func (w *watch) digest(number uint64) (digest catalog.Digest, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known, number != 0 && w.knownAt == number
}

// armed reports that a question needs neither a connection nor the catalog.
func (w *watch) armed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.number != 0 && w.knownAt == w.number
}
