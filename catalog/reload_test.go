package catalog_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/sqlgen"
)

func reload(tb testing.TB, conn *pgx.Conn, old *catalog.Snapshot) *catalog.Snapshot {
	tb.Helper()
	s, err := catalog.Reload(context.Background(), conn, old)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// mutations are what is done to a schema, some of which is done to nothing, and refused.
var mutations = []string{
	"CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'", "CREATE DOMAIN small AS text CHECK (length(VALUE) < 9)",
	"CREATE TABLE a (id int PRIMARY KEY, b int UNIQUE, c text)", "CREATE TABLE b (id int REFERENCES a ON DELETE CASCADE, d int)",
	"ALTER TABLE a ADD COLUMN more int DEFAULT 7", "ALTER TABLE a DROP COLUMN more", "ALTER TABLE a RENAME COLUMN c TO d", "ALTER TABLE a RENAME COLUMN d TO c",
	"ALTER TABLE a ALTER COLUMN b TYPE bigint", "ALTER TABLE a ALTER COLUMN b TYPE int", "ALTER TABLE a ALTER COLUMN c TYPE small", "ALTER TABLE a RENAME TO a2", "ALTER TABLE a2 RENAME TO a",
	"CREATE TABLE _a (id int)", "DROP TABLE _a", // the array type of a makes room for it
	"CREATE UNIQUE INDEX a_c ON a (c)", "DROP INDEX a_c", "CREATE UNIQUE INDEX a_odd ON a (c text_pattern_ops)", "DROP INDEX a_odd", "CREATE INDEX a_f ON a (f(b))", "DROP INDEX a_f",
	"CREATE INDEX a_plain ON a (c, b)", "CREATE INDEX a_twice ON a USING hash (c)", "DROP INDEX a_plain", "DROP INDEX a_twice", "ALTER DOMAIN small SET DEFAULT 's'", "ALTER TABLE b ALTER d SET DEFAULT 3",
	"ALTER TABLE a ADD CONSTRAINT positive CHECK (f(b) > 0)", "ALTER TABLE a DROP CONSTRAINT positive",
	"ALTER TABLE b ADD CONSTRAINT b_a FOREIGN KEY (d) REFERENCES a (b) ON UPDATE SET NULL", "ALTER TABLE b DROP CONSTRAINT b_a",
	"CREATE VIEW v AS SELECT id, c FROM a", "DROP VIEW v CASCADE", "CREATE OR REPLACE VIEW v AS SELECT id, c, b FROM a", "CREATE VIEW w AS SELECT v.*, f(id) FROM v", "ALTER VIEW v RENAME TO v2",
	"CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM a", "REFRESH MATERIALIZED VIEW m", "DROP MATERIALIZED VIEW m",
	"CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'",
	"ALTER FUNCTION f(int) VOLATILE", "ALTER FUNCTION f(int) IMMUTABLE", "CREATE FUNCTION g() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM a; END", "DROP FUNCTION g()",
	"CREATE FUNCTION trig() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE b SET d = 1; RETURN NEW; END'", "CREATE TRIGGER t BEFORE UPDATE OF b ON a FOR EACH ROW EXECUTE FUNCTION trig()",
	"CREATE CONSTRAINT TRIGGER late AFTER INSERT ON a DEFERRABLE FOR EACH ROW EXECUTE FUNCTION trig()", "DROP TRIGGER late ON a",
	"DROP TRIGGER t ON a", "ALTER TABLE a DISABLE TRIGGER t", "ALTER TABLE a ENABLE TRIGGER t", "CREATE RULE r AS ON DELETE TO a DO ALSO DELETE FROM b", "DROP RULE r ON a",
	"ALTER TABLE a ENABLE ROW LEVEL SECURITY", "ALTER TABLE a DISABLE ROW LEVEL SECURITY", "CREATE POLICY p ON a USING (f(id) > 0)", "DROP POLICY p ON a",
	"GRANT SELECT ON a TO public", "REVOKE SELECT ON a FROM public",
	"CREATE TABLE parts (id int, day int) PARTITION BY RANGE (id)", "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)", "ALTER TABLE parts DETACH PARTITION parts_1",
	"ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (10)", "CREATE UNIQUE INDEX ON parts (id)", "DROP TABLE parts_1", "DROP TABLE parts",
	"CREATE TABLE child (extra int) INHERITS (a)", "ALTER TABLE child NO INHERIT a", "ALTER TABLE child INHERIT a", "DROP TABLE child",
	"ALTER DOMAIN small ADD CONSTRAINT loud CHECK (f(length(VALUE)) > 0)", "ALTER DOMAIN small DROP CONSTRAINT loud", "DROP DOMAIN small CASCADE",
	"CREATE TYPE mood AS ENUM ('sad')", "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'odd'", "DROP TYPE mood", "CREATE TYPE pair AS (x int, y text)", "ALTER TYPE pair ADD ATTRIBUTE z small",
	"CREATE TYPE span AS RANGE (subtype = int4)", "DROP TYPE span", "ALTER TABLE a ADD COLUMN pairs pair[]", "DROP TYPE pair CASCADE",
	"CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)", "DROP OPERATOR === (int, int)", "CREATE CAST (int AS mood) WITH INOUT AS IMPLICIT", "DROP CAST (int AS mood)",
	"CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)", "DROP AGGREGATE total(int)", "CREATE COLLATION odd (provider = icu, locale = 'und', deterministic = false)", "DROP COLLATION odd CASCADE",
	"ALTER TABLE a ADD COLUMN folded text COLLATE odd", "CREATE SCHEMA other", "ALTER TABLE a SET SCHEMA other", "ALTER SCHEMA other RENAME TO another", "ALTER TABLE another.a SET SCHEMA public", "DROP SCHEMA IF EXISTS other, another CASCADE",
	"CREATE SEQUENCE s", "DROP SEQUENCE s", "ALTER TABLE a SET UNLOGGED", "ALTER TABLE a SET LOGGED", "ANALYZE", "VACUUM", "VACUUM FULL a", "TRUNCATE a CASCADE", "COMMENT ON TABLE a IS 'a'",
	"CREATE EXTENSION citext", "DROP EXTENSION citext CASCADE", "ALTER TABLE a ADD COLUMN ci citext", "CREATE TEMP TABLE mine (id int)", "DROP TABLE mine",
	"BEGIN; ALTER TABLE a ADD COLUMN undone int; SAVEPOINT s; CREATE TABLE undone (id int); ROLLBACK TO s; CREATE VIEW undone AS SELECT 1 AS one; RELEASE s; COMMIT",
	"BEGIN; DROP TRIGGER t ON a; CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION trig(); COMMIT", "BEGIN; DROP TABLE a CASCADE; ROLLBACK", "DROP TABLE b CASCADE", "DROP FUNCTION f(int) CASCADE", "DROP TABLE IF EXISTS a CASCADE",
}

// Whatever is done, by whoever, and however long it is under way, the catalog that is loaded with the one of before
// is the one that is loaded without.
func TestReloadGivesWhatLoadDoes(t *testing.T) {
	t.Parallel()
	var b [8]byte
	rand.Read(b[:])
	seed := binary.BigEndian.Uint64(b[:])
	t.Logf("seed %d", seed)
	gen := sqlgen.New(seed)
	dsn := pgtest.Database(t)
	conn, other, loader := pgtest.Connect(t, dsn), pgtest.Connect(t, dsn), pgtest.Connect(t, dsn)
	schema := gen.Schema()
	for _, text := range schema.DDL {
		run(t, conn, text)
	}
	ctx := context.Background()
	s := load(t, loader)
	var did []string
	partial, held := 0, false
	steps := len(mutations) + 40
	for step := range steps {
		several := 1
		if step >= len(mutations) {
			several = gen.Below(5)
		}
		for range several {
			text := mutations[gen.Below(len(mutations))]
			switch {
			case step < len(mutations): // first in their order, in which most succeed
				text = mutations[step]
			case gen.Percent(40):
				text = schema.Change(gen)
			case !held && gen.Percent(10): // it has begun before the next load, and commits after it
				if _, err := other.Exec(ctx, "BEGIN"); err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("late_%d", len(did))
				_, _ = other.Exec(ctx, "CREATE TABLE "+name+" (id int)")
				_, _ = other.Exec(ctx, "SAVEPOINT s")
				_, _ = other.Exec(ctx, "CREATE VIEW v_"+name+" AS SELECT 1 AS one")
				held = true
			case held && gen.Percent(30):
				if _, err := other.Exec(ctx, "COMMIT"); err != nil {
					t.Fatal(err)
				}
				held = false
			}
			_, err := conn.PgConn().Exec(ctx, "SET lock_timeout = '20ms'").ReadAll()
			if err == nil {
				_, err = conn.PgConn().Exec(ctx, text).ReadAll()
			}
			if conn.PgConn().TxStatus() != 'I' {
				run(t, conn, "ROLLBACK")
			}
			if err == nil {
				did = append(did, text)
			}
		}
		was := s
		s = reload(t, loader, was)
		want := load(t, loader)
		if got, want := catalog.Describe(s), catalog.Describe(want); got != want {
			t.Fatalf("%s\nafter %s", diff(got, want), strings.Join(did[max(0, len(did)-8):], "; "))
		}
		if catalog.Shares(s, was) {
			partial++
		}
		if loader.PgConn().TxStatus() != 'I' {
			t.Fatal("a transaction is left open")
		}
	}
	t.Logf("%d changes, %d of %d loads took something over", len(did), partial, steps)
	if partial < steps/2 {
		t.Errorf("%d of %d loads took something over", partial, steps)
	}
}
