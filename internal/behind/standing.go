package behind

import "errors"

// Standing is how a server stands to the queue.
type Standing uint8

// notOwner is why a process does not apply the queue.
type notOwner struct {
	standing Standing
	reason   string
	owner    string // if foreign
}

func (e *notOwner) Error() string { return "cachedpg: write-behind: " + e.reason }

func standingOf(err error) Standing {
	var e *notOwner
	if errors.As(err, &e) {
		return e.standing
	}
	return Unknown
}

// IsNotOwner reports that the queue belongs to another server than this one, or may do so.
func IsNotOwner(err error) bool { return errors.As(err, new(*notOwner)) }

func isForeign(err error) bool { return standingOf(err) == Foreign }

func isWaiting(err error) bool { return standingOf(err) == Waiting }

const (
	Unknown  Standing = iota
	Owns              // and what is queued here can be applied
	Waiting           // another owned it a moment ago, and may be gone
	Foreign           // another owns it, and is alive
	Doubtful          // nobody can tell but a person
)
