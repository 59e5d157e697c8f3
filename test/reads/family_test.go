package reads

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

func TestAChildWithTwoParents(t *testing.T) {
	harness.ScenarioOnce(t, `
		CREATE TABLE cities (id int PRIMARY KEY, people int);
		CREATE TABLE named (name text);
		CREATE TABLE both_of () INHERITS (cities, named);
		INSERT INTO both_of VALUES (1, 10, 'x'), (2, 20, 'y');`, func(f *harness.Fixture) {
		const named = "SELECT name FROM named ORDER BY name"
		for _, write := range []string{
			"UPDATE cities SET people = 5 WHERE id = 1", "DELETE FROM cities WHERE id = 2", "UPDATE named SET name = 'z'", "TRUNCATE cities",
		} {
			f.Known(named)
			f.Known("SELECT sum(people) FROM cities")
			f.Exec(write)
			f.Miss(named)
			f.Miss("SELECT sum(people) FROM cities")
		}
	})
}

func TestPartitionsKeepRowsApart(t *testing.T) {
	harness.ScenarioOnce(t, `
		CREATE TABLE parts (id int, kind text, n int, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
		CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
		CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
		CREATE TABLE refs (id int PRIMARY KEY, part int, kind text, FOREIGN KEY (part, kind) REFERENCES parts ON DELETE CASCADE);
		INSERT INTO parts VALUES (1, 'a', 0), (2, 'a', 0), (3, 'b', 0);
		INSERT INTO refs VALUES (1, 1, 'a'), (2, 3, 'b');`, func(f *harness.Fixture) {
		const whole, part, refs = "SELECT n FROM parts WHERE id = $1 AND kind = $2", "SELECT n FROM parts_a WHERE id = $1 AND kind = 'a'", "SELECT count(*) FROM refs"
		for _, write := range []string{
			"UPDATE parts SET n = n + 1 WHERE id = 1 AND kind = 'a'", "UPDATE parts_a SET n = n + 1 WHERE id = 1 AND kind = 'a'",
		} {
			f.Known(whole, 1, "a")
			f.Known(whole, 2, "a")
			f.Known(whole, 3, "b")
			f.Known(part, 1)
			f.Known(part, 2)
			f.Known(refs)
			f.Exec(write)
			f.Hit(whole, 2, "a")
			f.Hit(whole, 3, "b")
			f.Hit(part, 2)
			f.Hit(refs)
			f.Miss(whole, 1, "a")
			f.Miss(part, 1)
		}
		f.Exec("DELETE FROM parts WHERE id = 1 AND kind = 'a'")
		f.Miss(refs).Is("1")
		f.Miss(whole, 1, "a").Is("")
		f.Known(whole, 2, "b")
		f.Exec("UPDATE parts SET kind = 'b' WHERE id = 2 AND kind = 'a'") // it moves
		f.Miss(whole, 2, "b").Is("0")
		f.Miss(whole, 2, "a").Is("")
		f.Fresh(refs)
	})
}
