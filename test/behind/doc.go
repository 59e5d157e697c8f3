// Package behind tests strategy write-behind: what is queued and what waits for the queue, what happens to it when
// servers and processes fail, and who may put something into it.
package behind
