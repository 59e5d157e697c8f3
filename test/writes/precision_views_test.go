package writes

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// Through a view that is a plain query, a row is a row: reads of one by key
// outlive writes of others, to the table and through the view. Where the view is
// more than that, or rules and triggers make more of a write, all of it goes.
const viewsSetup = `
	CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, city text, boss int REFERENCES users);
	CREATE TABLE pets (id int PRIMARY KEY, owner int NOT NULL REFERENCES users ON UPDATE CASCADE, name text NOT NULL);
	CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY, line text);
	INSERT INTO users VALUES (1, 'ann', 'Oslo', NULL), (2, 'bob', 'Rome', 1), (3, 'cid', NULL, 1);
	INSERT INTO pets VALUES (1, 1, 'rex'), (2, 2, 'tom'), (3, 2, 'kit');

	CREATE VIEW settled AS SELECT id, name, city FROM users WHERE city IS NOT NULL;
	CREATE VIEW guarded WITH (security_barrier) AS SELECT * FROM settled WHERE name <> 'zoe';
	CREATE VIEW checked AS SELECT * FROM settled WITH CASCADED CHECK OPTION;
	CREATE VIEW swapped (name, id) AS SELECT id, name FROM users;
	CREATE VIEW bosses AS SELECT u.id, b.id AS boss, b.name FROM users u JOIN users b ON b.id = u.boss;
	CREATE VIEW perhaps AS SELECT u.id, p.id AS pet, p.name FROM users u LEFT JOIN pets p ON p.owner = u.id;
	CREATE VIEW petless AS SELECT id, name FROM users u WHERE NOT EXISTS (SELECT FROM pets WHERE owner = u.id);
	CREATE VIEW counted AS SELECT u.id, count(p.id) AS pets FROM users u LEFT JOIN pets p ON p.owner = u.id GROUP BY u.id;
	CREATE VIEW ranked AS SELECT id, rank() OVER (ORDER BY name) AS place FROM users;
	CREATE VIEW earliest AS SELECT id, name FROM users ORDER BY name LIMIT 1;
	CREATE VIEW logged AS SELECT id, name FROM users;
	CREATE RULE also AS ON UPDATE TO logged DO ALSO INSERT INTO log (line) VALUES (old.name);
	CREATE VIEW frozen AS SELECT id, name FROM users;
	CREATE RULE nothing AS ON UPDATE TO frozen DO INSTEAD UPDATE pets SET name = new.name WHERE owner = old.id;
	CREATE VIEW handled AS SELECT id, name FROM users;
	CREATE FUNCTION handle() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN UPDATE users SET city = NEW.name WHERE id <> OLD.id; RETURN NEW; END $$;
	CREATE TRIGGER handle INSTEAD OF UPDATE ON handled FOR EACH ROW EXECUTE FUNCTION handle();`

func TestARowThroughAView(t *testing.T) {
	harness.ScenarioInMemory(t, viewsSetup, func(f *harness.Fixture) {
		for _, read := range []string{
			"SELECT * FROM settled WHERE id = $1",
			"SELECT s FROM settled s WHERE s.id = $1",
			"SELECT s.* FROM settled AS s(a, b) WHERE s.a = $1 OR s.a = $1", // renamed: all of it
			"SELECT name FROM guarded WHERE id = $1",
			"SELECT * FROM checked WHERE checked.id = $1",
			"SELECT id FROM swapped WHERE name = $1",
			"SELECT a.name, b.name FROM settled a JOIN settled b ON b.id = $1 WHERE a.id = $1",
			"SELECT u.name, s.city FROM users u LEFT JOIN settled s ON s.id = u.id WHERE u.id = $1 AND s.id = $1",
			"SELECT name FROM petless WHERE id = $1",
			"SELECT pets FROM counted WHERE id = $1",
			"SELECT name FROM perhaps WHERE id = $1",
		} {
			f.Known(read, 1)
			f.Known(read, 2)
			f.Exec("UPDATE settled SET name = name || '!' WHERE id = $1", 2)
			f.Miss(read, 2)
			if read == "SELECT s.* FROM settled AS s(a, b) WHERE s.a = $1 OR s.a = $1" {
				f.Miss(read, 1)
			} else {
				f.Hit(read, 1)
			}
			f.Exec("UPDATE users SET name = name || '?' WHERE id = $1", 1)
			f.Miss(read, 1)
		}
	})
}

func TestRowsThatAViewGivesByOthers(t *testing.T) {
	harness.ScenarioInMemory(t, viewsSetup, func(f *harness.Fixture) {
		for _, read := range []string{
			"SELECT place FROM ranked WHERE id = $1",
			"SELECT name FROM earliest WHERE id = $1",
			"SELECT u.name FROM users u LEFT JOIN settled s ON s.id = $1",
		} {
			f.Known(read, 1)
			f.Exec("UPDATE users SET name = 'aaa' || name WHERE id = $1", 3)
			f.Miss(read, 1)
		}
		f.Known("SELECT count(*) FROM settled WHERE id = $1", 1)
		f.Exec("UPDATE users SET name = 'aaa' || name WHERE id = $1", 3)
		f.Hit("SELECT count(*) FROM settled WHERE id = $1", 1)
		f.Exec("UPDATE users SET name = 'aaa' || name WHERE id = $1", 1)
		f.Miss("SELECT count(*) FROM settled WHERE id = $1", 1)
		f.Known("SELECT name FROM bosses WHERE id = $1 AND boss = $2", 2, 1)
		f.Exec("UPDATE users SET name = 'x' WHERE id = 3")
		f.Hit("SELECT name FROM bosses WHERE id = $1 AND boss = $2", 2, 1)
		f.Exec("UPDATE users SET name = 'boss' WHERE id = 1")
		f.Miss("SELECT name FROM bosses WHERE id = $1 AND boss = $2", 2, 1)
		f.Known("SELECT name FROM perhaps WHERE id = $1", 3)
		f.Exec("INSERT INTO pets VALUES (4, 3, 'ben')")
		f.Miss("SELECT name FROM perhaps WHERE id = $1", 3).Is("ben")
		f.Known("SELECT name FROM perhaps WHERE pet = $1", 4)
		f.Exec("UPDATE users SET id = 30 WHERE id = 3")
		f.Miss("SELECT name FROM perhaps WHERE pet = $1", 4)
	})
}

func TestAWriteThroughAView(t *testing.T) {
	const byID = "SELECT name, city FROM users WHERE id = $1"
	harness.ScenarioInMemory(t, viewsSetup, func(f *harness.Fixture) {
		f.Known(byID, 1)
		f.Known(byID, 2)
		for _, write := range []string{
			"UPDATE settled SET city = city || '!' WHERE id = 2",
			"UPDATE guarded SET name = 'bert' WHERE id = 2",
			"UPDATE checked SET city = 'Bonn' WHERE id = 2",
			"UPDATE swapped SET id = 'bertie' WHERE name = 2",
			"UPDATE petless SET name = 'b' WHERE id = 2",
			"INSERT INTO swapped (id, name) VALUES ('basil', 2) ON CONFLICT (name) DO UPDATE SET id = excluded.id",
			"DELETE FROM petless WHERE id = 2",
		} {
			f.Exec(write)
			f.Hit(byID, 1)
			f.Miss(byID, 2)
		}
		f.Exec("INSERT INTO swapped VALUES (5, 'eve')")
		f.Hit(byID, 1)
		f.Miss(byID, 5).Is("eve <nil>")

		// By rules and triggers it is another write.
		f.Known("SELECT count(*) FROM log")
		f.Exec("UPDATE logged SET name = 'x' WHERE id = 2")
		f.Miss("SELECT count(*) FROM log").Is("1")
		f.Fresh(byID, 2)
		f.Known("SELECT name FROM pets WHERE id = $1", 2)
		f.Exec("UPDATE frozen SET name = 'y' WHERE id = 2")
		f.Miss("SELECT name FROM pets WHERE id = $1", 2).Is("y")
		f.Known(byID, 1)
		f.Exec("UPDATE handled SET name = 'Paris' WHERE id = 2")
		f.Miss(byID, 1)
	})
}

// The columns of a view keep their names when those below change, and may be
// given others themselves.
func TestColumnsOfAViewThatWereRenamed(t *testing.T) {
	const read = "SELECT key, name FROM renamed WHERE key = $1"
	harness.ScenarioInMemory(t, `
		CREATE TABLE users (id int PRIMARY KEY, code int UNIQUE, name text);
		INSERT INTO users VALUES (1, 10, 'ann'), (2, 20, 'bob');
		CREATE VIEW renamed AS SELECT id, code, name FROM users;
		ALTER VIEW renamed RENAME COLUMN id TO key;
		ALTER VIEW renamed RENAME COLUMN code TO id`, func(f *harness.Fixture) {
		f.Warm(read, 1)
		f.Exec("UPDATE users SET name = 'b' WHERE id = 2")
		f.Hit(read, 1)
		f.Exec("UPDATE renamed SET name = 'a' WHERE key = 1")
		f.Miss(read, 1).Is("1 a")
		f.Exec("ALTER TABLE users RENAME COLUMN id TO number")
		f.Exec("ALTER TABLE users RENAME COLUMN code TO id")
		f.Known(read, 1)
		f.Known("SELECT name FROM renamed WHERE id = $1", 10)
		f.Exec("UPDATE users SET name = 'c' WHERE number = 2")
		f.Hit(read, 1)
		f.Exec("UPDATE users SET name = 'd' WHERE id = 10")
		f.Miss(read, 1).Is("1 d")
		f.Miss("SELECT name FROM renamed WHERE id = $1", 10).Is("d")
		f.Exec("DROP VIEW renamed")
		f.Exec("CREATE VIEW renamed AS SELECT id AS key, name FROM users")
		f.Known(read, 10)
		f.Exec("UPDATE users SET name = 'e' WHERE number = 1")
		f.Miss(read, 10).Is("10 e")
	})
}

// Several rows by key are rows only if all of them are there.
func TestSeveralRowsByKey(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People, func(f *harness.Fixture) {
		const in, anyOf = "SELECT name FROM users WHERE id IN ($1, $2) ORDER BY id", "SELECT name FROM users WHERE id = ANY($1) ORDER BY id"
		f.Warm(in, 1, 2).Is("ann, bob")
		f.Warm(in, 1, 4).Is("ann")
		f.Warm(in, 1, 1).Is("ann")
		f.Warm(anyOf, []int64{1, 2}).Is("ann, bob")
		f.Exec("INSERT INTO users VALUES (4, 'dee', NULL)")
		f.Hit(in, 1, 2)
		f.Hit(anyOf, []int64{1, 2})
		f.Miss(in, 1, 4).Is("ann, dee")
		f.Hit(in, 1, 4)
		f.Exec("UPDATE users SET name = 'cyd' WHERE id = 3")
		f.Hit(in, 1, 2)
		f.Hit(in, 1, 4)
		f.Exec("DELETE FROM users WHERE id = 4")
		f.Hit(in, 1, 2)
		f.Miss(in, 1, 4).Is("ann")
		f.Exec("UPDATE users SET id = 5 WHERE id = 2")
		f.Miss(in, 1, 2).Is("ann")
		f.Miss(anyOf, []int64{1, 2}).Is("ann")
	})
}

// A transaction that has changed others may still be answered from the cache
// about rows that are all there.
func TestSeveralRowsByKeyInATransaction(t *testing.T) {
	harness.ScenarioInMemory(t, harness.People, func(f *harness.Fixture) {
		const in = "SELECT name FROM users WHERE id IN (1, 2) ORDER BY id"
		f.Warm(in)
		tx, commit := f.Begin(nil)
		tx.Exec("UPDATE users SET name = 'x' WHERE id = 3")
		tx.Hit(in)
		f.Commit(commit)
		f.Hit(in)
	})
}

// ON CONFLICT finds its row by any unique index on the columns.
func TestUpsertsByText(t *testing.T) {
	harness.ScenarioInMemory(t, `
		CREATE TABLE settings (key text PRIMARY KEY, value int);
		INSERT INTO settings VALUES ('a', 1), ('b', 2);
		CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE odd (key text PRIMARY KEY, value int);
		CREATE UNIQUE INDEX ON odd (key COLLATE folded);
		INSERT INTO odd VALUES ('a', 1), ('b', 2)`, func(f *harness.Fixture) {
		for _, table := range []string{"settings", "odd"} {
			read := "SELECT value FROM " + table + " WHERE key = $1"
			f.Warm(read, "a")
			f.Warm(read, "b")
			f.Exec("INSERT INTO " + table + " VALUES ('c', 3)")
			f.Hit(read, "a")
		}
		const upsert = " (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
		f.Exec("INSERT INTO settings"+upsert, "b", 5)
		f.Hit("SELECT value FROM settings WHERE key = $1", "a")
		f.Miss("SELECT value FROM settings WHERE key = $1", "b").Is("5")
		f.Exec("INSERT INTO odd"+upsert, "A", 5) // it is a that is found
		f.Miss("SELECT value FROM odd WHERE key = $1", "a").Is("5")
	})
}
