package catalog_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// needs skips a test unless the server has the version, in the format of server_version_num.
func needs(t *testing.T, conn *pgx.Conn, version int) {
	t.Helper()
	var got int
	if err := conn.QueryRow(context.Background(), "SELECT current_setting('server_version_num')::int").Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got < version {
		t.Skipf("needs PostgreSQL %d or later; the server has %d", version/10000, got/10000)
	}
}

func TestNondeterministicCollation(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	var icu bool
	if err := conn.QueryRow(context.Background(), "SELECT count(*) > 0 FROM pg_collation WHERE collprovider = 'i'").Scan(&icu); err != nil {
		t.Fatal(err)
	}
	if !icu {
		t.Skip("the server is built without ICU")
	}
	run(t, conn, `CREATE COLLATION fold (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE t (own text COLLATE fold PRIMARY KEY, plain text UNIQUE, c text COLLATE "C" UNIQUE);
		CREATE UNIQUE INDEX ON t (own COLLATE "C");
		CREATE UNIQUE INDEX ON t (plain COLLATE fold);
		CREATE DOMAIN folded AS text COLLATE fold;
		CREATE TABLE d (f folded UNIQUE)`)
	s := load(t, conn)
	r := relation(t, s, "t")
	for i, want := range []bool{false, true, true} {
		if got := r.Columns[i].Deterministic; got != want {
			t.Errorf("column %s: deterministic %v, want %v", r.Columns[i].Name, got, want)
		}
	}
	if len(r.Keys) != 2 || r.Keys[0].Columns[0] != 1 || r.Keys[1].Columns[0] != 2 {
		t.Errorf("keys %+v, want those of the columns plain and c alone", r.Keys)
	}
	if r := relation(t, s, "d"); r.Columns[0].Deterministic || len(r.Keys) != 0 {
		t.Errorf("column of a domain: %+v, keys %+v", r.Columns[0], r.Keys)
	}
}

func TestHarmlessExtension(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	for _, extension := range []string{"uuid-ossp", "citext"} {
		if _, err := conn.Exec(context.Background(), `CREATE EXTENSION "`+extension+`"`); err != nil {
			t.Skipf("extension %s: %v", extension, err)
		}
	}
	run(t, conn, `CREATE TABLE t (id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), name citext UNIQUE)`)
	s := load(t, conn)
	r := relation(t, s, "t")
	if len(r.Code) != 0 {
		t.Errorf("code %v, want none", r.Code)
	}
	if len(r.Keys) != 1 || !r.Keys[0].Primary {
		t.Errorf("keys %+v, want the primary key alone: citext has an equality of its own", r.Keys)
	}
	for _, f := range s.Functions([]string{"public"}, "", "uuid_generate_v4", 0) {
		if f.Builtin || len(f.Writers) > 0 || f.Volatility != 'v' {
			t.Errorf("got %+v", f)
		}
	}
	if c, ok := s.Type([]string{"public"}, "", "citext"); !ok || c.Volatility != 'i' || c.Builtin {
		t.Errorf("got %+v", c)
	}
}

func TestNullsNotDistinct(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	needs(t, conn, 150000)
	run(t, conn, "CREATE TABLE t (id int, UNIQUE NULLS NOT DISTINCT (id))")
	if r := relation(t, load(t, conn), "t"); len(r.Keys) != 1 {
		t.Errorf("keys %+v, want one", r.Keys)
	}
}

func TestVersion18(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	needs(t, conn, 180000)
	run(t, conn, `CREATE TABLE t (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id + 1) VIRTUAL);
		CREATE TABLE temporal (id int4range, at tsrange, PRIMARY KEY (id, at WITHOUT OVERLAPS));
		CREATE TABLE r (id int REFERENCES t ON DELETE CASCADE NOT ENFORCED)`)
	s := load(t, conn)
	r := relation(t, s, "t")
	if r.Columns[0].Generated != 0 || r.Columns[1].Generated != 'v' {
		t.Errorf("columns %+v, want the second virtual", r.Columns)
	}
	if len(r.References) != 1 {
		t.Errorf("references %+v, want one", r.References)
	}
	if r := relation(t, s, "temporal"); len(r.Keys) != 0 {
		t.Errorf("temporal keys %+v, want none: several rows may have an id", r.Keys)
	}
}

// An index that is still being built, or whose build failed, is no key.
func TestInvalidIndex(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, pgtest.Database(t))
	run(t, conn, "CREATE TABLE t (id int); INSERT INTO t VALUES (1), (1)")
	if _, err := conn.PgConn().Exec(context.Background(), "CREATE UNIQUE INDEX CONCURRENTLY ON t (id)").ReadAll(); err == nil {
		t.Fatal("the index could be built")
	}
	// Across partitions a key holds only once every partition has it.
	run(t, conn, `CREATE TABLE p (id int) PARTITION BY RANGE (id);
		CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
		CREATE UNIQUE INDEX ON ONLY p (id)`)
	s := load(t, conn)
	for _, name := range []string{"t", "p"} {
		if r := relation(t, s, name); len(r.Keys) != 0 {
			t.Errorf("%s has keys %+v, want none", name, r.Keys)
		}
	}
	run(t, conn, "DROP TABLE p, t")
	if s := load(t, conn); s.Resolve([]string{"public"}, "", "t") != nil {
		t.Error("a dropped table is still there")
	}
}
