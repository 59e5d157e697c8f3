// Package outages tests that the cache is right, or silent, when Redis, PostgreSQL or another process is away, moves or is
// replaced, and that it says so.
package outages
