package cachedpg

import (
	"errors"

	"github.com/cachedpg/cachedpg/internal/backend"
)

// A database can be elsewhere from one moment to the next: a standby is promoted,
// a pooler leads to another server, a name is given to another database. Whoever learns of it first
// tells all: the space of the server before is superseded, and no connection, pooled
// or not dialled yet, has a hit in it any more.
//
//	connection 1                    connection 2
//	                                (idle since it knew server A)
//	                                                        B is promoted, A is gone
//	dials, learns: B
//	supersedes the space of A
//	UPDATE on B, marked there
//	(a hit of A's entries …)                                (… is older than the commit)
//	                                asks again where it is
//
// What a connection knows of its server lasts as long as it can be relied on:
//
//   - A direct connection to a primary leads to that server until it breaks.
//   - One to a standby does too, but the standby may be promoted.
//   - Behind a pooler every transaction may reach another server, so each one that
//     writes is asked in itself, before COMMIT, where it is (Conn.drifts).

// errReplaced closes a connection to a primary in whose place another one was
// reached since.
var errReplaced = errors.New("cachedpg: the connection is to a server that another one has replaced")

// pair is two databases that were seen alive at the same time, such as two shards or
// a clone and its original: neither has become the other.
type pair [2]backend.Identity

func pairOf(a, b backend.Identity) pair {
	if b.Text() < a.Text() {
		a, b = b, a
	}
	return pair{a, b}
}

// sighting is how a connection has come to know where it is.
type sighting struct {
	direct bool // the connection leads to this server for as long as it lives
	again  bool // it did already when another server was found, so both are alive
}

// supersede ends the space for all connections of this process: its database is
// elsewhere, or may be. They ask again where they are before they go on. It may
// be called at any time, also when that is not sure.
func (sp *space) supersede() {
	spacesMu.Lock()
	if spaces[sp.key] == sp {
		delete(spaces, sp.key)
		if sp.keeper == nil {
			past = append(past, sp)
		}
	}
	spacesMu.Unlock()
	if sp.superseded.Swap(true) {
		return
	}
	sp.dropView() // nothing is current without one
	if sp.keeper != nil {
		sp.keeper.cancel()
	}
	if sp.lease != nil {
		sp.lease.cancel()
	}
	if f := sp.feed.Load(); f != nil {
		f.cancel()
	}
}

// settled reports that nothing is on its way any more that was marked in the
// space before it was superseded, and which is to be seen by the space of id. A
// writer looks, between its marks and its statement, whether its space is
// superseded, so that one of the two sees the other:
//
//	writer, knows A                 connection 2, finds B
//	marks in the space of A
//	                                supersedes it
//	                                SELECT → old, fills the space of B
//	UPDATE, which reaches B
//	                                (a hit of old)
//
// A statement over a direct connection to another server is none of B's business. If
// the server is the same as before, so is every outcome that is not known.
func (sp *space) settled(id backend.Identity) bool {
	return sp.adrift.Load() == 0 && (sp.key.Identity != id || sp.underway.Load() == 0 && sp.writes.Stats().Unresolved == 0)
}

// Heard is told what a connection of the driver's own has found out about where
// the connector leads now.
func (d *connector) Heard(s *backend.Session) {
	if !s.Standby {
		_, _, _ = d.adopt(s, sighting{})
	}
}

// moveLocked takes in that the connector has reached the database of id. It returns the spaces
// that this ends, once there is one for id; an error if id was replaced by
// another that was reached since.
func (d *connector) moveLocked(id backend.Identity, p sighting) (ended []*space, err error) {
	for other, sp := range d.spaces {
		if !id.Related(other) || d.together[pairOf(id, other)] {
			continue
		}
		if p.direct && p.again && !sp.superseded.Load() {
			if d.wrapped == nil && other.System == id.System {
				return nil, errReplaced
			}
			d.together[pairOf(id, other)] = true
			continue
		}
		ended = append(ended, sp)
	}
	return ended, nil
}

// forsakeLocked gives up the connector's share in a space that was superseded.
func (d *connector) forsakeLocked(sp *space) {
	delete(d.spaces, sp.key.Identity)
	sp.forget(d)
	if d.queuesIn(sp) {
		d.kept = append(d.kept, sp) // the queue outlives it
		return
	}
	go sp.leave() // it may be the space's own goroutine that has found out
}

// forget has nothing asked through the connector any more.
func (sp *space) forget(d *connector) {
	sp.guard.Remove(d)
	if f := sp.feed.Load(); f != nil {
		f.guard.Remove(d)
	}
}

// moved reports that what is known of the connection's server has come to its end.
func (c *Conn) moved() bool {
	return c.known.space != nil && c.known.space.superseded.Load() || c.promoted()
}
