package cachedpg

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// What is bounded by age alone, because somebody said how old it may be: what
// reads a relation of strategy "ttl", as far as that relation is concerned, and
// what depends on the clock, on chance and the like, in a query with a ttl of
// its own. Everything else that such a result depends on invalidates it as ever.
//
// Writes of a relation of strategy "ttl" invalidate like others. So a process
// that does not have the policy is not wrong, and a transaction sees its own.
//
// The limit is part of the key, so that nobody gets an answer older than he asked
// for because another one is content with less. Without that:
//
//	A, ttl=1h                  B, ttl=5s
//	miss, fill
//	                           (an hour passes, nearly)
//	                           hit: 59 minutes old

// limit is the life that the query itself allows an entry; 0 if it does not say.
func (q *call) limit(ctx context.Context) time.Duration {
	limit := q.text.hints.ttl
	if of := hintsOf(ctx).ttl; of > 0 && (limit == 0 || of < limit) {
		limit = of
	}
	return limit
}

// excused reports that the query accepts that its answer is of its moment.
func (q *call) excused(ctx context.Context) bool {
	return q.text.plan.Lasting == keying.NoReason && q.limit(ctx) > 0
}

// byAge takes out of the lookup what only the age of the entry bounds.
func (l *lookup) byAge(relations []uint32, ttl time.Duration) {
	kept, always := l.tags[:0], 0
	for i, t := range l.tags {
		if t.Kind != store.TagSchema && slices.Contains(relations, t.Relation) {
			continue
		}
		if i < l.always {
			always++
		}
		kept = append(kept, t)
	}
	l.tags, l.always = kept, always
	var b [len(l.key) + 8]byte
	copy(b[:], l.key[:])
	binary.BigEndian.PutUint64(b[len(l.key):], uint64(ttl))
	l.key = sha256.Sum256(b[:])
}
