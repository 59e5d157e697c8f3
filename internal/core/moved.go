package core

import (
	"errors"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
)

// errReplaced closes a connection to a primary in whose place another one was
// reached since.
var errReplaced = errors.New("cachedpg: the connection is to a server that another one has replaced")

// sighting is how a connection has come to know where it is.
type sighting struct {
	direct bool // the connection leads to this server for as long as it lives
	again  bool // it did already when another server was found, so both are alive
}

// moveLocked records that the DB has reached the database of id. It returns the spaces
// that this ends, once there is one for id; an error if id was replaced by
// another that was reached since.
func (d *DB) moveLocked(id backend.Identity, p sighting) (ended []*space.Space, err error) {
	for other, sp := range d.spaces {
		if !id.Related(other) || d.together[space.PairOf(id, other)] {
			continue
		}
		if p.direct && p.again && !sp.Superseded.Load() {
			if d.wrapped == nil && other.System == id.System {
				return nil, errReplaced
			}
			d.together[space.PairOf(id, other)] = true
			continue
		}
		ended = append(ended, sp)
	}
	return ended, nil
}

// forsakeLocked gives up the DB's share in a space that was superseded.
func (d *DB) forsakeLocked(sp *space.Space) {
	delete(d.spaces, sp.Key.Identity)
	sp.Forget(d)
	if d.queuesIn(sp) {
		d.kept = append(d.kept, sp) // the queue outlives it
		return
	}
	go sp.Leave() // it may be the space's own goroutine that has found out
}
