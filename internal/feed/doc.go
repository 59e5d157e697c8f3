// Package feed invalidates what anybody changes, past the driver too. It follows PostgreSQL's write-ahead log, makes
// tags of what a transaction has changed, and hands them on: a Feed to the cache of this process or to a store
// that processes share, Follow to a sink. docs/wal-feed.md says what that is for. Package walfeed has the protocol: in which order a
// follower begins, and why a transaction that was decoded is not over yet.
//
// What the package does for its host, which is the driver:
//
//	New                 once for a cache, when somebody asks for the feed
//	Feed.Join, Forget   when another connector comes or goes over which PostgreSQL can be asked
//	Feed.Down           before a lookup: nobody follows, so reads must not use the cache
//	Feed.LeavesOut      before a lookup: what the tags depend on is not followed
//	Feed.Check, CheckAll what a Ping says of it
//	Feed.Report         what Stats says of it
//	Feed.Cancel, Close  when the database is elsewhere; at the end
//	Follow              cachedpg.Follow
//
// What it promises, while it is live: no result is a hit that is older than a commit which was visible when the log was last
// handled, whoever made that. When it is not, nothing is promised, and what happens meanwhile is made up for: whoever is live
// again has made everything cold before.
//
// What the host has to do, or that does not hold:
//
//   - Where processes share a store, its lease is renewed only while somebody holds guard.LockFeed. Elsewhere Down is asked
//     before every lookup. LeavesOut is asked before a lookup in either.
//   - A Cache's Release gives new stamps, and an Intend is undone by Release alone.
//   - Whoever finds the mark of a writer that has died asks PostgreSQL whether that is over, as of other writers: a follower marks
//     by the ids of transactions, and by its own backend.
//   - Live, which is called when the feed begins to lead, does not wait for the feed.
//
// Who dies where:
//
//   - the follower, its process or its connection: its slot and its locks end with the connection. Whoever follows next waits for
//     what was open, and begins cold;
//   - it, with marks left behind: they are released by the next follower of the same Feed, after everything was made cold, or
//     resolved by any process that meets them;
//   - PostgreSQL: the connection ends, as above. Another server in its place is another database to the host.
//
// What PostgreSQL needs for all that can be altered while the log is followed: see watch.go. The schema that tags are made
// with is behind after a change of it: see catalog.go.
//
// See docs/decisions/feed-and-outbox.md (D69, D70, D71).
package feed
