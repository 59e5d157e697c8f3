// Package guard asks PostgreSQL for the driver itself, over connections that no caller has: what became of
// transactions, what the catalog is, and which advisory locks there are, by which processes see each other.
// A Guard has one such connection while it is needed. Behind a pooler a Rotation holds the locks.
package guard
