package versions

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// newerSchema is a schema that servers before a version do not accept. Every
// write is compared with plain pgx's view of every read, before and after.
type newerSchema struct {
	since  int
	name   string
	setup  string
	reads  []string
	writes []string
}

var newerSchemas = []newerSchema{
	{15, "SET NULL of some columns",
		`CREATE TABLE p (a int, b int, PRIMARY KEY (a, b)); INSERT INTO p VALUES (1, 1), (1, 2);
		CREATE TABLE c (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES p ON DELETE SET NULL (b)); INSERT INTO c VALUES (1, 1, 1), (2, 1, 2)`,
		[]string{"SELECT a, b FROM c WHERE id = 1", "SELECT count(b) FROM c"},
		[]string{"DELETE FROM p WHERE a = 1 AND b = 1"}},
	{15, "NULLS NOT DISTINCT",
		`CREATE TABLE n (k int UNIQUE NULLS NOT DISTINCT, v int); INSERT INTO n VALUES (1, 1), (NULL, 2)`,
		[]string{"SELECT v FROM n WHERE k = 1", "SELECT v FROM n WHERE k IS NULL", "SELECT count(*) FROM n"},
		[]string{"INSERT INTO n VALUES (NULL, 3) ON CONFLICT (k) DO UPDATE SET v = excluded.v", "UPDATE n SET v = 4 WHERE k IS NULL", "UPDATE n SET v = 5 WHERE k = 1"}},
	{15, "a view with the rights of who reads it",
		`CREATE TABLE b (id int PRIMARY KEY, v int); INSERT INTO b VALUES (1, 1); CREATE VIEW iv WITH (security_invoker) AS SELECT id, v FROM b`,
		[]string{"SELECT v FROM iv WHERE id = 1", "SELECT count(*) FROM iv"},
		[]string{"UPDATE iv SET v = 2 WHERE id = 1", "UPDATE b SET v = 3 WHERE id = 1", "INSERT INTO iv VALUES (2, 2)"}},
	{17, "identity of a partitioned table",
		`CREATE TABLE pi (id bigint GENERATED ALWAYS AS IDENTITY, r int, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
		CREATE TABLE pi1 PARTITION OF pi FOR VALUES IN (1); CREATE TABLE pi2 PARTITION OF pi FOR VALUES IN (2); INSERT INTO pi (r) VALUES (1), (2)`,
		[]string{"SELECT id, r FROM pi ORDER BY id", "SELECT id FROM pi1", "SELECT id FROM pi2 ORDER BY id"},
		[]string{"INSERT INTO pi (r) VALUES (1)", "INSERT INTO pi2 (r) VALUES (2)", "MERGE INTO pi USING (VALUES (2)) v(r) ON pi.r = v.r WHEN MATCHED THEN DELETE RETURNING pi.r"}},
	{17, "a new expression of a generated column",
		`CREATE TABLE g (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a + 1) STORED); INSERT INTO g VALUES (1, 1), (2, 2)`,
		[]string{"SELECT s FROM g WHERE id = 1", "SELECT sum(s) FROM g"},
		[]string{"ALTER TABLE g ALTER COLUMN s SET EXPRESSION AS (a * 10)", "UPDATE g SET a = 7 WHERE id = 1"}},
	{17, "a view with JSON_TABLE",
		`CREATE TABLE j (id int PRIMARY KEY, doc jsonb); INSERT INTO j VALUES (1, '[1,2]'), (2, '[3]');
		CREATE VIEW jv AS SELECT j.id, t.v FROM j, JSON_TABLE(j.doc, '$[*]' COLUMNS (v int PATH '$')) t`,
		[]string{"SELECT id, v FROM jv ORDER BY id, v", "SELECT doc FROM j WHERE id = 1"},
		[]string{"UPDATE j SET doc = '[7]' WHERE id = 1", "INSERT INTO j VALUES (3, '[9, 10]')"}},
	{17, "a view with JSON_VALUE",
		`CREATE TABLE j (id int PRIMARY KEY, doc jsonb); INSERT INTO j VALUES (1, '{"a": 1}');
		CREATE VIEW jv AS SELECT id, JSON_VALUE(doc, '$.a') AS a FROM j`,
		[]string{"SELECT id, a FROM jv", "SELECT a FROM jv WHERE id = 1"},
		[]string{"UPDATE j SET doc = '{\"a\": 7}' WHERE id = 1", "UPDATE jv SET id = 5"}},
	{17, "a trigger that MERGEs",
		`CREATE TABLE src (id int PRIMARY KEY, v int); CREATE TABLE dst (id int PRIMARY KEY, v int); INSERT INTO dst VALUES (1, 0);
		CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			MERGE INTO dst USING src ON dst.id = src.id WHEN MATCHED THEN UPDATE SET v = src.v
				WHEN NOT MATCHED BY TARGET THEN INSERT VALUES (src.id, src.v) WHEN NOT MATCHED BY SOURCE THEN DELETE;
			RETURN NULL; END $$;
		CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON src FOR EACH STATEMENT EXECUTE FUNCTION follow()`,
		[]string{"SELECT id, v FROM dst ORDER BY id", "SELECT v FROM dst WHERE id = 1", "SELECT id, v FROM src ORDER BY id"},
		[]string{"INSERT INTO src VALUES (1, 5), (2, 6)", "UPDATE src SET v = 9 WHERE id = 1", "DELETE FROM src WHERE id = 1"}},
	{17, "a function of which the body is newer",
		`CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY, v text);
		CREATE FUNCTION note(j jsonb) RETURNS int LANGUAGE sql BEGIN ATOMIC
			INSERT INTO log (v) SELECT x FROM JSON_TABLE(j, '$[*]' COLUMNS (x text PATH '$')) RETURNING id; END`,
		[]string{"SELECT count(*), max(v) FROM log"},
		[]string{`SELECT note('["a", "b"]')`, `SELECT note('["c"]') WHERE true`}},
	{18, "virtual columns",
		`CREATE TABLE vc (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL, plain int GENERATED ALWAYS AS (a + 1)); INSERT INTO vc VALUES (1, 1), (2, 2)`,
		[]string{"SELECT twice FROM vc WHERE id = 1", "SELECT twice, plain FROM vc WHERE id = 2", "SELECT sum(twice), sum(plain) FROM vc", "SELECT id FROM vc WHERE twice = 4"},
		[]string{"UPDATE vc SET a = 7 WHERE id = 1", "ALTER TABLE vc ALTER COLUMN twice SET EXPRESSION AS (a * 3)",
			"ALTER TABLE vc DROP COLUMN twice, ADD COLUMN twice int GENERATED ALWAYS AS (a * 5)", "UPDATE vc SET a = 8 WHERE id = 2 RETURNING old.twice, new.twice"}},
	{18, "keys without overlaps",
		`CREATE TABLE room (id int4range, at daterange, who text, PRIMARY KEY (id, at WITHOUT OVERLAPS));
		INSERT INTO room VALUES ('[1,2)', '[2024-01-01,2024-02-01)', 'ann'), ('[1,2)', '[2024-02-01,2024-03-01)', 'bob');
		CREATE TABLE stay (id int PRIMARY KEY, room int4range, at daterange, FOREIGN KEY (room, PERIOD at) REFERENCES room (id, PERIOD at));
		INSERT INTO stay VALUES (1, '[1,2)', '[2024-01-10,2024-02-10)')`,
		[]string{"SELECT who FROM room WHERE id = '[1,2)' ORDER BY who", "SELECT count(*) FROM room", "SELECT at FROM stay WHERE id = 1"},
		[]string{"UPDATE room SET who = 'cid' WHERE id = '[1,2)' AND at @> '2024-01-05'::date", "INSERT INTO room VALUES ('[1,2)', '[2024-03-01,2024-04-01)', 'dee')",
			"UPDATE stay SET at = '[2024-01-11,2024-01-12)' WHERE id = 1", "DELETE FROM room WHERE who = 'dee'"}},
	{18, "constraints that are not enforced, or not yet valid",
		`CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);
		CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE NOT ENFORCED, v int CHECK (v > 0) NOT ENFORCED); INSERT INTO c VALUES (1, 1, -1)`,
		[]string{"SELECT id, p, v FROM c ORDER BY id", "SELECT v FROM c WHERE id = 1"},
		[]string{"DELETE FROM p WHERE id = 1", "INSERT INTO p VALUES (1)", "ALTER TABLE c ALTER CONSTRAINT c_p_fkey ENFORCED", "DELETE FROM p WHERE id = 1",
			"ALTER TABLE c ADD CONSTRAINT vn NOT NULL v NOT VALID", "INSERT INTO c VALUES (5, NULL, 5)"}},
	{18, "an update trigger that sees old and new",
		`CREATE TABLE o (id int PRIMARY KEY, v int); INSERT INTO o VALUES (1, 1); CREATE TABLE was (id int, v int);
		CREATE FUNCTION keep(i int) RETURNS void LANGUAGE sql AS 'WITH u AS (UPDATE o SET v = v + 1 WHERE id = i RETURNING old.id, old.v) INSERT INTO was SELECT * FROM u'`,
		[]string{"SELECT v FROM o WHERE id = 1", "SELECT v FROM was ORDER BY v"},
		[]string{"SELECT keep(1)", "SELECT keep(1) FROM o"}},
}

func TestSchemasThatOnlyNewerServersAccept(t *testing.T) {
	t.Parallel()
	version := harness.ServerVersion(t)
	for _, s := range newerSchemas {
		if version < s.since {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			database := pgtest.Database(t)
			t.Run("memory", func(t *testing.T) { s.test(harness.New(t, database, "cache_statement", "")) })
			t.Run("redis", func(t *testing.T) {
				s.test(harness.New(t, database, "exec", "", "cache_store="+pgtest.Redis(t)))
			})
		})
	}
}

func (s newerSchema) test(f *harness.Fixture) {
	f.Exec(s.setup)
	see := func() string {
		var seen []string
		for _, read := range s.reads {
			f.Fresh(read)
			seen = append(seen, f.Fresh(read).String())
		}
		return strings.Join(seen, "; ")
	}
	for _, write := range s.writes {
		before := see()
		f.Exec(write)
		if see() == before && strings.HasPrefix(write, "UPDATE") {
			f.Errorf("%s: changed nothing", write)
		}
	}
}

// What a pgx connection that is lent out sends is judged alike.
func TestNewerStatementsOnALentConnection(t *testing.T) {
	harness.NeedsServer(t, 17)
	harness.Scenario(t, newerTables, func(f *harness.Fixture) {
		const all, merge = "SELECT id, v FROM other ORDER BY id", " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 5) RETURNING merge_action()"
		f.Known(all)
		outside.Raw(f, func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.Ctx, "MERGE INTO other o USING (VALUES (5)) v(id) ON o.id = v.id"+merge)
			return err
		})
		f.Known(all).Is("1 10, 5 5, 7 70")
		outside.Raw(f, func(conn *pgx.Conn) error {
			var b pgx.Batch
			b.Queue("MERGE INTO other o USING (VALUES (1)) v(id) ON o.id = v.id" + merge)
			b.Queue("MERGE INTO other o USING (VALUES (9)) v(id) ON o.id = v.id" + merge)
			return conn.SendBatch(f.Ctx, &b).Close()
		})
		f.Known(all).Is("5 5, 7 70, 9 5")
	})
}
