// Package outages tests that the cache is right, or silent, when Redis or another process is away, and that it says so.
package outages
