// Package judge has PostgreSQL judge what random sessions do in random schemas: each SELECT gives what PostgreSQL gives
// past the cache, and each commit invalidates what it has locked for writing. What is found is made small.
package judge
