package core

import "context"

// newConn returns a connection that has not dialled.
func (d *DB) newConn(whose user) *Conn {
	c := &Conn{d: d, whose: whose}
	c.link = &c.undialled
	return c
}

// Connect returns a connection that has not dialled, unless a hook of the caller's makes that
// necessary: a query that hits never does. direct says that whoever asks for it will call Close.
func (d *DB) Connect(ctx context.Context, direct bool) (*Conn, error) {
	d.occupants.enter(direct)
	d.mu.Lock()
	d.resting = false
	d.mu.Unlock()
	c := d.newConn(usedByCaller)
	if d.eager && d.places == nil { // else when it is needed
		if err := c.dial(ctx); err != nil {
			d.vacate()
			return nil, err
		}
	}
	return c, nil
}

// OpenedBy has gone called for each connection that is closed: whoever opens connections by the DB decides when
// that is closed. It is called before the first Connect.
func (d *DB) OpenedBy(gone func()) { d.opener = gone }

// ClosedBy has closes asked, when the last connection is closed, whether that is of an end of the pool which nobody else
// tells of. It is called before the first Connect.
func (d *DB) ClosedBy(closes func() bool) { d.closing = closes }

// Direct reports that somebody has called Connect who will call Close.
func (d *DB) Direct() bool { return d.occupants.direct.Load() }

// vacate counts a connection out that Connect has counted in.
func (d *DB) vacate() {
	if d.opener != nil {
		d.opener()
		return
	}
	d.occupants.leave(d.closing, d.rest)
}

// rest gives up the DB's share of the cache until it is asked for a connection again.
func (d *DB) rest() {
	d.mu.Lock()
	d.resting = true
	d.mu.Unlock()
	if d.places != nil {
		d.places.closeFree(false)
	}
	_ = d.giveUp() // what is still queued is applied by who comes next
}
