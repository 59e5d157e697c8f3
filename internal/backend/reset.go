package backend

import (
	"bytes"
	"context"
	"reflect"
	"slices"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Reset is ResetSession. sent reports that it may have sent something other than pgx's own
// ping, so that the session may not be what it was.
func (in *Pgx) Reset(ctx context.Context) (sent bool, err error) {
	tap := NewTap(in.pgxConn)
	if tap == nil {
		return true, in.Conn.ResetSession(ctx)
	}
	err = in.Conn.ResetSession(ctx)
	if in.Closed() {
		return true, err // pgx may still be reading from it
	}
	return !tap.End(), err
}

// Tap notices that a connection is used for more than signs of life. pgx gives it one message at a time.
type Tap struct {
	frontend *pgproto3.Frontend
	own      unsafe.Pointer // what pgx tells of messages; kept, so that no other one gets its place in memory
	used     bool
}

// NewTap returns nil where the place is taken by somebody who debugs, or where that cannot be told.
func NewTap(conn *pgx.Conn) *Tap {
	frontend := conn.PgConn().Frontend()
	if before, ok := tracerOf(frontend); !ok || before != nil {
		return nil
	}
	t := &Tap{frontend: frontend}
	frontend.Trace(t, pgproto3.TracerOptions{SuppressTimestamps: true})
	t.own, _ = tracerOf(frontend)
	return t
}

// End gives the place up. It reports that there was nothing but signs of life, and nobody else in the place.
func (t *Tap) End() (quiet bool) {
	if now, ok := tracerOf(t.frontend); !ok || now == nil || now != t.own {
		return false
	}
	t.frontend.Untrace()
	return !t.used
}

// tracerOf is what pgx hands messages to; ok is false if that cannot be told.
func tracerOf(frontend *pgproto3.Frontend) (tracer unsafe.Pointer, ok bool) {
	field := reflect.ValueOf(frontend).Elem().FieldByName("tracer")
	if field.Kind() != reflect.Pointer {
		return nil, false
	}
	return field.UnsafePointer(), true
}

// Write gets a line that begins with the sender, the kind and the length. What pgx has written past its frontend,
// as a batch in exec mode, shows by the answer.
func (t *Tap) Write(message []byte) (int, error) {
	head, rest, _ := bytes.Cut(message, []byte("\t"))
	kind, rest, _ := bytes.Cut(rest, []byte("\t"))
	switch {
	case len(head) == 1 && head[0] == 'B' && slices.Contains(unasked, string(kind)):
	case len(head) == 1 && head[0] == 'F' && string(kind) == "Query" && bytes.HasSuffix(bytes.TrimSpace(rest), []byte("\t \"-- ping\"")):
	default:
		t.used = true
		t.frontend.Untrace() // the rest of it is nobody's business, and may be long
	}
	return len(message), nil
}

// unasked are answers to a sign of life, and what comes by itself.
var unasked = []string{"EmptyQueryResponse", "ReadyForQuery", "ParameterStatus", "NoticeResponse", "NotificationResponse"}
