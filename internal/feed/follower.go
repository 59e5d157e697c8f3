package feed

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/internal/step"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// follower follows the log over one slot: package walfeed says in which order.
// What it hears it hands to the functions, which one goroutine calls. An error of
// any ends it, and with it the slot and the locks: what was not handed on then is
// made up for by the cold of the next one.
type follower struct {
	guard      *guard.Guard // what PostgreSQL is asked over
	everything []store.Tag  // what nothing survives
	elect      bool         // there is to be one follower of all processes

	cold    func(context.Context) error
	intend  func(context.Context, store.WriterID, []store.Tag) error
	apply   func(ctx context.Context, txs []*followed, behind int64) error
	started func()

	// release, with intend, lets a change of the schema hold up nobody, see
	// followedCatalog. It is nil where each event is handed to another.
	release func(context.Context, store.WriterID, []store.Tag) error
	writer  func() store.WriterID

	noticed   func(context.Context, inspection) error // nil if nobody wants to know
	connected func()                                  // what may take its time begins; nil if nobody wants to know

	// snapshot is the schema that tags are made with. It may be newer than a
	// change: then the log has, after the change, a transaction that changed the
	// schema, which makes everything cold.
	snapshot *catalog.Snapshot
	catalog  followedCatalog

	found   inspection
	pending []*followed // in the order of their commits
	top     uint64      // a transaction id of about now
	shut    *followed   // see followedCatalog
}

// followed is a transaction on its way.
type followed struct {
	*walfeed.Transaction
	fullXID    uint64
	writer     store.WriterID
	tags       []store.Tag
	everything bool
	redefines  bool // tags of what comes after it need another catalog
	intended   bool
}

func (f *follower) run(ctx context.Context) error {
	if _, err := inspect(ctx, f.guard, inspection{}, false); err != nil {
		return err
	}
	config, err := f.guard.Replication()
	if err != nil {
		return err
	}
	stream, err := walfeed.Connect(ctx, config)
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := f.start(ctx, stream); err != nil {
		return err
	}
	return f.stream(ctx, stream)
}

// start returns when everything is heard of that becomes visible from now on.
func (f *follower) start(ctx context.Context, stream *walfeed.Stream) error {
	if where, err := stream.Text(ctx, "SELECT "+backend.IdentitySQL); err != nil {
		return err
	} else if where != f.guard.ID.Text() {
		return backend.Elsewhere{ID: f.guard.ID}
	}
	if f.elect {
		if taken, err := stream.Text(ctx, guard.LockSQL("pg_try_advisory_lock", guard.LockLeader)); err != nil {
			return err
		} else if taken != "true" && taken != "t" {
			return errFollower
		}
	}
	if f.connected != nil {
		f.connected()
	}
	if f.release != nil {
		if err := f.identify(ctx, stream); err != nil {
			return err
		}
	}
	slot, err := stream.CreateSlot(ctx)
	if err != nil {
		return err
	}
	// The id of the question is above all that were given out: a snapshot's bound would not be (D46).
	xid, err := f.guard.Text(ctx, "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text")
	if err != nil {
		return err
	}
	if f.top, err = strconv.ParseUint(xid, 10, 64); err != nil {
		return fmt.Errorf("cachedpg: PostgreSQL gives %q as a transaction id", xid)
	}
	over := "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) OPERATOR(pg_catalog.>=) '" + xid + "'::pg_catalog.xid8"
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		if ok, err := f.guard.Yes(ctx, over); err != nil {
			return err
		} else if ok {
			break
		}
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
	}
	if err := f.inspect(ctx, true); err != nil { // from now on, all that is altered is noticed
		return err
	}
	if f.snapshot, err = f.guard.LoadCatalog(ctx, f.snapshot); err != nil {
		return err
	}
	if err := f.cold(ctx); err != nil {
		return fmt.Errorf("cachedpg: cache_external=wal: the store: %w", err)
	}
	if f.elect {
		if _, err := stream.Text(ctx, guard.LockSQL("pg_advisory_lock", guard.LockFeed)); err != nil {
			return err
		}
	}
	if err := stream.Start(ctx, slot); err != nil {
		return err
	}
	f.started()
	return nil
}

// identify makes the id of the marks of the follower's own: who finds them after
// its process has died asks whether its connection is over.
func (f *follower) identify(ctx context.Context, stream *walfeed.Stream) error {
	f.writer = store.NewWriter
	if !f.elect {
		return nil
	}
	started, err := stream.Text(ctx, "SELECT (extract(epoch FROM backend_start) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8::pg_catalog.text"+
		" FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()")
	if err != nil {
		return err
	}
	micros, err := strconv.ParseInt(started, 10, 64)
	if err != nil {
		return fmt.Errorf("cachedpg: PostgreSQL gives %q as the start of a backend", started)
	}
	f.writer = func() store.WriterID { return store.NewBackendWriter(stream.PID(), time.UnixMicro(micros)) }
	return nil
}

// stream receives in a goroutine of its own, so that PostgreSQL hears of us
// while a store takes its time, and handles what has come.
func (f *follower) stream(ctx context.Context, stream *walfeed.Stream) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	received := make(chan *walfeed.Transaction, 64)
	failed := make(chan error, 1)
	go func() {
		failed <- receive(ctx, stream, received)
		close(received)
	}()
	err := f.handle(ctx, received)
	cancel()
	f.catalog.wait()
	cause := <-failed
	if err == nil {
		return cause
	}
	return err
}

func receive(ctx context.Context, stream *walfeed.Stream, received chan<- *walfeed.Transaction) error {
	for {
		tx, err := stream.Receive(ctx)
		if err != nil {
			return err
		}
		if tx == nil || len(tx.Tables) == 0 && !tx.Schema && len(tx.Refreshed) == 0 {
			continue
		}
		for sent := false; !sent; {
			timer := time.NewTimer(time.Second)
			select {
			case received <- tx:
				sent = true
			case <-timer.C: // the handler is behind
				if err := stream.KeepAlive(); err != nil {
					timer.Stop()
					return err
				}
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
			timer.Stop()
		}
	}
}

// handle handles transactions until no more can come. One that is not visible
// yet does not keep the others waiting.
func (f *follower) handle(ctx context.Context, received <-chan *walfeed.Transaction) error {
	var wait time.Duration
	inspect := time.NewTicker(inspectEvery)
	defer inspect.Stop()
	for {
		var again <-chan time.Time
		var timer *time.Timer
		if len(f.pending) > 0 {
			wait = min(max(2*wait, time.Millisecond), 50*time.Millisecond)
			timer = time.NewTimer(wait)
			again = timer.C
		}
		var more bool
		select {
		case tx, ok := <-received:
			if !ok {
				return nil
			}
			f.pending = append(f.pending, &followed{Transaction: tx})
			more, wait = true, 0
		case <-again:
		case <-inspect.C:
			if err := f.inspect(ctx, false); err != nil {
				return err
			}
		case loaded := <-f.catalog.loading:
			if err := f.loaded(ctx, loaded); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if timer != nil {
			timer.Stop()
		}
		if len(f.pending) == 0 {
			continue
		}
		for more && len(f.pending) < 256 { // what is there goes together
			select {
			case tx, ok := <-received:
				if more = ok; ok {
					f.pending = append(f.pending, &followed{Transaction: tx})
				}
			default:
				more = false
			}
		}
		step.At(step.Decoded)
		if err := f.advance(ctx); err != nil {
			return err
		}
	}
}

// advance hands on what is visible, and has what is not marked.
func (f *follower) advance(ctx context.Context) error {
	if err := f.plan(ctx); err != nil {
		return err
	}
	last := f.pending[len(f.pending)-1]
	questions := make([]string, len(f.pending))
	for i, t := range f.pending {
		questions[i] = "CASE WHEN " + backend.TransactionOverSQL(strconv.FormatUint(t.fullXID, 10)) + " THEN 't' ELSE 'f' END"
	}
	answer, err := f.guard.Text(ctx, fmt.Sprintf("SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '%X/%X')::pg_catalog.int8,"+
		" pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()), pg_catalog.array_to_string(ARRAY[%s], ''))",
		last.LSN>>32, uint32(last.LSN), strings.Join(questions, ", ")))
	if err != nil {
		return err
	}
	var behind int64
	var over string
	if _, err := fmt.Sscan(answer, &behind, &f.top, &over); err != nil || len(over) != len(f.pending) {
		return fmt.Errorf("cachedpg: PostgreSQL answers %q when asked which transactions are over", answer)
	}
	var visible, waiting []*followed
	for i, t := range f.pending {
		if over[i] == 't' {
			visible = append(visible, t)
			continue
		}
		waiting = append(waiting, t)
		if !t.intended {
			t.intended = true // it may fail half-way
			if err := f.intend(ctx, t.writer, t.tags); err != nil {
				return fmt.Errorf("cachedpg: cache_external=wal: the store: %w", err)
			}
			step.At(step.Intended)
		}
	}
	if len(visible) > 0 {
		redefined := slices.ContainsFunc(visible, func(t *followed) bool { return t.redefines })
		if redefined {
			if err := f.inspect(ctx, true); err != nil {
				return err
			}
			if err := f.withhold(ctx); err != nil {
				return err
			}
		}
		if err := f.apply(ctx, visible, behind); err != nil {
			return err
		}
		f.catalog.due = f.catalog.due || redefined
	}
	f.pending = waiting
	return f.reload(ctx)
}

// plan makes the tags of what is pending.
func (f *follower) plan(ctx context.Context) error {
	for _, t := range f.pending {
		if t.writer != (store.WriterID{}) {
			continue
		}
		t.fullXID = extend(t.XID, f.top)
		writer := store.NewTransactionWriter(t.fullXID)
		t.everything = t.Schema
		if !t.Schema && len(t.Redefined) > 0 && !f.catalog.behind {
			same, err := f.sameKeys(ctx, t.Redefined)
			if err != nil {
				return err
			}
			t.everything = !same
		}
		t.redefines = t.everything
		f.catalog.behind = f.catalog.behind || t.everything
		if t.writer = writer; f.catalog.behind {
			t.tags = f.everything
			continue
		}
		snapshot := f.snapshot
		for _, table := range t.Tables {
			n := len(table.Rows)
			if table.All {
				n = -1
			}
			t.tags = keying.ChangedTags(t.tags, snapshot, table.Relation, n, func(i int, column string) keying.StoredValue {
				for _, field := range table.Rows[i] {
					if field.Column == column {
						return keying.StoredValue{Text: field.Text, Null: field.Null, Known: true}
					}
				}
				return keying.StoredValue{}
			})
		}
		for _, oid := range t.Refreshed {
			t.tags = keying.ChangedTags(t.tags, snapshot, oid, -1, nil)
		}
	}
	return nil
}

// extend returns the full id of a transaction that the log names by the last 32
// bits: the one nearest to top, where ids are about now.
func extend(xid uint32, top uint64) uint64 {
	return top + uint64(int64(int32(xid-uint32(top))))
}
