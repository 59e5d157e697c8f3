// Package imports has no code: its test checks which package of the project
// may import which, and which third-party module is whose.
package imports
