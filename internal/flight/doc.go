// Package flight lets the reads of one process that miss the same entry at the same time share one SELECT. It knows
// neither PostgreSQL nor the store: who leads a Flight runs the SELECT, who follows is told what it gave. A Group and an
// Oversize belong to a space.
//
// What the core calls for a miss, outside of transactions:
//
//	Group.Join, Lead   after the lookup, with the stamps that it saw
//	Flight.Takes       by who follows and is waited for by other processes: whether to run the SELECT all the same
//	Flight.Begins      by who leads, when it has waited for another process
//	Flight.Follow      waits; whoever is told to join runs the SELECT too
//	Flight.Land        with what the SELECT gave
//	Flight.Leave       by everybody who ran it, whatever happened
//	Oversize.Has, Add  before a flight: whether the result was too large to be kept; after it
//
// What it promises:
//
//   - A read follows only a flight whose SELECT began after stamps that are its own, so it gets nothing older than alone.
//   - Who follows waits for one flight, for as long as the patience that it brings. Then it runs the SELECT itself.
//   - A flight outlives the context of the caller who leads it: one who follows takes over. Otherwise it ends with a Landing,
//     or when the last who runs the SELECT leaves.
//   - All is safe for concurrent use, and methods of a nil Flight do nothing where nobody may follow. A Landing belongs to all and
//     is not changed: OwnErr copies.
//
// See docs/decisions: reads (D3), connections (D86).
package flight
