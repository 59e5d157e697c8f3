// Package through tests strategy write-through: what a commit reads again, what it leaves to the next reader, and that
// neither the commit nor its connection pays for a refill that fails.
package through
