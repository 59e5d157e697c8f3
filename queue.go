package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Where strategy "write-behind", which is package internal/behind, meets the driver.

// DeadLetter is a queued write that was refused for good, by PostgreSQL or because no
// process of the application can have queued it. It is kept in the Redis stream that
// Stats.Queue.DeadLetters names, encrypted as the queue is; see DeadLetters.
type DeadLetter struct {
	ID       string // in the queue
	SQLState string // "" if it was not PostgreSQL that refused it
	Message  string // may hold values, as PostgreSQL's errors do
	SQL      string // as it was sent; "" if it cannot be read
	Args     []any
}

// QueueStats counts what strategy "write-behind" did in this sql.DB.
type QueueStats struct {
	Queued  uint64 // writes that were acknowledged by the queue
	Applied uint64 // that this process has applied, of whichever process
	Dead    uint64 // of which PostgreSQL has refused
	Drains  uint64 // reads and writes that waited for queued ones
	Lost    uint64 // acknowledged writes that were found missing; one that has no number counts for all that Redis lost at a time
	Length  int64  // of the queue now, for which Redis is asked; -1 when it does not tell

	// Stopped says why this process neither queues nor applies writes; "" if it does.
	Stopped string

	// DeadLetters is the name of the stream of refused writes in Redis.
	DeadLetters string

	// Risk says how Redis, as it is configured, may lose acknowledged writes; "" if
	// it writes each to disk first.
	Risk string
}

// errNoQueue is the answer where no relation has the strategy.
var errNoQueue = errors.New("cachedpg: no relation has strategy \"write-behind\" in cache_policy, or PostgreSQL is a standby")

// TakeOverQueue makes the server behind db the owner of the queue of strategy "write-behind",
// which a person has to decide where nobody else can: the owner is gone, and this server was
// restored from a backup or promoted without its last commits. missing is how many queued
// writes the owner had applied that this server does not have and will not get. While
// the owner is alive it is an error: stop its processes first.
func TakeOverQueue(ctx context.Context, db *sql.DB) (missing int64, err error) {
	b, err := queueOf(ctx, db)
	if err != nil {
		return 0, err
	}
	return b.TakeOver(ctx)
}

// DeadLetters calls f with the writes that PostgreSQL has refused for good, and that lie in
// Redis, in order, until it returns false. Those that were queued with a key which
// this process does not have are there without their text.
func DeadLetters(ctx context.Context, db *sql.DB, f func(DeadLetter) bool) error {
	b, err := queueOf(ctx, db)
	if err != nil {
		return err
	}
	return b.Dead(ctx, func(l behind.Letter) bool { return f(DeadLetter(l)) })
}

// queueOf is the queue of db, which is known once it has connected.
func queueOf(ctx context.Context, db *sql.DB) (*behind.Queue, error) {
	d, err := findConnector(ctx, db)
	if err != nil {
		return nil, err
	}
	b := d.behind.Load()
	if b == nil {
		if err := db.PingContext(ctx); err != nil && !behind.IsNotOwner(err) {
			return nil, err
		}
		if b = d.behind.Load(); b == nil {
			return nil, errNoQueue
		}
	}
	return b, nil
}

// queued gives the relations that have the strategy, as policies name them.
func (c Config) queued() (relations []string) {
	for _, p := range c.Policies {
		if p.Strategy == strategyWriteBehind {
			relations = append(relations, p.Relation)
		}
	}
	return relations
}

// writesBehind reports that the configuration has a relation of the strategy.
func (c Config) writesBehind() bool {
	return slices.ContainsFunc(c.Policies, func(p Policy) bool { return p.Strategy == strategyWriteBehind })
}

// applyBehind decides how a text stands to the queue.
func (sh *shape) applyBehind(config Config, v *view) {
	if config.writesBehind() {
		sh.queue = behind.Of(sh.plan, v.snapshot, func(rel *catalog.Relation) (has, own bool) {
			p, own := config.policyOf(v.snapshot, rel)
			return p != nil && p.Strategy == strategyWriteBehind, own
		})
	}
}

// openQueueLocked opens the queue with the first space that has a Redis.
func (d *connector) openQueueLocked(sp *space) {
	shared, ok := sp.store.(*redis.Store)
	if !ok || !d.config.writesBehind() || d.behind.Load() != nil {
		return
	}
	host := behind.Host{Store: shared, NewConn: d.newApplier, Relations: d.config.queued(), Names: isNamed, Max: d.config.QueueMax, Closed: errClosed}
	if hook := d.config.OnDeadLetter; hook != nil {
		host.DeadLetter = func(l behind.Letter) { hook(DeadLetter(l)) }
	}
	d.behind.Store(behind.New(host))
}

// closeQueue is an error if something may be left in it.
func (d *connector) closeQueue() error {
	if b := d.behind.Load(); b != nil {
		return b.Close()
	}
	return nil
}

// queuesIn reports that the queue is in the store of the space.
func (d *connector) queuesIn(sp *space) bool {
	b := d.behind.Load()
	return b != nil && b.Store() == sp.store
}

// checkQueue is what a Ping says of the queue.
func (d *connector) checkQueue(ctx context.Context) error {
	if b := d.behind.Load(); b != nil {
		return b.Check(ctx)
	}
	return nil
}

func (d *connector) queueStats() (s QueueStats) {
	if b := d.behind.Load(); b != nil {
		s = QueueStats(b.Stats())
	}
	return s
}

// drain applies what is queued. Whoever applies it waits for nothing.
func (c *Conn) drain(ctx context.Context, inTx bool) error {
	if b := c.d.behind.Load(); b != nil && !c.applies {
		return b.Drain(ctx, inTx)
	}
	return nil
}

// catchUp applies what must come before q.
func (c *Conn) catchUp(ctx context.Context, q *call) error {
	if !q.text.queue.Drains {
		return nil
	}
	return c.drain(ctx, c.tx != nil)
}

// writeBehind queues the statement of q, if it may be. Otherwise ok is false, and
// what is in the queue has been applied.
func (c *Conn) writeBehind(ctx context.Context, q *call) (result driver.Result, ok bool, err error) {
	b := c.d.behind.Load()
	if b == nil || c.applies || !q.text.queue.Drains {
		return nil, false, nil
	}
	if q.text.queue.Queues && c.tx == nil && c.inner.TxStatus() == 'I' && q.view != noCatalog && q.session != unknownSession && !c.misread && c.d.config.Store != storeOff {
		queued, err := b.Enqueue(ctx, behind.Write{SQL: q.sql, Mode: q.mode, Plan: q.text.plan, Values: q.keyingValues(),
			Session: &q.session.Session, Settings: &q.session.queued, Catalog: q.view.catalog, Store: q.space.store})
		if queued || err != nil {
			return behind.Result{}, true, err
		}
	}
	return nil, false, b.Drain(ctx, c.tx != nil)
}

// explainQueue says of a statement that may be queued what becomes of it.
func (c *Conn) explainQueue(q *call, x *Explanation) {
	if q.text.queue.Queues && c.tx == nil {
		x.Notes = append(x.Notes, c.d.behind.Load().Explain()...)
	}
}

// newApplier returns a connection that runs what was queued.
func (d *connector) newApplier() behind.Conn {
	c := d.newConn()
	c.applies = true
	return applier{c}
}

// applier is behind.Conn.
type applier struct{ *Conn }

func (a applier) Inner() backend.Conn { return a.inner }

func (a applier) Ready(ctx context.Context) error { return errors.Join(a.enter(), a.ready(ctx)) }

func (a applier) Begin(ctx context.Context) (driver.Tx, error) {
	tx, err := a.BeginTx(ctx, driver.TxOptions{Isolation: driver.IsolationLevel(sql.LevelReadCommitted)})
	if err == nil {
		a.tx.queried = true // there is no caller whose query must come first
	}
	return tx, err
}

func (a applier) Session(ctx context.Context) (*backend.Session, error) {
	known, err := a.state(ctx)
	if err != nil || known.session == nil {
		return nil, err
	}
	return &known.session.Session, nil
}

func (a applier) Forget() {
	a.settle()
	a.forget()
}

func (a applier) Run(ctx context.Context, sql string, args []driver.NamedValue, allow func(behind.Statement) error) error {
	if err := a.enter(); err != nil {
		return err
	}
	q, err := a.newCall(ctx, sql, args)
	if err != nil {
		return err
	}
	if err := a.plan(ctx, &q); err != nil {
		return err
	}
	s := behind.Statement{Plan: q.text.plan, Values: q.keyingValues()}
	if q.session != unknownSession {
		s.Session = &q.session.Session
	}
	if q.view != noCatalog {
		s.Snapshot = q.view.snapshot
	}
	if err := allow(s); err != nil {
		return err
	}
	_, err = a.exec(ctx, &q)
	return err
}
