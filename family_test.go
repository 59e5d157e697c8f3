package cachedpg

import "testing"

func TestAChildWithTwoParents(t *testing.T) {
	scenarioOnce(t, `
		CREATE TABLE cities (id int PRIMARY KEY, people int);
		CREATE TABLE named (name text);
		CREATE TABLE both_of () INHERITS (cities, named);
		INSERT INTO both_of VALUES (1, 10, 'x'), (2, 20, 'y');`, func(f *fixture) {
		const named = "SELECT name FROM named ORDER BY name"
		for _, write := range []string{
			"UPDATE cities SET people = 5 WHERE id = 1", "DELETE FROM cities WHERE id = 2", "UPDATE named SET name = 'z'", "TRUNCATE cities",
		} {
			f.known(named)
			f.known("SELECT sum(people) FROM cities")
			f.exec(write)
			f.miss(named)
			f.miss("SELECT sum(people) FROM cities")
		}
	})
}

func TestPartitionsKeepRowsApart(t *testing.T) {
	scenarioOnce(t, `
		CREATE TABLE parts (id int, kind text, n int, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
		CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
		CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
		CREATE TABLE refs (id int PRIMARY KEY, part int, kind text, FOREIGN KEY (part, kind) REFERENCES parts ON DELETE CASCADE);
		INSERT INTO parts VALUES (1, 'a', 0), (2, 'a', 0), (3, 'b', 0);
		INSERT INTO refs VALUES (1, 1, 'a'), (2, 3, 'b');`, func(f *fixture) {
		const whole, part, refs = "SELECT n FROM parts WHERE id = $1 AND kind = $2", "SELECT n FROM parts_a WHERE id = $1 AND kind = 'a'", "SELECT count(*) FROM refs"
		for _, write := range []string{
			"UPDATE parts SET n = n + 1 WHERE id = 1 AND kind = 'a'", "UPDATE parts_a SET n = n + 1 WHERE id = 1 AND kind = 'a'",
		} {
			f.known(whole, 1, "a")
			f.known(whole, 2, "a")
			f.known(whole, 3, "b")
			f.known(part, 1)
			f.known(part, 2)
			f.known(refs)
			f.exec(write)
			f.hit(whole, 2, "a")
			f.hit(whole, 3, "b")
			f.hit(part, 2)
			f.hit(refs)
			f.miss(whole, 1, "a")
			f.miss(part, 1)
		}
		f.exec("DELETE FROM parts WHERE id = 1 AND kind = 'a'")
		f.miss(refs).is("1")
		f.miss(whole, 1, "a").is("")
		f.known(whole, 2, "b")
		f.exec("UPDATE parts SET kind = 'b' WHERE id = 2 AND kind = 'a'") // it moves
		f.miss(whole, 2, "b").is("0")
		f.miss(whole, 2, "a").is("")
		f.fresh(refs)
	})
}
