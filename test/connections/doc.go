// Package connections tests what stands between database/sql and PostgreSQL: pools, wrappers, hooks, prepared statements,
// the pgx connection underneath, idle connections, and what the driver itself opens and asks at its start.
package connections
