package behind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/store/redis"
)

// The row of the queue in PostgreSQL, and the owner of the queue in Redis, decide
// together who applies (I25); see store/redis/owner.go. A server that does not own it stands
// aside: what is written there by its processes goes to it and not into the queue.
//
//	production                      its clone
//	queue: n = n + 1
//	                                reads the position, the entry behind it
//	                                (without an owner: applies it, takes it out of the queue;
//	                                production never does)
//	                                another server owns the queue, and is alive: stands aside
//	applies, records, takes it out

const takeOver = "; if this one is to take its place run \"cachedpg queue take-over\" with the DSN of the application, or else give it a Redis of its own"

// Standing is how the server stands to the queue, by the last round that knew it.
func (b *Queue) Standing() Standing {
	err := b.stopped()
	if err == nil && b.ready.Load() {
		return Owns
	}
	return standingOf(err)
}

// StandAside makes the queue owner's, as if the last round had found that. It is for tests.
func (b *Queue) StandAside(owner string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.barred = &notOwner{standing: Foreign, owner: owner}
}

// stopped says why this process neither queues nor applies.
func (b *Queue) stopped() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.barred
}

// foreignTo reports that the queue is owner's, as it was when this process found out that
// its own server is another one. Who owns it by now may be this very server:
//
//	process a                       process b, same server
//	the queue is another's
//	                                takes it over
//	                                queues a write, acknowledged
//	read: the queue is not empty
//	(on its old finding: SELECT → old)
//	another owner: asks anew
func (b *Queue) foreignTo(owner string) bool {
	var e *notOwner
	return errors.As(b.stopped(), &e) && e.standing == Foreign && e.owner == owner
}

// place is where the connection was dialled to, as the configuration says it. "" is unknown.
func place(c backend.Conn) string {
	in, ok := c.(*backend.Pgx)
	if !ok {
		return ""
	}
	config := in.Conn.Conn().Config()
	return net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
}

// record is the row of the queue, and the server that it was read from.
type record struct {
	Server   string
	Timeline string
	Row      *struct { // nil if there is none
		Position string
		Refused  string
		Fence    int64
		Sequence int64
		Known    string
	}
	Roles []string // that have queued

	position string
	refused  []redis.Refused
	fence    int64
	sequence int64
	known    known
	changed  bool // something is to be recorded though nothing was applied
	lost     int64
}

// recordQuestion asks for the row, and with lock keeps it.
func recordQuestion(stream string, lock bool) string {
	end, roles := "", ""
	if lock {
		end = " FOR UPDATE"
		prefix := roleRow(stream)
		roles = fmt.Sprintf(", 'roles', (SELECT pg_catalog.json_agg(pg_catalog.substr(stream, %d)) FROM cachedpg.queue WHERE pg_catalog.starts_with(stream, %s))",
			len(prefix)+1, quoteLiteral(prefix))
	}
	return "SELECT pg_catalog.json_build_object('server', " + backend.StartedSQL + ", 'timeline', " + backend.TimelineSQL +
		", 'row', (SELECT pg_catalog.json_build_object('position', position, 'refused', refused, 'fence', fence, 'sequence', sequence, 'known', known)" +
		" FROM cachedpg.queue WHERE stream OPERATOR(pg_catalog.=) " + quoteLiteral(stream) + end + ")" + roles + ")"
}

func (a *applier) ask(ctx context.Context, lock bool) (*record, error) {
	answer, err := a.c.Inner().Ask(ctx, recordQuestion(a.b.store.QueueName(), lock))
	if err != nil {
		return nil, tableError(err)
	}
	r := &record{}
	if err := json.Unmarshal([]byte(answer), r); err != nil {
		return nil, fmt.Errorf("cachedpg: write-behind: cachedpg.queue: %w", err)
	}
	return r, nil
}

func tableError(err error) error {
	switch {
	case pgerr.Is(err, pgerr.UndefinedTable, pgerr.UndefinedSchema):
		return ErrNoTable
	case pgerr.Is(err, pgerr.UndefinedColumn):
		return errOldTable
	}
	return fmt.Errorf("cachedpg: write-behind: cachedpg.queue: %w", err)
}

// record locks the row of the queue, and makes it if there is none.
func (a *applier) record(ctx context.Context) (*record, error) {
	if _, err := a.c.Inner().Ask(ctx, settingsSQL); err != nil {
		return nil, err
	}
	r, err := a.ask(ctx, true)
	if err == nil && r.Row == nil {
		if _, err = a.c.Exec(ctx, "INSERT INTO cachedpg.queue (stream, position) VALUES ($1, '0-0') ON CONFLICT DO NOTHING",
			named(a.b.store.QueueName())); err == nil {
			r, err = a.ask(ctx, true)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case r.Row == nil:
		return nil, errors.New("cachedpg: write-behind: the row of the queue was taken out of cachedpg.queue")
	}
	r.position, r.fence, r.sequence = r.Row.Position, r.Row.Fence, r.Row.Sequence
	if _, _, ok := redis.ParseQueueID(r.position); !ok {
		return nil, fmt.Errorf("cachedpg: write-behind: cachedpg.queue: %.40q is no position", r.position)
	}
	if err := json.Unmarshal([]byte(r.Row.Refused), &r.refused); err != nil {
		return nil, fmt.Errorf("cachedpg: write-behind: cachedpg.queue: column refused: %w", err)
	}
	if err := json.Unmarshal([]byte(r.Row.Known), &r.known); err != nil {
		return nil, fmt.Errorf("cachedpg: write-behind: cachedpg.queue: column known: %w", err)
	}
	return r, nil
}

// owner is the server as it claims the queue.
func (a *applier) owner(r *record) redis.Owner {
	a.b.mu.Lock()
	given := a.b.given
	a.b.mu.Unlock()
	return redis.Owner{Server: r.Server, Timeline: r.Timeline, Place: a.place, Fence: r.fence, Sequence: r.sequence, Given: given}
}

// look shows that the server is alive that owns the queue. It is false if a round has
// to find out more.
func (a *applier) look(ctx context.Context) bool {
	r, err := a.ask(ctx, false)
	if err != nil || r.Row == nil || r.Timeline == "" {
		if a.isClosed() {
			a.close()
		}
		return false
	}
	r.fence, r.sequence = r.Row.Fence, r.Row.Sequence
	claim, err := a.b.store.Look(ctx, a.owner(r))
	return err == nil && claim.Owns
}

// rival is the owner of the queue as this applier met it first.
type rival struct {
	server, beat string
	last         string    // the beat that was seen last
	since        time.Time // for how long, on this machine's clock
	behind       bool      // it was alive while this server lacked some of what it has applied: for good
}

// claim makes sure that the queue is the server's whose row is locked, or says why it is not.
func (a *applier) claim(ctx context.Context, r *record) (redis.Claim, error) {
	c, err := a.b.store.Claim(ctx, a.owner(r))
	if err != nil {
		return c, err
	}
	if !c.Owns {
		if err := a.standing(ctx, r, &c); err != nil {
			return c, err
		}
	}
	a.rival = rival{}
	if c.New {
		r.changed = true // the copies of this server are behind it from now on
	}
	return c, nil
}

// standing says why the queue is not this server's, if it cannot be taken over.
func (a *applier) standing(ctx context.Context, r *record, c *redis.Claim) (err error) {
	if c.Orphan {
		return &notOwner{standing: Doubtful, reason: "Redis does not know which server of PostgreSQL owns the queue, and writes in it were queued for another one" + takeOver}
	}
	if a.rival.server != c.Server {
		a.rival = rival{server: c.Server, beat: c.Beat}
	}
	if a.rival.last != c.Beat {
		a.rival.last, a.rival.since = c.Beat, time.Now()
	}
	// Redis' clock may have been put back, which makes no silence shorter.
	switch alive := c.Silent < silent && time.Since(a.rival.since) < silent; {
	case alive && c.Beat != a.rival.beat:
		a.rival.behind = a.rival.behind || c.Behind
		fallthrough
	case a.rival.behind:
		return &notOwner{standing: Foreign, owner: c.Server, reason: "another server of PostgreSQL, of which this is a copy, owns the queue (" + c.Server + ", this is " + r.Server +
			"); writes go to this server at once; give it a Redis of its own"}
	case alive:
		return &notOwner{standing: Waiting, reason: "another server of PostgreSQL owned the queue a moment ago; this one takes it over when that is gone"}
	case c.Behind:
		return &notOwner{standing: Doubtful, reason: fmt.Sprintf("the server of PostgreSQL that owns the queue was not seen for %v, and has applied writes that this one does not have",
			c.Silent.Round(time.Second)) + takeOver}
	case !c.Known:
		return &notOwner{standing: Doubtful, reason: fmt.Sprintf("the server of PostgreSQL that owns the queue was not seen for %v, and this one may be it or its copy",
			c.Silent.Round(time.Second)) + takeOver}
	}
	taken, err := a.b.store.Take(ctx, a.owner(r), *c)
	if err == nil && !taken.Owns {
		err = &notOwner{standing: Waiting, reason: "another server of PostgreSQL has just taken the queue over"}
	}
	*c = taken
	return err
}

// known is what PostgreSQL knows of those who queue. Redis may hold anything; what
// runs is only what a process could have queued that was able to write this.
type known struct {
	Tables []string `json:"tables,omitempty"` // relations of the strategy, as policies name them
	Keys   []string `json:"keys,omitempty"`   // that entries are sealed with, see redis.Store.QueueKey
	Sealed bool     `json:"sealed,omitempty"`
	Plain  string   `json:"plain,omitempty"` // entries up to this id may be from before that
}

// maxRoles bounds the roles that a process may queue with.
const maxRoles = 512

// enroll makes the roles known that queue here. Each has a row beside the queue's, so
// that none waits for those who apply.
func (a *applier) enroll(ctx context.Context) error {
	b := a.b
	if !a.seen { // the applier's own is the usual one
		if s, err := a.c.Session(ctx); err == nil && s != nil {
			role := SettingsOf(s)["role"]
			b.mu.Lock()
			if _, ok := b.roles[role]; !ok {
				b.roles[role] = false
			}
			b.mu.Unlock()
		}
	}
	b.mu.Lock()
	var fresh []string
	for role, enrolled := range b.roles {
		if !enrolled {
			fresh = append(fresh, role)
		}
	}
	b.mu.Unlock()
	for _, role := range fresh {
		if _, err := a.c.Inner().ExecContext(ctx, "INSERT INTO cachedpg.queue (stream, position) VALUES ($1, '0-0') ON CONFLICT DO NOTHING",
			named(roleRow(b.store.QueueName())+role)); err != nil {
			return tableError(err)
		}
		b.mu.Lock()
		b.roles[role] = true
		b.serveLocked()
		b.mu.Unlock()
	}
	return nil
}

// roleRow is how the row of a role begins.
func roleRow(queue string) string { return queue + " role " }

// learn makes what this process is about to queue known.
func (a *applier) learn(ctx context.Context, r *record, c redis.Claim) error {
	b, k := a.b, &r.known
	add := func(list *[]string, v string, most int) {
		if !slices.Contains(*list, v) && len(*list) < most {
			*list, r.changed = append(*list, v), true
		}
	}
	for _, relation := range b.host.Relations {
		add(&k.Tables, relation, 4096)
	}
	key := b.store.QueueKey()
	if key == "" {
		if k.Sealed {
			return errSealed
		}
		return nil
	}
	add(&k.Keys, key, 64)
	if k.Sealed && c.Sealed {
		return nil
	}
	plain, err := b.store.SealQueue(ctx)
	if err == nil && !k.Sealed {
		k.Sealed, k.Plain, r.changed = true, plain, true
	}
	return err
}

var errSealed = errors.New("cachedpg: write-behind: the queue is encrypted, because another process has cache_encryption; give this one the same keys")
