// Package explain tests what the driver says of itself: that Explain agrees with what happens, and that neither it nor
// the statistics, errors and logs show a secret.
package explain
