// Package step names the moments between the steps of a read and a write. A
// test, or a process that exists to be killed, puts a Hook there; otherwise a
// step costs the check of a nil.
package step

// The moments, in the order in which a read and a write meet them.
const (
	LookedUp = "looked up" // a miss has its stamps, the SELECT is not sent
	Selected = "selected"  // the rows were read, and are not stored
	Filled   = "filled"

	Executed  = "executed"  // the statement ran, its transaction is open
	Marked    = "marked"    // the intents are acknowledged, COMMIT is not sent
	Committed = "committed" // PostgreSQL has answered, nothing is released
	Released  = "released"

	// Of a write that is queued, see strategy "write-behind".
	Queued   = "queued"   // Redis has it, the caller does not know
	Applied  = "applied"  // it ran with others and their position, COMMIT is not sent
	Recorded = "recorded" // PostgreSQL has committed them, the queue has them still

	// Of the feed, see package walfeed.
	Decoded  = "decoded"  // the log tells of a commit; whether it is visible is not known
	Intended = "intended" // it is not, so it is marked
	Fed      = "fed"      // what the log told of is invalidated
	Reloaded = "reloaded" // a catalog was loaded for it, and is not used yet

	// Of a commit that Redis does not hear of, see Config.Outbox.
	Asked     = "asked"     // a relay is asked to mark, it has not answered
	Delivered = "delivered" // a relay has delivered rows, they are still there
)

// Hook, if not nil, is called at every step, on the goroutine that makes it. It
// is set before the first connection is opened and never after.
var Hook func(step string)

// At calls the hook.
func At(step string) {
	if Hook != nil {
		Hook(step)
	}
}
