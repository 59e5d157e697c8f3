package catalog_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// BenchmarkLoad reads a schema of 1,000 tables with 20 columns, a primary key
// and a unique key each, a foreign key in every second and 50 views.
func BenchmarkLoad(b *testing.B) {
	conn := pgtest.Connect(b, pgtest.Database(b))
	var columns strings.Builder
	for i := range 18 {
		fmt.Fprintf(&columns, ", column_%d %s", i, []string{"int", "text", "timestamptz", "numeric(10, 2)"}[i%4])
	}
	for batch := range 10 { // one transaction would need too many locks
		var sql strings.Builder
		for i := batch * 100; i < (batch+1)*100; i++ {
			reference := ""
			if i%2 == 1 {
				reference = fmt.Sprintf(" REFERENCES table_%d ON DELETE CASCADE", i-1)
			}
			fmt.Fprintf(&sql, "CREATE TABLE table_%d (id bigint PRIMARY KEY, parent bigint%s%s, UNIQUE (column_0, column_1));", i, reference, columns.String())
			if i%20 == 19 {
				fmt.Fprintf(&sql, "CREATE VIEW view_%d AS SELECT a.*, b.column_2 AS other FROM table_%[1]d a JOIN table_%d b ON a.parent = b.id;", i, i-1)
			}
		}
		run(b, conn, sql.String())
	}
	run(b, conn, "ANALYZE pg_class; ANALYZE pg_attribute; ANALYZE pg_index; ANALYZE pg_depend; ANALYZE pg_constraint; ANALYZE pg_type")
	b.ReportAllocs()
	var s *catalog.Snapshot
	for b.Loop() {
		s = load(b, conn)
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/load")
	if r := s.Resolve([]string{"public"}, "", "table_998"); r == nil || len(r.Columns) != 20 || len(r.References) != 1 {
		b.Errorf("got %+v", r)
	}
}

func BenchmarkResolve(b *testing.B) {
	s := catalog.NewSnapshot(catalog.Contents{Relations: []*catalog.Relation{{OID: 1, Schema: "public", Name: "t"}}})
	path := []string{"pg_catalog", "app", "public"}
	b.ReportAllocs()
	for b.Loop() {
		if s.Resolve(path, "", "t") == nil {
			b.Fatal("not found")
		}
	}
}
