// Package writes tests what a write and a change of the schema invalidate: everything that they change, and how much
// more than that.
package writes
