package catalog

import "fmt"

// Schemas names the state of the schemas themselves, what is in them aside: while it is
// the same, a search_path leads to the same schemas. Who makes, renames, grants or drops one writes its
// row anew, under a transaction's id that is above those of all rows that it replaces.
// Those of temporary objects, which belong to a session, do not count.
type Schemas string

// SchemasSQL is an SQL expression that gives what Snapshot.Schemas does.
const SchemasSQL = "(SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(oid::pg_catalog.int8), pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8))" +
	" FROM pg_catalog.pg_namespace WHERE pg_catalog.substr(nspname::pg_catalog.text, 1, 8) OPERATOR(pg_catalog.<>) 'pg_temp_'" +
	" AND pg_catalog.substr(nspname::pg_catalog.text, 1, 14) OPERATOR(pg_catalog.<>) 'pg_toast_temp_')"

// schemaSum makes Schemas of rows that come in any order.
type schemaSum struct {
	rows           int
	oids, versions uint64
}

func (s *schemaSum) add(oid, version uint32) {
	s.rows++
	s.oids += uint64(oid)
	s.versions += uint64(version)
}

func (s *schemaSum) sum() Schemas {
	return Schemas(fmt.Sprintf("%d,%d,%d", s.rows, s.oids, s.versions))
}
