package behind

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/pgerr"
)

// applier empties the queue, over a connection of the driver's own kind: so
// what it writes is marked, committed and released as any other write is. Many
// processes may try; the lock of the row with the position lets one at a time.
//
//	BEGIN; lock the position
//	is the queue this server's?
//	read the entries behind it, run them
//	record the new position, and those that were refused
//	COMMIT
//	take the applied out of the queue, put the refused among the dead
//
// Killed before COMMIT, nothing has happened. Killed after it, the next one
// finds the position, begins behind it and repeats the last line.
type applier struct {
	b    *Queue
	c    Conn // nil when it is given up
	seen bool // the queue was compared with the position on this connection

	place   string
	rival   rival
	catalog *catalog.Snapshot // of now, for the batch
	keyBuf  []byte            // scratch space
}

func (a *applier) close() {
	if a.c != nil {
		_ = a.c.Close()
		a.c, a.seen, a.place = nil, false, ""
	}
}

// isClosed reports that there is no connection that could be used.
func (a *applier) isClosed() bool { return a.c == nil || isClosed(a.c) }

// session is the session that the transaction is in, as entries give it.
func (a *applier) session(ctx context.Context) (settings map[string]string, err error) {
	s, err := a.c.Session(ctx)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errors.New("cachedpg: write-behind: the session's settings cannot be read")
	}
	return SettingsOf(s), nil
}

// enterSession gives the transaction the settings under which the write was
// queued, where they are not the applier's own.
func (a *applier) enterSession(ctx context.Context, wanted map[string]string) error {
	c := a.c
	own, err := a.session(ctx)
	if err != nil {
		return err
	}
	var calls []string
	var args []any
	for name, want := range wanted {
		if own[name] != want {
			args = append(args, name, want)
			calls = append(calls, fmt.Sprintf("pg_catalog.set_config($%d, $%d, true)", len(args)-1, len(args)))
		}
	}
	if len(calls) == 0 {
		return nil
	}
	if _, err := c.Exec(ctx, "SELECT "+strings.Join(calls, ", "), named(args...)); err != nil {
		err = fmt.Errorf("cachedpg: write-behind: a write was queued in a session that this process cannot enter: %w", err)
		if isGone(err) { // nobody can
			err = &refusedWrite{err}
		}
		return err
	}
	c.Forget()
	return nil
}

// isGone reports that a setting has a value that there is not any more, such as a role.
func isGone(err error) bool { return pgerr.Is(err, pgerr.InvalidValue, pgerr.UndefinedObject) }
