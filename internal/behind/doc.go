// Package behind is strategy write-behind: a statement returns when Redis has queued it, and
// PostgreSQL runs it later. docs/write-behind.md says what that is for and what it gives up.
//
// Reads through the driver see a queued write as they see a committed one. Five rules
// ensure it:
//
//  1. To queue a write and to give its tags new stamps is one step of Redis'.
//  2. A SELECT that may read such a table is sent after a look into the queue
//     that came after its stamps were read; what is there is applied first. A hit
//     needs no look.
//  3. A write is applied as any other write: its tags are marked before COMMIT.
//  4. The position in the queue is recorded in the transaction that applies.
//  5. One server of PostgreSQL owns the queue, and applies it alone, see owner.go.
//
// With rules 1 and 2 no entry is older than the queue when it is hit:
//
//	reader                          writer
//	lookup: stamp 1
//	look: the queue is empty
//	                                queue the write, stamp 1 is dead
//	SELECT → old, right for a read that began before
//	fill with stamp 1: never a hit
//
// and the other way round the look finds the write. Nothing needs to be marked
// while it waits, so there is nothing to be lost but the queue itself.
//
// The naive form invalidates and queues in two steps, and does not look:
//
//	reader                          writer
//	                                delete the entry
//	                                queue the write, acknowledged
//	miss, SELECT → old, fill old
//	                                (applied, and the entry is old for good)
//
// What the package does for its host, which is the driver:
//
//	Of                  once for a text: does it come after the queue, may it be queued?
//	Queue.Enqueue       a write that may be queued, instead of PostgreSQL
//	Queue.Drain         before whatever else comes after the queue is sent
//	Queue.Check         what a Ping says of it
//	Queue.Close         at the end
//
// What the host has to do, or the rules above do not hold:
//
//   - Drain is called after the stamps of a read were read and before it is sent; before a transaction
//     whose snapshot is taken early; and before a connection goes to where statements are not seen.
//   - A Conn runs what it is given like the driver's other connections, marks and releases
//     included (rule 3), and neither queues nor drains: an applier would wait for itself.
//   - Enqueue is called outside of transactions alone, with a plan of the catalog whose stamp is
//     given, and with the store whose stamps the readers of that space look at.
package behind
