package cachedpg

import (
	"bytes"
	"context"
	"database/sql/driver"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"
)

// pgx runs a caller's code when a connection is dialled, and when database/sql
// takes one again that was used before: stdlib.OptionResetSession and
// OptionShouldPing. Such a hook may set from the context what a result depends on,
// a tenant's search_path or role, or refuse the connection. So it runs when pgx
// would run it, with the caller's context, before anything is looked up; and the
// session is what it leaves. Were it put off until PostgreSQL is needed:
//
//	request of tenant a                  request of tenant b
//	hook: search_path a
//	SELECT → rows of a, fill
//	                                     takes the connection, the hook is put off
//	                                     lookup in the session of a: rows of a
//
// What a hook that dials does is in the session that is read after it, and where
// there may be one no connection is taken for what another was.

// hooked reports that taking the connection again runs code of the caller. pgx
// does not tell; where its fields are not as they were, the answer is yes.
func hooked(conn *stdlib.Conn) bool {
	fields := reflect.ValueOf(conn).Elem()
	reset, ping := fields.FieldByName("resetSessionFunc"), fields.FieldByName("shouldPing")
	if reset.Kind() != reflect.Func || ping.Kind() != reflect.Func {
		return true
	}
	return !ping.IsNil() || !reset.IsNil() && !definedIn(reset, reflect.TypeFor[stdlib.Conn]().PkgPath())
}

// definedIn reports that a function is written in the package. That of a closure
// which the compiler has inlined elsewhere is not told.
func definedIn(function reflect.Value, pkg string) bool {
	f := runtime.FuncForPC(function.Pointer())
	return f != nil && strings.HasPrefix(f.Name(), pkg+".")
}

// reset is ResetSession. sent reports that it may have sent something other than pgx's own
// ping, so that the session may not be what it was.
func (in *pgxInner) reset(ctx context.Context) (sent bool, err error) {
	frontend := in.Conn.Conn().PgConn().Frontend()
	if before, ok := tracerOf(frontend); !ok || before != nil {
		return true, in.Conn.ResetSession(ctx) // the place is taken by somebody who debugs
	}
	tap := &tap{frontend: frontend}
	frontend.Trace(tap, pgproto3.TracerOptions{SuppressTimestamps: true})
	own, _ := tracerOf(frontend)
	err = in.Conn.ResetSession(ctx)
	if in.closed() {
		return true, err // pgx may still be reading from it
	}
	if now, _ := tracerOf(frontend); now != own {
		return true, err
	}
	frontend.Untrace()
	return tap.used, err
}

// tracerOf is what pgx hands messages to; ok is false if that cannot be told.
func tracerOf(frontend *pgproto3.Frontend) (tracer unsafe.Pointer, ok bool) {
	field := reflect.ValueOf(frontend).Elem().FieldByName("tracer")
	if field.Kind() != reflect.Pointer {
		return nil, false
	}
	return field.UnsafePointer(), true
}

// tap notices that a connection is used for more than signs of life. pgx gives it one message at a time.
type tap struct {
	frontend *pgproto3.Frontend
	used     bool
}

// Write gets a line that begins with the sender, the kind and the length. What pgx has written past its frontend,
// as a batch in exec mode, shows by the answer.
func (t *tap) Write(message []byte) (int, error) {
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

// runHook runs what the caller has pgx run when the connection is taken again. Its
// error is database/sql's to judge, as with pgx.
func (c *Conn) runHook(ctx context.Context) error {
	sent, err := c.inner.reset(ctx)
	switch {
	case c.inner.closed():
		c.forget()
		c.commits = commitUnknown
		return driver.ErrBadConn
	case err == driver.ErrBadConn: // database/sql closes the connection
		return err
	case !sent:
		return err
	}
	c.forget()
	c.commits = commitUnknown
	c.adoptTx()
	if ctx.Err() == nil {
		// Now and not by the next statement, which may be one that PostgreSQL accepts
		// only as the first of a transaction. Without an answer it is asked again.
		_ = c.learn(ctx)
	}
	return err
}

// adoptTx takes note of a transaction that a hook has left open. What it has done
// in it was not seen, so it may have to be asked for before a caller's first query.
func (c *Conn) adoptTx() {
	if c.settle(); c.tx != nil {
		c.tx.asks, c.tx.session, c.tx.durability, c.tx.queried = true, true, true, true
	}
}
