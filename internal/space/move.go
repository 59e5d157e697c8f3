package space

import (
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
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

// Pair is two databases that were seen alive at the same time, such as two shards or
// a clone and its original: neither has become the other.
type Pair [2]backend.Identity

// PairOf is the pair of both, in whichever order they are given.
func PairOf(a, b backend.Identity) Pair {
	if b.Text() < a.Text() {
		a, b = b, a
	}
	return Pair{a, b}
}

// Supersede ends the space for all connections of this process: its database is
// elsewhere, or may be. They ask again where they are before they go on. It may
// be called at any time, also when that is not sure.
func (sp *Space) Supersede() {
	spacesMu.Lock()
	if spaces[sp.Key] == sp {
		delete(spaces, sp.Key)
		if sp.Keeper == nil {
			past = append(past, sp)
		}
	}
	spacesMu.Unlock()
	if sp.Superseded.Swap(true) {
		return
	}
	sp.DropView() // nothing is current without one
	if sp.Keeper != nil {
		sp.Keeper.cancel()
	}
	if sp.Lease != nil {
		sp.Lease.cancel()
	}
	if f := sp.Feed.Load(); f != nil {
		f.Cancel()
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
func (sp *Space) settled(id backend.Identity) bool {
	return sp.Adrift.Load() == 0 && (sp.Key.Identity != id || sp.Underway.Load() == 0 && sp.Writes.Stats().Unresolved == 0)
}

// Forget has nothing asked through d any more.
func (sp *Space) Forget(d guard.Dialler) {
	sp.Guard.Remove(d)
	if f := sp.Feed.Load(); f != nil {
		f.Forget(d)
	}
}
