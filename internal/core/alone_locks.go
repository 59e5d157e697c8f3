package core

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
)

// aloneLock says who holds the lock of a write until that is over. The zero value is nobody.
type aloneLock struct {
	conn  *Conn           // whose backend holds it
	other *guard.Rotation // holds it where that cannot
}

// release gives the lock up.
func (l *aloneLock) release() {
	if l.conn != nil {
		l.conn.retract()
		l.conn = nil
	}
	if l.other != nil {
		l.other.Close()
		l.other = nil
	}
}

// retract gives up the locks of statements that have ended. In a transaction it is put off
// to its end.
func (c *Conn) retract() {
	if c.aloneLocks == 0 {
		return
	}
	defer c.lent.pause()()
	for c.aloneLocks > 0 && !c.inner.Closed() && c.inner.TxStatus() == 'I' {
		ctx, cancel := context.WithTimeout(context.Background(), backend.RollbackTimeout)
		_, err := c.inner.Ask(ctx, retractAlone)
		cancel()
		if err != nil {
			_ = c.inner.Close() // the lock ends with it
			return
		}
		c.aloneLocks--
	}
}
