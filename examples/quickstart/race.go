package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/keying"
)

const readers = 8

// race lets goroutines read a row while another one updates it, and checks
// every single read. The row's stock only ever grows, by one with each commit,
// so its value is its version.
func (d *demo) race(ctx context.Context) error {
	d.title("5. Readers beside a writer")
	const id = 3
	start, err := stockOf(ctx, d.cached, id)
	if err != nil {
		return err
	}
	w := newWitness(start)
	before := cachedpg.StatsOf(d.cached)
	begin := time.Now()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	var written atomic.Bool
	group.Go(func() {
		defer written.Store(true)
		for version := start + 1; version <= start+int64(d.updates); version++ {
			w.begins(version)
			if err := deliver(ctx, d.cached, id); err != nil {
				cancel(fmt.Errorf("writer: %w", err))
				return
			}
			w.returned(version)
			// Without a pause some commit is under way all the time, and no
			// read may be answered from the cache.
			time.Sleep(3 * time.Millisecond)
		}
	})
	for range readers {
		group.Go(func() {
			for !written.Load() && ctx.Err() == nil {
				oldest := w.oldest()
				stock, err := stockOf(ctx, d.cached, id)
				if err != nil {
					cancel(fmt.Errorf("reader: %w", err))
					return
				}
				w.read(oldest, stock)
				// A program does something with what it read. Without a
				// pause eight readers that hit would leave the writer no processor.
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	met := since(before, d.cached)
	end, err := stockOf(ctx, d.pgx, id)
	if err != nil {
		return err
	}

	reads, stale, early := w.reads.Load(), w.stale.Load(), w.early.Load()
	d.text(fmt.Sprintf(`%d goroutines read the stock of product %d while another one raised it %s times, one commit
		each, for %s. Every read was checked: it may not be older than a commit that had returned before the read
		began, nor older than what any goroutine had read by then.`, readers, id, thousands(d.updates), seconds(took)))
	d.line("")
	d.line("  %-12s %10s", "reads", thousands(reads))
	d.line("  %-12s %10s", "  hits", thousands(met.Hits))
	d.line("  %-12s %10s", "  misses", thousands(met.Misses))
	d.line("  %-12s %10s   went to PostgreSQL because a commit was under way", "  bypassed", thousands(met.Bypassed))
	d.line("  %-12s %10d", "stale reads", stale)
	d.line("  %-12s %10d", "lost updates", start+int64(d.updates)-end)
	d.expect(stale == 0, "%d of %d reads were stale", stale, reads)
	d.expect(early == 0, "%d of %d reads saw an update before it was sent", early, reads)
	d.expect(end == start+int64(d.updates), "the stock is %d at the end, want %d", end, start+int64(d.updates))
	d.expect(met.Bypassed == met.Bypasses[keying.DirtyTag.String()], "some reads went to PostgreSQL for another reason: %v", met.Bypasses)
	d.expect(met.Hits > 0, "there was no hit, so the check has shown nothing")
	d.expect(met.Lookups+met.Bypassed == uint64(reads), "%d reads, but %d lookups and %d bypasses", reads, met.Lookups, met.Bypassed)
	return nil
}

// witness knows which versions a read may return. Versions are numbers that
// grow. It is safe for concurrent use.
type witness struct {
	begun     atomic.Int64 // the newest version that has been sent
	committed atomic.Int64 // the newest version whose commit has returned
	seen      atomic.Int64 // the newest version that a read has returned

	reads, stale, early atomic.Int64
}

func newWitness(version int64) *witness {
	w := &witness{}
	w.begun.Store(version)
	w.committed.Store(version)
	w.seen.Store(version)
	return w
}

// begins is called before a version is sent, returned after its commit. There
// is one writer.
func (w *witness) begins(version int64)   { w.begun.Store(version) }
func (w *witness) returned(version int64) { w.committed.Store(version) }

// oldest is called before a read begins: what it may return at the oldest.
func (w *witness) oldest() int64 { return max(w.committed.Load(), w.seen.Load()) }

// read is called after a read has returned.
func (w *witness) read(oldest, version int64) {
	w.reads.Add(1)
	if version < oldest {
		w.stale.Add(1)
	}
	if version > w.begun.Load() {
		w.early.Add(1)
	}
	for {
		seen := w.seen.Load()
		if version <= seen || w.seen.CompareAndSwap(seen, version) {
			return
		}
	}
}
