package writes

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

// What a write reaches beyond its text: the rows of other tables that foreign
// keys, triggers and rules change.
func TestWritesReachWhatTheSchemaLeadsThemTo(t *testing.T) {
	harness.Scenario(t, `
		CREATE TABLE a (id int PRIMARY KEY);
		CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE);
		CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON DELETE SET NULL);
		CREATE TABLE d (id int PRIMARY KEY, b int DEFAULT 1 REFERENCES b ON DELETE SET DEFAULT);
		CREATE TABLE audit (n serial, what text);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit (what) VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
		CREATE TABLE watched (id int PRIMARY KEY, v int);
		CREATE TRIGGER note AFTER UPDATE ON watched FOR EACH STATEMENT EXECUTE FUNCTION note();
		CREATE TABLE ruled (id int);
		CREATE RULE log AS ON INSERT TO ruled DO ALSO INSERT INTO audit (what) VALUES ('rule');
		INSERT INTO a VALUES (1), (2), (3);
		INSERT INTO b VALUES (1, 1), (2, 2), (3, 3);
		INSERT INTO c VALUES (1, 1), (2, 2);
		INSERT INTO d VALUES (1, 1), (2, 2);
		INSERT INTO watched VALUES (1, 1);`, func(f *harness.Fixture) {
		all := []string{"SELECT * FROM a ORDER BY id", "SELECT * FROM b ORDER BY id", "SELECT * FROM c ORDER BY id",
			"SELECT * FROM d ORDER BY id", "SELECT what FROM audit ORDER BY n", "SELECT * FROM watched", "SELECT * FROM ruled",
			"SELECT * FROM b WHERE id = 2", "SELECT * FROM c WHERE id = 2", "SELECT * FROM d WHERE id = 2"}
		for _, write := range []string{
			"DELETE FROM a WHERE id = 2",
			"UPDATE a SET id = 7 WHERE id = 3",
			"UPDATE watched SET v = v + 1 WHERE id = 1",
			"UPDATE watched SET v = v WHERE id = 99", // a statement trigger runs without rows
			"INSERT INTO ruled VALUES (1)",
			"TRUNCATE b CASCADE",
		} {
			for _, query := range all {
				f.Known(query)
			}
			f.Exec(write)
			for _, query := range all {
				f.Fresh(query)
				f.Fresh(query)
			}
		}
		// Only what can be reached: a table that nothing leads to stays.
		f.Known("SELECT * FROM audit")
		f.Exec("INSERT INTO a VALUES (8)")
		f.Hit("SELECT * FROM audit")
	})
}

func TestPartitionsAndInheritance(t *testing.T) {
	harness.Scenario(t, `
		CREATE TABLE m (id int, at int, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
		CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
		CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20);
		INSERT INTO m VALUES (1, 1, 'a'), (2, 11, 'b');
		CREATE TABLE city (name text PRIMARY KEY, size int);
		CREATE TABLE capital (country text) INHERITS (city);
		INSERT INTO city VALUES ('Bern', 1); INSERT INTO capital VALUES ('Bern', 2, 'CH');`, func(f *harness.Fixture) {
		all := []string{"SELECT * FROM m ORDER BY id", "SELECT * FROM m1", "SELECT * FROM m2 ORDER BY id",
			"SELECT v FROM m WHERE id = 1 AND at = 1", "SELECT v FROM m2 WHERE id = 2 AND at = 11", "SELECT v FROM m WHERE id = 2 AND at = 11",
			"SELECT name, size FROM city ORDER BY size", "SELECT name, size FROM ONLY city", "SELECT * FROM capital",
			"SELECT size FROM city WHERE name = 'Bern' ORDER BY size"}
		for _, write := range []string{
			"UPDATE m SET v = 'c' WHERE id = 1 AND at = 1",
			"UPDATE m1 SET v = 'd' WHERE id = 1 AND at = 1",
			"UPDATE m SET at = 12 WHERE id = 1 AND at = 1", // moves to the other partition
			"INSERT INTO m VALUES (3, 13, 'e')",
			"DELETE FROM m2 WHERE id = 2 AND at = 11",
			"ALTER TABLE m DETACH PARTITION m1",
			"TRUNCATE m",
			"UPDATE city SET size = size + 10 WHERE name = 'Bern'",
			"UPDATE ONLY city SET size = size + 10",
			"UPDATE capital SET size = size + 10",
			"DELETE FROM city WHERE name = 'Bern'",
		} {
			for _, query := range all {
				f.Known(query)
			}
			f.Exec(write)
			for _, query := range all {
				f.Fresh(query)
				f.Fresh(query)
			}
		}
	})
}

func TestViewsAreTheirTables(t *testing.T) {
	harness.Scenario(t, harness.People+`
		CREATE TABLE staff (id int PRIMARY KEY);
		INSERT INTO staff VALUES (1);
		CREATE VIEW romans AS SELECT id, name FROM users WHERE city = 'Rome';
		CREATE VIEW roman_names AS SELECT name FROM romans;
		CREATE MATERIALIZED VIEW cities AS SELECT DISTINCT city FROM users WHERE city IS NOT NULL;`, func(f *harness.Fixture) {
		f.Warm("SELECT name FROM roman_names")
		f.Warm("SELECT id FROM staff")
		f.Exec("UPDATE users SET name = 'bobo' WHERE id = 2")
		f.Miss("SELECT name FROM roman_names").Is("bobo")
		f.Exec("UPDATE romans SET name = 'bobby'") // a write through the view
		f.Miss("SELECT name FROM roman_names").Is("bobby")
		f.Fresh(harness.UserByID, 2).Is("2 bobby Rome")
		f.Hit("SELECT id FROM staff")

		f.Warm("SELECT city FROM cities ORDER BY city").Is("Oslo, Rome")
		f.Exec("UPDATE users SET city = 'Paris' WHERE id = 1")
		f.Hit("SELECT city FROM cities ORDER BY city") // as PostgreSQL: until REFRESH
		f.Exec("REFRESH MATERIALIZED VIEW cities")
		f.Miss("SELECT city FROM cities ORDER BY city").Is("Paris, Rome")

		f.Known("SELECT name FROM roman_names")
		f.Exec("CREATE OR REPLACE VIEW roman_names AS SELECT 'of staff ' || id AS name FROM staff")
		f.Fresh("SELECT name FROM roman_names").Is("of staff 1")
		f.Known("SELECT name FROM roman_names")
		f.Exec("INSERT INTO staff VALUES (2)")
		f.Fresh("SELECT name FROM roman_names ORDER BY 1").Is("of staff 1, of staff 2")
	})
}

// A table that was made past the driver is found when it is asked for.
func TestDDLPastTheDriver(t *testing.T) {
	harness.Scenario(t, harness.People, func(f *harness.Fixture) {
		f.Warm(harness.UserByID, 1)
		f.Past("CREATE TABLE made AS SELECT 1 AS x")
		f.Known("SELECT x FROM made")
		f.Exec("UPDATE made SET x = 2")
		f.Miss("SELECT x FROM made").Is("2")
		f.Known(harness.UserByID, 1)
	})
}

// What PostgreSQL computes when a row changes is a part of the row.
func TestGeneratedColumns(t *testing.T) {
	harness.Scenario(t, `CREATE TABLE g (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED UNIQUE);
		INSERT INTO g VALUES (1, 1), (2, 2);`, func(f *harness.Fixture) {
		const byB = "SELECT id FROM g WHERE b = $1"
		f.Warm(byB, 2).Is("1")
		f.Warm(byB, 20).Is("")
		f.Exec("UPDATE g SET a = 10 WHERE id = 1")
		f.Fresh(byB, 2).Is("")
		f.Fresh(byB, 20).Is("1")
	})
}

// A crash of PostgreSQL empties an unlogged table without a write.
func TestUnloggedTables(t *testing.T) {
	harness.Scenario(t, "CREATE UNLOGGED TABLE u AS SELECT 1 AS x", func(f *harness.Fixture) {
		f.Bypass(keying.UnloggedTable, "SELECT x FROM u")
		f.Exec("ALTER TABLE u SET LOGGED")
		f.Known("SELECT x FROM u")
		f.Exec("UPDATE u SET x = 2")
		f.Miss("SELECT x FROM u").Is("2")
	})
}
