// Package outbox is a table in the database itself, so that a row in it is as durable
// as what it tells of. Writers put rows into it, and relays read them. docs/outbox.md says what
// that is for. There are two kinds of rows.
//
// An event stands in the transaction of the writer that it tells of (or beside it,
// with its id, where that cannot be), and is there if and only if that committed:
//
//	writer                            relay
//	BEGIN; UPDATE …
//	INSERT event; COMMIT
//	(dies, or cannot reach anybody)
//	                                  SELECT … FOR UPDATE SKIP LOCKED
//	                                  deliver; DELETE; COMMIT
//
// A row that a relay sees was committed before the relay's snapshot, and the
// writer's transaction with it: they are one. Snapshots do not go back, so whoever
// asks PostgreSQL from now on sees the change, and new stamps are enough.
//
// An event of a statement that runs outside of transactions stands there before the
// statement runs, and after the lock that says that one does: a relay leaves it until a
// moment when nobody holds that.
//
//	writer                            relay
//	lock
//	INSERT event, beside
//	                                  locked: not yet
//	statement, which commits
//	unlock, or the backend ends
//	                                  not locked: deliver
//
// A request is for a strict writer that alone cannot reach the shared store. It
// has to mark before COMMIT, so the request is committed beside its transaction,
// which is still open, and a relay marks in its place, by the writer's own id:
//
//	writer                            relay                       reader
//	BEGIN; UPDATE …
//	INSERT request, beside
//	                                  Mark(writer, tags)
//	                                  UPDATE request: marked
//	                                                              bypass: dirty
//	sees marked; COMMIT
//	                                  the transaction is over:
//	                                  resolve; DELETE request
//	                                                              miss, fill
//
// The relay says "marked" only if its Mark said what the writer would have needed
// to hear: the catalog stamp that the writer planned with stands, and there is
// nothing to wait for. Stamps are random, so this also proves that the relay has
// the writer's store, in the writer's epoch. Otherwise, or when nobody answers in
// time, the writer goes the way of guard.Notice.
//
// Who dies where:
//
//   - the writer before its COMMIT: its transaction is aborted, which ends the
//     request like a commit does;
//   - the relay after Mark and before "marked": the writer goes the way of
//     guard.Notice, and the marks are resolved by another relay or by any process that
//     meets them, because they carry the transaction's id (I4, I11);
//   - the relay after it has delivered: the row is still there, and is delivered
//     again.
//
// What the package does for its host, which is the driver:
//
//	Event.SQL           the statement that writes an event into the open transaction
//	IsReadOnly          before COMMIT: whether the transaction takes a row; with another question WithReadOnly
//	MayPost             before COMMIT: whether the role may write one, where it need not be
//	Outbox.Post         before COMMIT: runs it, or Outbox.Posted if it ran with another statement
//	Outbox.PostApart    before COMMIT, where the transaction takes no row, or there is none
//	ExplainWith         after the error of a statement that an event went together with
//	Outbox.Ask          before COMMIT, when the store cannot be marked: has a relay mark
//	Outbox.Relay        the relay
//	Outbox.Stats        what Stats says of all that
//	TableSQL            what a setup runs
//
// What the host has to do, or a row does not tell the truth:
//
//   - An event is written after the tags are complete, and in the transaction that COMMIT ends.
//   - One of a statement outside of transactions is written under guard.LockAlone, which is
//     held until the statement is over.
//   - Whoever asks has marked nothing of the commit by itself, and commits only after Ask is true or
//     under a notice. The stamp is that of the catalog which the tags were planned with.
//   - Event.Local is true if the shared store may not hear of the commit from its writer.
//   - An Adopt gives the space of the session that it was asked with, and keeps it until Leave.
//
// See docs/decisions/feed-and-outbox.md (D72, D73).
package outbox
