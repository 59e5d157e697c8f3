package core

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
//
// So are the relations of the strategy, for a DB of the same database may have other
// policies: what is a matter of age to the one is strict to the other, who must not
// find an entry without its tags.
//
// The age counts from before the SELECT was sent, because what it gives may be as
// old as that. A shared store counts the time from when the entry arrives, which
// after a pause of this process may be much later, and the clock of who reads may
// differ from that of who filled. So an entry is used for as long as both say.
//
// In a transaction what is of its moment comes from PostgreSQL and is not stored.
// now() stands still there: it may be any time old when the SELECT is sent.

// limit is the life that the query itself allows an entry; 0 if it does not say.
func (q *call) limit(ctx context.Context) time.Duration {
	limit := q.text.Hints.TTL
	if of := hintsOf(ctx).TTL; of > 0 && (limit == 0 || of < limit) {
		limit = of
	}
	return limit
}

// excused reports that the query accepts that its answer is of its moment.
func (q *call) excused(ctx context.Context) bool {
	return q.text.Plan.Lasting == keying.NoReason && (q.limit(ctx) > 0 || q.text.Excused)
}

// tooOld reports that an entry is older than q allows.
func (q *call) tooOld(entry *store.Entry) bool {
	return q.byAge && entry != nil && store.Now() >= entry.Expires
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
	b := binary.BigEndian.AppendUint64(append(make([]byte, 0, 64), l.key[:]...), uint64(ttl))
	for _, oid := range relations {
		b = binary.BigEndian.AppendUint32(b, oid)
	}
	l.key = sha256.Sum256(b)
}

// ttl is the longest life of the entry: what the policies say, and no longer
// than the hints do.
func (q *call) ttl(ctx context.Context) time.Duration {
	if limit := q.limit(ctx); limit > 0 {
		return min(q.text.TTL, limit)
	}
	return q.text.TTL
}
