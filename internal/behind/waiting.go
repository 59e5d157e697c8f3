package behind

import (
	"context"

	"github.com/cachedpg/cachedpg/internal/pause"
	"github.com/cachedpg/cachedpg/store/redis"
)

// want asks for a round that has not begun.
func (b *Queue) want() (mine uint64) {
	b.mu.Lock()
	b.wanted++
	mine = b.wanted
	b.mu.Unlock()
	pause.End(b.now)
	return mine
}

// await returns the outcome of a round that began after it was asked for, or nil as
// soon as something that b.served tells of is enough.
func (b *Queue) await(ctx context.Context, mine uint64, enough func() bool) error {
	for {
		b.mu.Lock()
		done, err, served := b.done, b.err, b.served
		b.mu.Unlock()
		switch {
		case enough():
			return nil
		case done >= mine:
			return err
		}
		select {
		case <-served:
		case <-b.ended:
			return b.host.Closed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// once has one round made.
func (b *Queue) once(ctx context.Context) error {
	return b.await(ctx, b.want(), func() bool { return false })
}

// serveLocked wakes those who wait.
func (b *Queue) serveLocked() {
	close(b.served)
	b.served = make(chan struct{})
}

// queueLess reports that one id comes before the other; "" comes before all.
func queueLess(a, b string) bool {
	ams, an, _ := redis.ParseQueueID(a)
	bms, bn, _ := redis.ParseQueueID(b)
	return ams < bms || ams == bms && an < bn
}

// gave takes notice of a sequence number that was given out.
func (b *Queue) gave(number int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.given = max(b.given, number)
}
