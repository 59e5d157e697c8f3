// Package connections tests what stands between database/sql and PostgreSQL: pools, hooks, prepared statements, the pgx
// connection underneath, idle connections, and what the driver itself opens.
package connections
