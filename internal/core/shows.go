package core

import (
	"context"
	"fmt"
	"strconv"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/peers"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
)

// announceOutside is announce of what a connection writes that has no space.
func (c *Conn) announceOutside(ctx context.Context) error {
	o := c.d.Outer.Load()
	switch {
	case o != nil || c.located:
		return o.Announce(ctx, committer{c}, c.pid == 0)
	case c.tx != nil:
		c.tx.unseen = true // it is shown before COMMIT
		return nil
	}
	return c.showAnyway(ctx)
}

// cachesQuestion asks whether anybody on the server may have a cache.
var cachesQuestion = fmt.Sprintf("SELECT (EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND objsubid OPERATOR(pg_catalog.=) 2"+
	" AND classid OPERATOR(pg_catalog.=) '%d'::pg_catalog.oid AND objid::pg_catalog.int8 OPERATOR(pg_catalog.&) %d OPERATOR(pg_catalog.=) 0"+
	" AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()))::pg_catalog.text", guard.LockCamps, peers.Writes)

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
	own := peers.NewCamp(peers.Off)
	if c.shown == own.Writing() {
		return nil
	}
	pid, err := backend.AskIn(ctx, c.inner, "SELECT pg_catalog.pg_backend_pid()::pg_catalog.text")
	lasts := err != nil || pid == strconv.FormatUint(uint64(c.inner.PID()), 10)
	if !lasts && c.inner.TxStatus() == 'I' {
		return nil
	}
	return c.showOn(ctx, own, lasts, cachesQuestion, func(answer string) (bool, error) { return backend.IsTrue(answer), nil })
}

// committer is a connection as peers see it.
type committer struct{ *Conn }

func (c committer) Denials() *backend.Denials { return &c.d.denials }

func (c committer) ShowOn(ctx context.Context, own peers.Camp, question string, caches func(string) (bool, error)) error {
	return c.showOn(ctx, own, c.pid != 0, question, caches)
}

// showOn has others see, by a lock of the connection that commits, that a process of a camp writes, and waits until those have
// no hits who may have a cache. lasts says that the connection has the same backend for as long as it lives. The
// answer to the question, of which caches makes out whether there is anybody, comes after the lock (I23).
func (c *Conn) showOn(ctx context.Context, own peers.Camp, lasts bool, question string, caches func(answer string) (bool, error)) error {
	if c.inner.TxStatus() == 'E' || c.shown == own.Writing() {
		return nil
	}
	function := "pg_advisory_lock_shared"
	if !lasts && !c.d.statementPool.Load() {
		function = "pg_advisory_xact_lock_shared"
	}
	if _, err := backend.KeepIn(ctx, c.inner, own.Writing().Call(function)); err != nil {
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
		c.d.problems.Note(space.WorkCommit, err)
		some = true
	}
	if some {
		if err := peers.Patiently(ctx, c.inner, peers.Wait()); err != nil {
			return err
		}
	}
	if lasts {
		c.shown = own.Writing()
	}
	return nil
}

// bypassOf is why a mode that reads nothing reads nothing.
func bypassOf(c *config.Config) keying.Reason {
	if c.Mode == config.ModeOff {
		return keying.CacheOff
	}
	return keying.WriteOnly
}

// notShown returns the error of showing others that the connection writes, unless it is that PostgreSQL
// refuses: then it is not to be seen.
func (c *Conn) notShown(ctx context.Context, err error) error {
	if c.inner.Closed() || ctx.Err() != nil || !guard.Refused(err) {
		return err
	}
	c.d.problems.Note(space.WorkCommit, err)
	return nil
}

// withheld says why nothing comes from the cache because of other processes.
func (c *Conn) withheld() error {
	if c.known.space == nil || c.d.Config.Store == config.StoreOff || c.d.Config.Mode != config.ModeReadWrite {
		return nil
	}
	return c.known.space.Peers.Check()
}
