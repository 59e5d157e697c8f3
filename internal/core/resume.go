package core

import (
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/planning"
)

// A connection that is taken out of a pool for each query is the same one again and again, and to ask for its
// session each time would cost more than most queries do. So what is known of it stays while it is in
// the pool, until anybody else uses it there: pgx' trace of the wire tells if a message has come or gone.
// Whatever is not a sign of life makes the session unknown, whoever has sent it and however: a hook of the
// pool, pool.Exec, a PgConn.
//
//	request                 pool                          request
//	SET search_path = a
//	gives it back
//	                        AfterRelease: RESET ALL
//	                                                      takes it: is asked
//	                                                      gives it back
//	                                                      takes it: is what it was

// maxLeft bounds what is known of connections that may have ended in their pool meanwhile.
const maxLeft = 1024

// leavesInPool keeps what is known of the connection, which is about to be given back to a pool.
func (c *Conn) leavesInPool() {
	in, ok := c.inner.(*backend.Pgx)
	if !ok || c.d.wrapped == nil || c.known.session == nil || c.known.space == nil || c.known.session.Standby || c.pid == 0 ||
		c.handedOut || c.misread || c.unsettled != nil || c.aloneLocks > 0 || c.tx != nil || in.Closed() || in.TxStatus() != 'I' {
		return
	}
	left := backend.NewTap(in.PgxConn())
	if left == nil {
		return
	}
	d := c.d
	in.PgxConn().PgConn().CustomData()[d.customKey] = left
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.left) >= maxLeft {
		planning.DropOne(d.left)
	}
	if d.left != nil {
		d.left[left] = c.link
	}
}

// resumes reports that what was known of the connection when it was given back holds.
func (c *Conn) resumes() bool {
	in, ok := c.inner.(*backend.Pgx)
	if !ok || c.d.wrapped == nil {
		return false
	}
	c.since.session = unknownSession // others may have prepared statements on it
	d, data := c.d, in.PgxConn().PgConn().CustomData()
	left, ok := data[d.customKey].(*backend.Tap)
	if !ok {
		return false
	}
	delete(data, d.customKey)
	untouched := left.End()
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.left[left]
	delete(d.left, left)
	if was == nil || !untouched || c.tx != nil || was.known.space.Superseded.Load() || d.resting || d.spaces[was.known.session.ID] != was.known.space {
		return false
	}
	was.known.space.Enter() // the connector is in it too
	c.link.resume(was)
	in.Resumed()
	return true
}

// resume takes over what is known of the same connection.
func (b *link) resume(was *link) {
	b.known, b.pristine, b.pid, b.located, b.asked, b.refused, b.started = was.known, was.pristine, was.pid, was.located, was.asked, was.refused, was.started
	b.since, b.home, b.defaults, b.reports, b.dialled = was.since, was.home, was.defaults, was.reports, was.dialled
	b.commits, b.configured, b.limit, b.shown = was.commits, was.configured, was.limit, was.shown
}
