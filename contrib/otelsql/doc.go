// Package otelsql holds tests of cachedpg under github.com/XSAM/otelsql, and nothing to
// import: otelsql is put around the driver as around any other.
//
//	db, err := otelsql.Open("cachedpg", dsn)
//
// To have traces of what reaches PostgreSQL, and none of hits, give pgx a tracer instead:
// ConnConfig.Tracer, with NewConnector.
package otelsql
