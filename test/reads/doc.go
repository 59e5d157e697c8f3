// Package reads tests what a SELECT gives, from the cache and past it: rows, types and errors are those of plain pgx,
// whatever is asked and however it is bound.
package reads
