package backend

import (
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A statement that the driver has added something to must not cost the caller his transaction if
// PostgreSQL refuses what was added. It refuses it while it reads the statement, before that runs. So the reading is put
// within a savepoint by the rider, and the running is not, so that what is written has the id of the
// transaction itself:
//
//	pgx                     rider                                        PostgreSQL
//	Parse, Describe, Sync   SAVEPOINT, Parse, Describe, RELEASE, Sync
//	Bind, Execute, Sync     SAVEPOINT, Bind, RELEASE, Execute, Sync      a savepoint in which nothing is written, has no id
//
// The lock that reading takes on the table stays until the transaction ends, so what was read is what runs.
type guard struct {
	armed  bool
	counts bool            // answers to what it has put in between are expected
	left   [guardSteps]int // answers
	step   int             // of them, guardSteps once the savepoint is no more
	failed bool            // PostgreSQL has refused something before that
}

const (
	guardBegins = iota // kept
	guardReads         // of pgx
	guardEnds          // kept
	guardSteps
)

var (
	guardBegin = message(&pgproto3.Parse{Query: asideBegins}, &pgproto3.Bind{}, &pgproto3.Execute{})
	// pgx' portal has no name, and is there by now.
	guardEnd = message(&pgproto3.Parse{Query: asideEnds}, &pgproto3.Bind{DestinationPortal: guardPortal}, &pgproto3.Execute{Portal: guardPortal},
		&pgproto3.Close{ObjectType: 'P', Name: guardPortal})
)

const guardPortal = "cachedpg_guard"

// Guard has what is sent from now on be read within a savepoint, until Unguard. It reports false if the connection
// cannot do that.
func (in *Pgx) Guard() bool {
	if in.rider == nil {
		return false
	}
	in.rider.mu.Lock()
	defer in.rider.mu.Unlock()
	in.rider.guard = guard{armed: true}
	return true
}

func (in *Pgx) guarded() bool {
	if in.rider == nil {
		return false
	}
	in.rider.mu.Lock()
	defer in.rider.mu.Unlock()
	return in.rider.guard.armed
}

// Unguard ends that. It reports whether PostgreSQL has refused to read something; with UndoAside the transaction is what it
// was before.
func (in *Pgx) Unguard() (refused bool) {
	in.rider.mu.Lock()
	defer in.rider.mu.Unlock()
	g := &in.rider.guard
	failed := g.failed
	g.armed, g.failed = false, false
	return failed && !in.Closed() && in.TxStatus() == 'E'
}

// wrap gives what is sent instead of b, which is b if it is not to be guarded.
func (g *guard) wrap(b []byte) []byte {
	if !g.armed || g.counts {
		return b
	}
	at, answers, ok := readingOf(b)
	if !ok {
		return b
	}
	*g = guard{armed: true, counts: true, left: [guardSteps]int{3, answers, 4}}
	return slices.Concat(guardBegin, b[:at], guardEnd, b[at:])
}

// readingOf finds where the messages of b end that have PostgreSQL read a statement, and how many
// answers they have. ok is false if b is anything but one statement that is prepared or executed.
func readingOf(b []byte) (at, answers int, ok bool) {
	for i := 0; len(b)-i >= 5; {
		length := 1 + int(binary.BigEndian.Uint32(b[i+1:]))
		if length > len(b)-i {
			return 0, 0, false
		}
		switch kind := b[i]; {
		case kind == 'S':
			if at == 0 {
				at = i
			}
			return at, answers, at > 0 && i+length == len(b)
		case at > 0: // behind Execute
			return 0, 0, false
		case kind == 'E':
			at = i
		case kind == 'P', kind == 'B', kind == 'D' && b[i+5] == 'P':
			answers++
		case kind == 'D':
			answers += 2 // of its parameters, and of its columns
		default:
			return 0, 0, false
		}
		i += length
	}
	return 0, 0, false
}

// keeps reports that a message which begins is not for pgx.
func (g *guard) keeps(kind byte) bool {
	return g.counts && g.step != guardReads && g.step != guardSteps && isAnswer(kind) && kind != 'E'
}

// received takes in that a message has been read, and reports that it is of what is guarded.
func (g *guard) received(kind byte) bool {
	switch {
	case !g.counts:
		return false
	case kind == 'Z':
		g.counts = false
		return false
	case g.step == guardSteps || !isAnswer(kind):
		return false
	case kind == 'E':
		g.failed, g.step = true, guardSteps
		return false
	}
	for g.left[g.step]--; g.step < guardSteps && g.left[g.step] == 0; {
		g.step++
	}
	return true
}
