package feed

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/invalidation/walfeed"
	"github.com/cachedpg/cachedpg/store"
)

// What lets the log be followed can be altered while it is: the publication may lose
// an operation, and the event triggers be disabled. PostgreSQL goes on sending, and
// less. So what is asked at the start is asked again: every inspectEvery, of each
// change of the schema before it is handed on, and before the feed is live. What was
// altered ends the follower, also when it is well now: what happened in between was
// not heard. The next one begins cold.
//
//	follower                   owner                      another
//	sees the publication
//	                           SET (publish = 'insert')
//	                                                      UPDATE, in nobody's log
//	                           SET (publish = 'insert, update, …')
//	sees it, altered:
//	everything is cold
//
// Tables that the publication rightly leaves out (see walfeed.SetupSQL) are read
// past the cache. One that comes back ends the follower too; one that goes makes
// everything cold, once nobody here fills what reads it.

const (
	// inspectEvery bounds how long it takes to notice what no message tells.
	inspectEvery = time.Second

	// refusedEvery is how often PostgreSQL is asked without a reason which tables it
	// refuses to change, a question that looks at all of them.
	refusedEvery = 30 * time.Second
)

// inspection is what was found at one time.
type inspection struct {
	version string
	out     *walfeed.Out // nil if the publication has all tables
	refused error        // a *walfeed.ConfigError
	looked  time.Time    // when refused was asked for
}

// badConfig is what an inspection finds wrong, which another may find mended.
type badConfig struct{ error }

func (e *badConfig) Unwrap() error { return e.error }

var errAltered = errors.New("cachedpg: what the feed needs was altered, so what happened meanwhile is not known")

// inspect asks whether the log can be followed. Before is what was found the
// last time, the zero inspection if nothing was; all looks at every table.
func inspect(ctx context.Context, g *guard.Guard, before inspection, all bool) (inspection, error) {
	ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
	defer cancel()
	found := inspection{refused: before.refused, looked: before.looked}
	answer, err := g.Text(ctx, walfeed.CheckSQL)
	if err != nil {
		return found, err
	}
	if err := walfeed.Check(answer); err != nil {
		return found, &badConfig{err}
	}
	var lists bool
	if found.version, lists = walfeed.State(answer); lists {
		if answer, err = g.Text(ctx, walfeed.ListSQL); err != nil {
			return found, err
		}
		if found.out, err = walfeed.CheckList(answer); err != nil {
			return found, &badConfig{err}
		}
	}
	if all || time.Since(found.looked) > refusedEvery {
		if answer, err = g.Text(ctx, walfeed.RefusedSQL); err != nil {
			return found, err
		}
		found.refused, found.looked = walfeed.CheckRefused(answer), time.Now()
	}
	return found, nil
}

// err is what is wrong though the log can be followed.
func (i inspection) err() error {
	if i.refused != nil {
		return i.refused
	}
	return i.out.Err()
}

// reading are the tables that cannot be relied on, ascending.
func (i inspection) reading() []uint32 {
	if i.out == nil {
		return nil
	}
	return i.out.Reading
}

// returns reports that a table of before is followed again.
func (i inspection) returns(before inspection) bool {
	return slices.ContainsFunc(before.reading(), func(oid uint32) bool { return !slices.Contains(i.reading(), oid) })
}

// inspect looks again, for a follower that has looked before.
func (f *follower) inspect(ctx context.Context, all bool) error {
	found, err := inspect(ctx, f.guard, f.found, all)
	if err != nil {
		var wrong *badConfig
		if errors.As(err, &wrong) || ctx.Err() != nil {
			return err
		}
		// The connection may have been closed for lack of use.
		if found, err = inspect(ctx, f.guard, f.found, all); err != nil {
			return err
		}
	}
	if f.found.version != "" && (found.version != f.found.version || found.returns(f.found)) {
		return errAltered
	}
	f.found = found
	if f.noticed == nil {
		return nil
	}
	return f.noticed(ctx, found)
}

// noticed makes known what an inspection has found, before anybody relies on it.
func (f *Feed) noticed(ctx context.Context, found inspection) error {
	f.mu.Lock()
	before := f.found
	f.found = found
	f.mu.Unlock()
	f.out.Store(found.out)
	if !before.returns(found) { // nothing was left out that was not before
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, guard.AskTimeout)
	defer cancel()
	return f.host.Cache.InvalidateAll(ctx)
}

// LeavesOut reports that what depends on these tags reads a table that is not followed.
func (f *Feed) LeavesOut(tags []store.Tag) bool {
	if f == nil {
		return false
	}
	out := f.out.Load()
	return out != nil && len(out.Reading) > 0 && slices.ContainsFunc(tags, func(tag store.Tag) bool {
		_, found := slices.BinarySearch(out.Reading, tag.Relation)
		return found && tag.Kind != store.TagSchema && tag.Kind != store.TagCatalog
	})
}
