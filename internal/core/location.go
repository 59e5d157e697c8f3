package core

import "github.com/cachedpg/cachedpg/internal/backend"

// location is what is known of the server on which a write commits, see Conn.moved and internal/space/move.go.
type location uint8

const (
	locationFixed     location = iota // the connection leads there for as long as it lives
	locationOpen                      // it may be another one: the transaction is to be asked
	locationBlind                     // so, and there is no transaction to ask: the server is asked when the statement has run
	locationConfirmed                 // the transaction was asked, and is where the marks are to be
	locationElsewhere                 // it was asked, and is not
)

// location is that of the next write.
func (c *Conn) location() location {
	if c.drifts() {
		return locationOpen
	}
	return locationFixed
}

// drifts reports that the connection may lead elsewhere, so that each transaction is asked where it is.
func (l location) drifts() bool { return l != locationFixed }

func (l location) asked() bool { return l == locationConfirmed || l == locationElsewhere }

// whereFrom takes the server off the answer to a question with identity, and
// notes whether the transaction is where the marks would be.
func (e *effect) whereFrom(answer string) string {
	if !e.where.drifts() {
		return answer
	}
	where, rest := backend.CutIdentity(answer)
	switch {
	case e.where == locationBlind: // a part of the text may run in another transaction
	case e.isAt(where):
		e.where = locationConfirmed
	default:
		e.where = locationElsewhere
	}
	return rest
}

// isAt reports that the server is the one where the marks would be.
func (e *effect) isAt(where string) bool {
	if e.space == nil {
		return backend.IsStandby(where)
	}
	return where == e.space.Key.Identity.Text()
}

// drifts reports that a statement on the connection may reach another server, or a standby that
// is none any more, than what is known of it says.
func (c *Conn) drifts() bool {
	return c.located && (c.pid == 0 || c.known.session != nil && c.known.session.Standby)
}
