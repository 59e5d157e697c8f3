package main

import (
	"context"
	"maps"
	"time"

	"github.com/cachedpg/cachedpg"
)

// sweepTime bounds how long a healed system may take until a query is answered
// from the cache.
const sweepTime = 30 * time.Second

// finishAll ends every transaction that is prepared.
func (w *worker) finishAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	for {
		var left int
		if err := w.plain.QueryRowContext(ctx, "SELECT count(*) FROM pg_prepared_xacts").Scan(&left); err != nil || left == 0 {
			return err
		}
		w.finish(ctx)
		rest(ctx, 10*time.Millisecond)
	}
}

// sweep asks every query until it is a hit. Nobody writes any more, so each
// answer must be PostgreSQL's, hit or not.
func (w *worker) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	for _, q := range queries {
		for {
			hit, same := w.compare(ctx, q)
			if !same {
				w.bad("when all was healed: %s differs from PostgreSQL", describe(q))
			}
			if hit || !same {
				break
			}
			if ctx.Err() != nil {
				w.bad("when all was healed: %s was not answered from the cache for %v; bypasses %v", describe(q), sweepTime,
					cachedpg.StatsOf(w.cached).Bypasses)
				return // the others had no time
			}
			rest(ctx, 20*time.Millisecond)
		}
	}
}

// compare asks through the cache between two times past it. The answers are
// the same unless those two are and the one between is not.
func (w *worker) compare(ctx context.Context, q query) (hit, same bool) {
	before, err := q.ask(ctx, w.plain)
	if err != nil {
		return false, true
	}
	hits := cachedpg.StatsOf(w.cached).Hits
	cached, o := w.saw(ctx, w.cached, "sweep: ", q)
	if o != ok {
		return false, true
	}
	hit = cachedpg.StatsOf(w.cached).Hits > hits
	after, err := q.ask(ctx, w.plain)
	if err != nil || !maps.Equal(before, after) {
		return false, true
	}
	return hit, maps.Equal(before, cached)
}
