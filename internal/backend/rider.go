package backend

import (
	"encoding/binary"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// rider lets a question of the driver's travel with a statement of the caller's. It stands between pgx and the
// connection, puts the question in front of the Sync that ends the statement, and keeps the answer:
//
//	pgx                     rider                                   PostgreSQL
//	Bind, Execute, Sync     Bind, Execute, question, Sync
//	                                                                the statement's answer
//	                        (kept)                                  the question's
//	ReadyForQuery                                                   ReadyForQuery
//
// So pgx sends what it always sends, in each of its modes, with tracers and hooks as ever, and gets the answers
// that it expects. What PostgreSQL says of the statement is not altered by what comes after it, and if that is an error,
// PostgreSQL skips the question. There is no round trip more, nor a system call.
//
// A statement of the simple protocol has no Sync. With that nothing travels.
type rider struct {
	r io.Reader
	w io.Writer

	mu    sync.Mutex // guards the fields below: while pgx writes it may read in another goroutine
	due   []byte     // what goes with the next statement
	stage riderStage
	heard Heard // of the last question
	guard guard

	// Of the message from PostgreSQL that is being read.
	head [5]byte // its kind and length
	had  int     // that many bytes of it were read
	left int     // that many are missing after it
	kept bool    // pgx does not get it
	body []byte  // of one that is kept
	back []byte  // was kept, and goes to pgx nevertheless
}

type riderStage uint8

const (
	riderWaits   riderStage = iota
	riderFollows            // the statement has not been answered
	riderListens            // the question has not
	riderSkipped            // nor will it be
)

// Heard is PostgreSQL's to a question: one value, or why there is none.
type Heard struct {
	Value   string
	Refused *pgconn.PgError
	OK      bool // it was heard: else nothing has travelled
}

// WithRider has the connection that is dialled with config have a rider, once seat is given what was dialled.
func WithRider(config *pgx.ConnConfig) (seat func(*Pgx)) {
	var last atomic.Pointer[rider]
	build := config.BuildFrontend
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		x := &rider{r: r, w: w}
		last.Store(x)
		return build(x, x)
	}
	return func(in *Pgx) { in.rider = last.Load() }
}

// carry has messages go with the next statement. It reports false if some are under way.
func (x *rider) carry(messages []byte) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stage != riderWaits {
		return false
	}
	x.due, x.heard = messages, Heard{}
	return true
}

// take returns what was answered since carry; ok is false if nothing was.
func (x *rider) take() Heard {
	x.mu.Lock()
	defer x.mu.Unlock()
	heard := x.heard
	x.due, x.heard = nil, Heard{}
	return heard
}

// Write sends what pgx sends.
func (x *rider) Write(b []byte) (int, error) {
	x.mu.Lock()
	all := x.guard.wrap(b)
	if due := x.due; due != nil && isExecution(b) {
		x.due, x.stage = nil, riderFollows
		statement := len(all) - len(syncMessage)
		all = slices.Concat(all[:statement], due, all[statement:])
	}
	x.mu.Unlock()
	n, err := x.w.Write(all)
	if err == nil {
		n = len(b)
	}
	return min(n, len(b)), err
}

var syncMessage = message(&pgproto3.Sync{})

// isExecution reports that b executes one statement, and ends with the Sync after it.
func isExecution(b []byte) bool {
	executes := 0
	for len(b) >= 5 {
		length := 1 + int(binary.BigEndian.Uint32(b[1:]))
		if length > len(b) {
			return false
		}
		switch b[0] {
		case 'P', 'B', 'D': // Parse, Bind, Describe
		case 'E':
			executes++
		case 'S':
			return executes == 1 && length == len(b)
		default:
			return false
		}
		b = b[length:]
	}
	return false
}

// Read receives what pgx is to get.
func (x *rider) Read(p []byte) (int, error) {
	for {
		x.mu.Lock()
		if n := copy(p, x.back); n > 0 {
			x.back = x.back[n:]
			x.mu.Unlock()
			return n, nil
		}
		x.mu.Unlock()
		n, err := x.r.Read(p)
		x.mu.Lock()
		left := x.sift(p[:n])
		back := len(x.back) > 0
		x.mu.Unlock()
		if left > 0 || err != nil && !back || n == 0 && err == nil {
			return left, err
		}
	}
}

// sift takes out of b what is kept, and returns how much is left of it.
func (x *rider) sift(b []byte) (out int) {
	for i := 0; i < len(b); {
		from, n := i, 1
		if x.had < len(x.head) {
			if x.had == 0 {
				x.kept = x.stage == riderListens && isAnswer(b[i]) || x.guard.keeps(b[i])
			}
			x.head[x.had] = b[i]
			if x.had++; x.had == len(x.head) {
				x.left = int(binary.BigEndian.Uint32(x.head[1:])) - 4
			}
		} else {
			n = min(x.left, len(b)-i)
			if x.left -= n; x.kept {
				x.body = append(x.body, b[i:i+n]...)
			}
		}
		if i += n; !x.kept {
			if out != from {
				copy(b[out:], b[from:i])
			}
			out += n
		}
		if x.had == len(x.head) && x.left <= 0 {
			x.received()
		}
	}
	return out
}

// received takes in that a message has been read.
func (x *rider) received() {
	kind := x.head[0]
	switch {
	case x.guard.received(kind):
	case x.stage == riderWaits:
	case kind == 'Z':
		x.heard.OK = x.stage == riderListens
		x.stage = riderWaits
	case x.stage == riderFollows && (kind == 'C' || kind == 'I'): // CommandComplete, EmptyQueryResponse
		x.stage = riderListens
	case x.stage == riderFollows && kind == 'E':
		x.stage = riderSkipped
	case x.kept && kind == 'D':
		var row pgproto3.DataRow
		if row.Decode(x.body) == nil && len(row.Values) == 1 {
			x.heard.Value = string(row.Values[0])
		}
	case x.kept && kind == 'E':
		var response pgproto3.ErrorResponse
		if response.Decode(x.body) != nil {
			break
		}
		x.heard.Refused = pgconn.ErrorResponseToPgError(&response)
		if severity := response.SeverityUnlocalized; severity == "FATAL" || severity == "PANIC" { // the connection ends, which is pgx's affair
			x.back = append(append(x.back, x.head[:]...), x.body...)
		}
	}
	x.had, x.left, x.body = 0, 0, x.body[:0]
}

// Along is a question of one value that may travel with a statement. It is asked within a savepoint, as by KeepIn,
// by a prepared statement. Only the question itself is one: what the caller's DEALLOCATE ALL takes away is missed
// inside of the savepoint.
type Along struct {
	first, again []byte // messages: for the first time on a connection, and for later
}

// NewAlong takes the name of the prepared statement, which has to be the question's own.
func NewAlong(name, question string) *Along {
	begins := message(&pgproto3.Parse{Query: asideBegins}, &pgproto3.Bind{}, &pgproto3.Execute{})
	asks := message(&pgproto3.Bind{PreparedStatement: name}, &pgproto3.Execute{})
	ends := message(&pgproto3.Parse{Query: asideEnds}, &pgproto3.Bind{}, &pgproto3.Execute{})
	prepares := message(&pgproto3.Parse{Name: name, Query: question})
	return &Along{slices.Concat(begins, prepares, asks, ends), slices.Concat(begins, asks, ends)}
}

// Carries reports that a question may travel with a statement on the connection.
func (in *Pgx) Carries() bool { return in.rider != nil }

// Carry has the question travel with the next statement.
func (in *Pgx) Carry(a *Along) {
	in.carried = a
	if in.prepared == a {
		in.rider.carry(a.again)
	} else {
		in.rider.carry(a.first)
	}
}

// Hear returns the answer, once the statement has ended. After a refusal UndoAside is to follow.
func (in *Pgx) Hear() Heard {
	heard := in.rider.take()
	switch {
	case !heard.OK:
	case heard.Refused == nil, pgerr.Is(heard.Refused, pgerr.DuplicateStatement):
		in.prepared = in.carried
	case pgerr.Is(heard.Refused, pgerr.NoStatement):
		in.prepared = nil
	}
	return heard
}
