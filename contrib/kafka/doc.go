// Package kafka carries cachedpg's invalidation events through a topic of Apache
// Kafka to the caches of other regions.
//
//	region A                                        region B
//	cachedpg ─ commit ─▶ PostgreSQL ◀── misses ──── cachedpg
//	    │                  │                          │
//	    ▼                  ▼ outbox, or WAL           ▼
//	  store A           Producer ─▶ topic ─▶ Consumer ─▶ store B
//
// A Producer is the invalidation.Sink of an outbox relay or of cachedpg.Follow. A
// Consumer applies what it reads to the store of its own region. An event only
// ever invalidates, and what it tells of is visible in PostgreSQL before it is
// sent. So it does no harm to deliver one twice, late or in another order, and
// all that has to be kept is this:
//
//	K1   Send returns nil when every in-sync replica of the topic has the events.
//	K2   An offset is committed when what lies before it has been applied.
//	K3   Where a Consumer does not know what it has missed, it invalidates
//	     everything, after it has fixed the position that it reads on from.
//	K4   What cannot be read may have been any event: it invalidates everything.
//
// What is given up is the bound: region B is stale for as long as an event
// travels, and while Kafka or all its Consumers are down. Entries expire as a
// last resort, see cachedpg's cache_ttl.
//
// # The records
//
// A record is one tag of one event. Its key is the database and the tag, so that
// a compacted topic keeps the newest record of each; an older one says nothing
// that the newer does not. Its value says which event, for people and for lag.
// Several databases may share a topic.
package kafka
