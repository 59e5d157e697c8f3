package behind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Whoever can write to Redis can put something into the queue. So an entry is
// judged before it runs: it has to be authentic where there are keys, in its place, and what
// the strategy queues, by the catalog of now. What is not is refused: it never runs, and
// those behind it do.

// mostNumbers is by how much the numbers of entries may go on at once. There is no end of
// them, unless somebody makes a process begin near it.
const mostNumbers = 1 << 33

// open gives what an entry says, if it is the next one of the queue's.
func (a *applier) open(e redis.Queued, r *record, given int64) (w Entry, err error) {
	queue := a.b.store
	payload, err := queue.OpenQueued(e, r.known.Plain != "" && !queueLess(r.known.Plain, e.ID))
	switch {
	case redis.IsUnknownKey(err) && slices.Contains(r.known.Keys, e.Key()):
		return w, fmt.Errorf("cachedpg: write-behind: a process with another key in cache_encryption has queued a write; give this one all keys that are in use")
	case err != nil:
		return w, &refusedWrite{err}
	case e.Sequence <= 0:
		return w, &refusedWrite{errors.New("cachedpg: write-behind: an entry of the queue was not written by this driver")}
	case e.Sequence <= r.sequence:
		return w, &refusedWrite{errors.New("cachedpg: write-behind: an entry of the queue is there a second time, or not in its place")}
	case e.Sequence > r.sequence+mostNumbers, e.Sequence > given && queue.QueueKey() == "":
		return w, &refusedWrite{errors.New("cachedpg: write-behind: an entry of the queue has a number that was never given out")}
	}
	r.lost += e.Sequence - r.sequence - 1
	r.sequence = e.Sequence
	if w, err = Decode(payload); err != nil {
		err = &refusedWrite{err}
	}
	return w, err
}

// maySet reports whether an entry may ask for the settings, and why not. Names and roles
// are of those that this driver's processes queue with; values become parameters.
func (r *record) maySet(wanted map[string]string) error {
	for name := range wanted {
		if name != "role" && name != "search_path" && (!slices.Contains(keying.Settings, name) || name == notQueued) {
			return fmt.Errorf("cachedpg: write-behind: an entry of the queue sets %.40q", name)
		}
	}
	switch {
	case !slices.Contains(r.Roles, wanted["role"]):
		return errors.New("cachedpg: write-behind: an entry of the queue is of a role that no process has queued with")
	case !readable(wanted):
		return errors.New("cachedpg: write-behind: an entry of the queue has settings under which a text may mean something else")
	}
	return nil
}

// judge reports whether a statement is what the strategy queues. What an old catalog refuses is
// looked at again with the one of now.
func (a *applier) judge(ctx context.Context, sql string, s Statement, k *known) error {
	if s.Session == nil {
		return errors.New("cachedpg: write-behind: the session's settings cannot be read")
	}
	if s.Snapshot != nil && a.mayRun(s.Plan, s.Snapshot, s.Values, k) {
		return nil
	}
	if a.catalog == nil {
		snapshot, err := a.c.Inner().LoadCatalog(ctx, nil)
		if err != nil {
			return err
		}
		a.catalog = snapshot
	}
	if scanned, ok := parser.Scan(sql); ok && s.Session.StandardText {
		statements, err := parser.Parse(sql, scanned.Literals)
		if err == nil {
			plan := keying.New(scanned.Text, statements, a.catalog, s.Session.Path)
			if a.mayRun(plan, a.catalog, keying.Values{Args: s.Values.Args, Literals: scanned.Literals}, k) {
				return nil
			}
		}
	}
	return &refusedWrite{errors.New("cachedpg: write-behind: an entry of the queue is not one write of rows by key of a table with that strategy")}
}

// mayRun reports that a plan is that of a write which one of those that queue could have queued.
func (a *applier) mayRun(plan *keying.Plan, snapshot *catalog.Snapshot, v keying.Values, k *known) bool {
	if len(plan.Kinds) != 1 || !plan.Later || len(plan.WritesTo()) != 1 {
		return false
	}
	rel := snapshot.ByOID(plan.WritesTo()[0])
	if rel == nil || rel.Schema == schema || !slices.ContainsFunc(k.Tables, func(table string) bool { return a.b.host.Names(table, rel) }) {
		return false
	}
	may, buf := plan.MayWait(v, a.keyBuf)
	a.keyBuf = buf[:0]
	return may
}

// run runs one statement in the session that it was written for.
func (a *applier) run(ctx context.Context, w Entry, r *record) error {
	c := a.c
	if w.Mode < int32(pgx.QueryExecModeCacheStatement) || w.Mode > int32(pgx.QueryExecModeSimpleProtocol) {
		return &refusedWrite{fmt.Errorf("cachedpg: write-behind: an entry of the queue has the execution mode %d", w.Mode)}
	}
	var wanted map[string]string
	err := json.Unmarshal([]byte(w.Settings), &wanted)
	if err == nil {
		err = r.maySet(wanted)
	}
	if err != nil {
		return &refusedWrite{err}
	}
	if err := a.enterSession(ctx, wanted); err != nil {
		return err
	}
	args := append(named(pgx.QueryExecMode(w.Mode)), named(w.Args...)...)
	for i := range args {
		args[i].Ordinal = i + 1
	}
	ran := false
	err = c.Run(ctx, w.SQL, args, func(s Statement) error {
		err := a.judge(ctx, w.SQL, s, &r.known)
		ran = err == nil
		return err
	})
	switch {
	case !ran || isClosed(c) || ctx.Err() != nil:
		return err
	case c.Inner().TxStatus() == 'I':
		_ = c.Inner().Close() // the position must not be recorded outside of what it is of
		return errors.Join(errors.New("cachedpg: write-behind: a queued write has ended the transaction that it ran in"), backend.ErrBadConn)
	case err != nil && isFinal(err):
		return &refusedWrite{err}
	}
	return err
}
