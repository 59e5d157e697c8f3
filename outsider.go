package cachedpg

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/keying"
)

// outsider is a process with cache_store=off in which nobody caches either: it has
// no space and nothing to mark in, so that all it can do for those who cache
// elsewhere is to be seen before it writes.
type outsider struct {
	guard guard.Guard
	peers *peers
	users int // guarded by spacesMu
}

var outsiders = make(map[spaceKey]*outsider) // guarded by spacesMu

// standOutside makes d a user of the outsider of a database. Who calls it holds spacesMu.
func (d *connector) standOutside(key spaceKey) {
	o := d.outside[key]
	if o == nil {
		if o = outsiders[key]; o == nil {
			o = &outsider{}
			o.guard.ID = key.Identity
			own := newCamp(campOff)
			o.peers = newPeers(&o.guard, key.process, func() camp { return own }, "", nil)
			o.peers.watches = true
			outsiders[key] = o
		}
		o.users++
		o.guard.Add(d)
		if d.outside == nil {
			d.outside = make(map[spaceKey]*outsider)
		}
		d.outside[key] = o
	}
	d.outer.Store(o)
}

// comeInside has the process marked for where a space is. Who calls it holds spacesMu.
func (d *connector) comeInside(key spaceKey) {
	if o := outsiders[key]; o != nil {
		delete(outsiders, key)
		go o.close() // it may be asking
	}
	delete(d.outside, key)
}

// goAway leaves all outsiders.
func (d *connector) goAway() {
	d.outer.Store(nil)
	spacesMu.Lock()
	outside := d.outside
	d.outside = nil
	var last []*outsider
	for key, o := range outside {
		o.guard.Remove(d)
		if o.users--; o.users == 0 && outsiders[key] == o {
			delete(outsiders, key)
			last = append(last, o)
		}
	}
	spacesMu.Unlock()
	for _, o := range last {
		o.close()
	}
}

// announceOutside is announce of what a connection writes that has no space.
func (c *Conn) announceOutside(ctx context.Context) error {
	o := c.d.outer.Load()
	switch {
	case o != nil || c.located:
		return o.announce(ctx, c)
	case c.tx != nil:
		c.tx.unseen = true // it is shown before COMMIT
		return nil
	}
	return c.showAnyway(ctx)
}

// cachesQuestion asks whether anybody on the server may have a cache.
var cachesQuestion = fmt.Sprintf("SELECT (EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND objsubid OPERATOR(pg_catalog.=) 2"+
	" AND classid OPERATOR(pg_catalog.=) '%d'::pg_catalog.oid AND objid::pg_catalog.int8 OPERATOR(pg_catalog.&) %d OPERATOR(pg_catalog.=) 0"+
	" AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()))::pg_catalog.text", lockCamps, campWrites)

// showAnyway has others see that the connection writes although PostgreSQL does not tell on which server and
// database it is, because the role may not ask: so there is nothing that could be marked. It holds the lock of
// a writer that shares no store for as long as it lives, so that nobody there has hits (I23).
//
//	process with rights                     role without
//	fills, hits
//	                                        UPDATE
//	                                        shows that it writes, waits until hits are over
//	                                        COMMIT
//	no hit: somebody writes past it
//
// Behind a pooler it is the transaction that holds the lock; a statement outside of one cannot.
func (c *Conn) showAnyway(ctx context.Context) error {
	own := newCamp(campOff)
	if c.shown == own.writing() {
		return nil
	}
	pid, err := backend.AskIn(ctx, c.inner, "SELECT pg_catalog.pg_backend_pid()::pg_catalog.text")
	lasts := err != nil || pid == strconv.FormatUint(uint64(c.inner.PID()), 10)
	if !lasts && c.inner.TxStatus() == 'I' {
		return nil
	}
	return c.showOn(ctx, own, lasts, cachesQuestion, func(answer string) (bool, error) { return backend.IsTrue(answer), nil })
}

// showOn has others see, by a lock of the connection that commits, that a process of a camp writes, and waits until those have
// no hits who may have a cache. lasts says that the connection has the same backend for as long as it lives. The
// answer to the question, of which caches makes out whether there is anybody, comes after the lock (I23).
func (c *Conn) showOn(ctx context.Context, own camp, lasts bool, question string, caches func(answer string) (bool, error)) error {
	if c.inner.TxStatus() == 'E' || c.shown == own.writing() {
		return nil
	}
	function := "pg_advisory_lock_shared"
	if !lasts && !c.d.statementPool.Load() {
		function = "pg_advisory_xact_lock_shared"
	}
	if _, err := backend.KeepIn(ctx, c.inner, own.writing().Call(function)); err != nil {
		return c.notShown(ctx, err)
	}
	var some bool
	answer, err := backend.AskIn(ctx, c.inner, question)
	if err == nil {
		some, err = caches(answer)
	}
	if c.inner.Closed() || ctx.Err() != nil {
		return err
	}
	if err != nil { // then it waits for those who may be there
		c.d.problems.note(workCommit, err)
		some = true
	}
	if some {
		if err := patiently(ctx, c.inner, campWait()); err != nil {
			return err
		}
	}
	if lasts {
		c.shown = own.writing()
	}
	return nil
}

func (o *outsider) announce(ctx context.Context, c *Conn) error {
	if o == nil {
		return nil
	}
	if c.pid == 0 && c.inner.TxStatus() == 'T' { // a pooler may have led it elsewhere, or everything since
		where, err := backend.AskIn(ctx, c.inner, "SELECT "+backend.IdentitySQL)
		if err != nil {
			return err
		}
		if where != o.guard.ID.Text() {
			return o.peers.announceOn(ctx, c, where[strings.LastIndexByte(where, '/')+1:])
		}
	}
	return o.peers.announce(ctx, c)
}

func (o *outsider) close() {
	o.peers.close()
	o.guard.Close()
}

// bypass is why a mode that reads nothing reads nothing.
func (c Config) bypass() keying.Reason {
	if c.Mode == modeOff {
		return keying.CacheOff
	}
	return keying.WriteOnly
}
