package cachedpg

import (
	"context"
	"database/sql"
	"errors"
)

var (
	errNoStore = errors.New("cachedpg: there is no store to apply events to: cache_store is off, or PostgreSQL is a standby, where nothing is cached; name the region's store, and the primary")
	errMoved   = errors.New("cachedpg: connections reach different databases; a failover is under way")
	errStandby = errors.New("cachedpg: PostgreSQL is a standby, where nothing is cached; connect to the primary, with target_session_attrs=read-write in the DSN")
)

// Origin says whose events Apply takes for a DB, and where to.
type Origin struct {
	// Source is that of the database's events: "system/timeline/start/name/oid".
	// It ends with the life of the server: a promotion changes it, a restart, and a
	// change of the database's name.
	Source string

	// Shared says that the store is one that processes share, so that one of
	// them may apply events for all. Otherwise each process has to.
	Shared bool
}

// OriginOf asks PostgreSQL which database db is connected to now, also if that
// was known: after a failover it is another one, and until then Apply would take
// its events for those of a stranger. It is an error if nothing can be cached
// there.
func OriginOf(ctx context.Context, db *sql.DB) (o Origin, err error) {
	err = withConn(ctx, db, func(c *Conn) error {
		if err := c.enter(); err != nil {
			return err
		}
		if err := c.ready(ctx); err != nil {
			return err
		}
		if err := c.learn(ctx); err != nil {
			return err
		}
		switch sp := c.known.space; {
		case c.known.session == nil:
			return errors.New("cachedpg: PostgreSQL does not say which database it is")
		case c.known.session.Standby:
			return errStandby
		case sp == nil:
			return errNoStore
		case c.d.strangerThan(sp) != nil:
			return errOtherStore
		case c.d.space() != sp:
			return errMoved // by a connection that reaches another server; the next question tells which one stays
		default:
			o = Origin{Source: sp.key.Identity.String(), Shared: sp.keeper != nil}
			return nil
		}
	})
	return o, err
}
