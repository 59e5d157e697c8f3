-- What extensions bring: types with keys, functions in C, triggers.

-- run: with citext
CREATE EXTENSION citext;
-- run: with citext
CREATE TABLE people (id int PRIMARY KEY, mail citext UNIQUE, n int DEFAULT 0);
-- run: with citext
INSERT INTO people VALUES (1, 'Ann@x', 1), (2, 'Bob@x', 2), (3, 'cid@x', 3);
-- run: with citext
SELECT * FROM people WHERE mail = 'ANN@X';
-- run: with citext
UPDATE people SET n = 5 WHERE mail = 'ann@x';
-- run: with citext
INSERT INTO people VALUES (9, 'BOB@x', 9) ON CONFLICT (mail) DO UPDATE SET n = excluded.n;
-- run: with citext
DELETE FROM people WHERE mail = 'CID@X'::text;
-- run: with hstore
CREATE EXTENSION hstore;
-- run: with hstore
CREATE TABLE bags (id int PRIMARY KEY, bag hstore);
-- run: with hstore
INSERT INTO bags VALUES (1, 'a=>1'), (2, 'b=>2');
-- run: with hstore
SELECT bag -> 'a', bag ? 'b', bag FROM bags ORDER BY id;
-- run: with hstore
UPDATE bags SET bag = bag || 'c=>3' WHERE id = 1;
-- run: with hstore
UPDATE bags SET bag = delete(bag, 'b') WHERE bag ? 'b';
-- run: with ltree
CREATE EXTENSION ltree;
-- run: with ltree
CREATE TABLE paths (path ltree PRIMARY KEY, v int);
-- run: with ltree
INSERT INTO paths VALUES ('a.b', 1), ('a.c', 2);
-- run: with ltree
SELECT * FROM paths WHERE path <@ 'a' ORDER BY path;
-- run: with ltree
UPDATE paths SET v = 3 WHERE path = 'a.b';
-- run: with pg_trgm
CREATE EXTENSION pg_trgm;
-- run: with pg_trgm
SELECT similarity('word', 'words') > 0.3;
-- run: with btree_gist
CREATE EXTENSION btree_gist;
-- run: with btree_gist
CREATE TABLE booked (room int, during int4range, EXCLUDE USING gist (room WITH =, during WITH &&));
-- run: with btree_gist
INSERT INTO booked VALUES (1, '[1,3)'), (2, '[1,3)');
-- run: with btree_gist
DELETE FROM booked WHERE room = 1;
-- run: with intarray
CREATE EXTENSION intarray;
-- run: with intarray
SELECT sort('{3,1,2}'::int[]), '{1,2}'::int[] & '{2,3}'::int[];
-- run: with pgcrypto
CREATE EXTENSION pgcrypto;
-- run: with pgcrypto
SELECT encode(digest('x', 'sha256'), 'hex');
-- run: with uuid-ossp
CREATE EXTENSION "uuid-ossp";
-- run: with uuid-ossp
SELECT uuid_nil(), uuid_generate_v5(uuid_ns_url(), 'x');
-- run: with unaccent
CREATE EXTENSION unaccent;
-- run: with unaccent
SELECT unaccent('é');
-- run: with moddatetime
CREATE EXTENSION moddatetime;
-- run: with moddatetime
CREATE TABLE stamped (id int PRIMARY KEY, v int, at timestamptz);
-- run: with moddatetime
INSERT INTO stamped VALUES (1, 1), (2, 2);
-- run: with moddatetime
CREATE TRIGGER stamp BEFORE UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION moddatetime(at);
-- run: with moddatetime
UPDATE stamped SET v = 5 WHERE id = 1;
-- run: with moddatetime
SELECT v, at IS NULL FROM stamped ORDER BY id;
-- run: with tcn
CREATE EXTENSION tcn;
-- run: with tcn
CREATE TABLE told (id int PRIMARY KEY, v int);
-- run: with tcn
CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON told FOR EACH ROW EXECUTE FUNCTION triggered_change_notification();
-- run: with tcn
INSERT INTO told VALUES (1, 1);
-- run: with tcn
UPDATE told SET v = 2 WHERE id = 1;
-- run: with tablefunc
CREATE EXTENSION tablefunc;
-- run: with tablefunc
SELECT * FROM crosstab('SELECT 1, id, v FROM told ORDER BY 1, 2') AS c (row int, a int);
-- run: with tablefunc
UPDATE told SET v = 3 WHERE id = 1;
-- run: with refint
CREATE EXTENSION refint;
-- run: with refint
CREATE TABLE led (id int, told int);
-- run: with refint
INSERT INTO led VALUES (1, 1);
-- run: with refint
CREATE TRIGGER led AFTER DELETE OR UPDATE ON told FOR EACH ROW EXECUTE FUNCTION check_foreign_key(1, 'cascade', 'id', 'led', 'told');
-- run: with refint
SELECT * FROM led;
-- run: with refint
DELETE FROM told WHERE id = 1;
-- run: with refint
SELECT * FROM led;
