// Package planning keeps what is known of the texts that an sql.DB is given: what a text means in a session and a
// catalog, which strategies concern it, how its statement has fared, and whether a lookup of its results pays.
//
// The core asks for a Text at the start of every call, by [Texts.Plan]; nothing of that does I/O, fails or waits. A text
// seen before costs no allocation. What is not understood is a write of anything, so that a caller who goes by the plan
// is never wrong.
//
// Plans live as long as the catalog that they were made with, within a bound in bytes; statements and their accounts
// outlive them, because they are of texts. A Session is shared by all connections whose state is the same, and has
// the plans of its search_path at hand.
//
// All types are safe for concurrent use.
package planning
